"""Random mixes of operators, pools, reloads and models with all that happens to questions: node and broker agree.

The seed is the test's id, as in `test_desk_mixes`.
"""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
import structlog
from desk_rig import TOPICS
from faults.record import soak_factor
from mix_checks import check_all
from node_mix import NodeMix

from edged.core.link import STEADY_S, Connected, Disconnected
from edged.node import news

MIXES = 60


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test for each seed."""
    if "seed" in metafunc.fixturenames:
        metafunc.parametrize("seed", range(MIXES * soak_factor(soak=metafunc.config.getoption("--soak"))))


def test_mix(seed: int, tmp_path: Path) -> None:
    """Drains, pools, models, settings, restarts: no question suffers, each order has its answer."""
    mix = NodeMix(seed, tmp_path / "journal.db")
    try:
        mix.run()
        check_all(mix)
        check_orders(mix)
        check_pools(mix)
        check_info(mix)
        check_what_waits(mix)
    finally:
        mix.journal.kill()


def test_a_connection_among_many_short_ones_is_told_once_it_lasts(tmp_path: Path) -> None:
    """Neither its begin nor a short one's end is a line at `info`; the log does not end with one that was lost."""
    mix = NodeMix(0, tmp_path / "journal.db")
    try:
        with structlog.testing.capture_logs() as lines:
            mix.node.handle(Connected(session_present=True, quiet=True))
            mix.node.handle(Disconnected("lost", quiet=True))
            mix.clock.advance(STEADY_S)
            mix.node._tick()  # noqa: SLF001 - as `serve` does
            mix.node.handle(Connected(session_present=True, quiet=True))
            mix.clock.advance(STEADY_S)
            for _ in range(3):
                mix.node._tick()  # noqa: SLF001
        told = [(line["event"], line["log_level"]) for line in lines if line["event"].startswith("mqtt_")]
        quiet = [("mqtt_connected", "debug"), ("mqtt_disconnected", "debug"), ("mqtt_connected", "debug")]
        assert told == [*quiet, ("mqtt_connected", "info")]
    finally:
        mix.journal.kill()


def check_orders(mix: NodeMix) -> None:
    """Each order of this life is answered, and a model's answer tells what was loaded."""
    assert mix.admin._switch is None  # noqa: SLF001
    loaded = None
    for transaction, order in mix.orders.items():
        assert len(order.results) == 1 or order.life < mix.life, (transaction, order)
        for result in order.results:
            if order.op == "model" and result["status"] == "ok" and "model" in result["data"]:
                assert f"{result['data']['model']}.gguf" == order.fields["path"], order
                loaded = order.fields["path"]
    if mix.life == 1 and loaded is not None:
        assert mix.supervision.setup.model_path.endswith(loaded)


def check_pools(mix: NodeMix) -> None:
    """The node is in its pools while nothing speaks against it, and the broker says the same."""
    membership = mix.membership
    wanted = set() if membership.reasons else {TOPICS.pool(pool) for pool in membership.pools}
    assert {topic for topic in mix.broker.subscribed if topic in mix.broker.wanted} == wanted
    reasons = {"loading": not mix.supervision.ready, "draining": mix.admin.draining}
    assert set(membership.reasons) == {reason for reason, stands in reasons.items() if stands}
    assert mix.admin.idle
    assert not mix.admin.draining or mix.events.count("drained") >= 1


def check_info(mix: NodeMix) -> None:
    """What is retained is what is so."""
    info = news.info(mix.node.telling.about, mix.supervision, mix.membership)
    assert json.loads(mix.retained[TOPICS.info]) == json.loads(msgspec.json.encode(info))


def check_what_waits(mix: NodeMix) -> None:
    """What needs a restart is as it was at the start, whatever the file says by now."""
    assert mix.tunes.vitals._interval_s == mix.tunes.started.heat.interval_s  # noqa: SLF001
