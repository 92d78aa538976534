"""Which settings change at run time, and what an operator's changes may be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edged.errors import SettingsError
from edged.settings import Settings, at_run_time, changed, differences, load, values

FIRST = """
[model]
path = "m.gguf"
[limits]
queue_jobs = 20
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A small tree."""
    file = tmp_path / "edged.toml"
    file.write_text(FIRST)
    return load(file)


def test_values_and_differences(settings: Settings, tmp_path: Path) -> None:
    """A tree differs from itself in nothing, and from another in exactly what was written differently."""
    assert differences(settings, settings) == {}
    other = tmp_path / "other.toml"
    other.write_text(FIRST.replace("20", "30") + "[engine]\nslots = 3\n")
    assert differences(settings, load(other)) == {"limits.queue_jobs": 30, "engine.slots": 3}
    assert values(settings)["limits.queue_jobs"] == 20
    assert values(settings)["mqtt.tls.ca"] is None


def test_changed(settings: Settings) -> None:
    """Several settings of several sections change together; the tree before is untouched."""
    wanted = changed(settings, {"limits.queue_jobs": 40, "limits.client_jobs": 40, "node.pools": ["a"]})
    assert differences(settings, wanted) == {
        "limits.queue_jobs": 40,
        "limits.client_jobs": 40,
        "node.pools": ("a",),
    }
    assert settings.limits.queue_jobs == 20


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"limits.queue_jobs": 0}, "limits.queue_jobs: 0 is not accepted"),
        ({"limits.queue_jobs": "many"}, "limits.queue_jobs"),
        ({"limits.client_jobs": 21}, "at most limits.queue_jobs (20)"),
        ({"limits.queue_jobs": 4}, "limits.client_jobs"),
        ({"log.level": "loud"}, "log.level"),
        ({"node.pools": ["no#"]}, "node.pools"),
        ({"nothing": 1}, "nothing: unknown key"),
        ({"model.path": "x"}, "model.path: needs a restart"),
        ({"mqtt.port": 1}, "mqtt.port: needs a restart"),
    ],
)
def test_refused_changes(settings: Settings, changes: dict[str, Any], words: str) -> None:
    """One sentence with the key, what is wrong and what is accepted."""
    with pytest.raises(SettingsError) as raised:
        changed(settings, changes)
    assert words in str(raised.value)


def test_what_changes_at_run_time() -> None:
    """Limits, log, health interval and pools do; where the node is found and what it loads do not."""
    assert all(map(at_run_time, ("limits.queue_jobs", "log.level", "health.interval_s", "node.pools")))
    assert not any(map(at_run_time, ("node.id", "mqtt.port", "model.path", "engine.slots", "health.other")))
