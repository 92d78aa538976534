"""The house rules that a reader of the tree relies on, held over the syntax trees: who may import what."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "edged"
FILES = sorted(ROOT.rglob("*.py"))

ONE_PLACE = {
    "llama_cpp": ("engine/llama/", "engine/quantize.py"),
    "llguidance": ("engine/llama/", "engine/constraint.py"),
    "paho": ("adapters/mqtt/", "client/", "mqtt5.py"),
    "psutil": ("adapters/vitals/",),
    "sqlite3": ("adapters/journal/",),
    "iotcore": ("demo/",),
    "jinja2": ("engine/chat.py",),
    "pydantic_settings": ("settings/",),
    "typer": ("cli/",),
    "starlette": ("adapters/http/",),
    "uvicorn": ("adapters/http/",),
    "httpx": ("adapters/upstream.py",),
    "jsonschema_rs": ("adapters/judge.py",),
}
"""What each package is for stands in one place; another broker client or database is one file to change."""

EVERYTHING = (
    "daemon.py",
    "parts.py",
    "footing.py",
    "tuning.py",
    "__main__.py",
    "cli/",
    "demo/",
    "doctor/",
    "measuring/",
)
"""Where the parts are put together: these may import all of edged."""

MAY_IMPORT = {
    "errors.py": (),
    "small_file.py": (),
    "renewal.py": ("errors", "small_file"),
    "whole_file.py": (),
    "child.py": (),
    "mqtt5.py": (),
    "__init__.py": (),
    "core/": ("core", "errors"),
    "engine/client.py": ("core", "errors", "engine.channel", "engine.environment", "engine.messages"),
    "engine/environment.py": ("core",),
    "engine/exit_code.py": (),
    "engine/trial_client.py": (
        "core",
        "errors",
        "engine.channel",
        "engine.environment",
        "engine.exit_code",
        "engine.trial_messages",
    ),
    "engine/": ("core", "errors", "small_file", "whole_file", "child", "engine"),
    "adapters/mqtt/": ("core", "errors", "small_file", "mqtt5", "renewal", "adapters.mqtt"),
    "adapters/http/": ("core", "errors", "small_file", "renewal", "adapters.http"),
    "adapters/upstream.py": ("core", "errors", "small_file"),
    "adapters/program.py": ("small_file",),
    "adapters/systemd.py": ("core", "errors"),
    "adapters/textfile.py": ("core", "errors", "whole_file"),
    "adapters/note.py": ("core", "errors", "whole_file"),
    "adapters/calibration_file.py": ("core", "errors", "whole_file"),
    "adapters/machine.py": ("core", "errors"),
    "adapters/certificate_files.py": ("core", "errors", "small_file"),
    "adapters/journal/": ("core", "errors", "whole_file", "adapters.journal"),
    "adapters/vitals/": ("core", "errors", "adapters.vitals"),
    "adapters/": ("core", "errors"),
    "node/": (
        "core",
        "errors",
        "small_file",
        "node",
        "engine.client",
        "engine.exit_code",
        "engine.messages",
        "tools.client",
    ),
    "tools/client.py": ("core", "errors", "engine.channel", "engine.exit_code", "tools.messages"),
    "tools/": ("core", "errors", "child", "engine.channel", "tools"),
    "settings/": ("core", "errors", "small_file", "settings"),
    "client/": ("core", "errors", "mqtt5", "client"),
    "models/": ("core", "errors", "small_file", "whole_file", "adapters.model_file", "models"),
    "logs.py": ("core", "errors", "journald", "log_fields"),
    "log_fields.py": (),
    "journald.py": (),
    "demo_model.py": ("core", "errors", "models.quantising"),
}
"""Rooms and what of edged they know; the first row that fits counts. Adapters do not know each other, and what
runs in the daemon knows the engine by its messages only: importing it must never load llama.cpp."""

BROAD = [
    "adapters/mqtt/connection.py",
    "core/parsing.py",
    "engine/intake.py",
    "tools/__main__.py",
    "tools/__main__.py",
]
"""Files with an `except` that takes everything and keeps it: the network thread tells the node what ended it;
what a device can write is endless, and a question is measured by others' code: defects there shall cost that
question alone; code of plug-ins may raise anything, and has a process of its own."""


def name_of(path: Path) -> str:
    """A file's place in the package."""
    return path.relative_to(ROOT).as_posix()


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and absolute dotted name of everything that a file imports, names out of packages included."""
    package = ("edged", *path.relative_to(ROOT).parent.parts)
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) - node.level + 1]] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield node.lineno, f"{module}.{alias.name}"


def fits(place: str, rooms: tuple[str, ...]) -> bool:
    """Whether a file is one of these, or lies in one of these folders."""
    return any(place == room or (room.endswith("/") and place.startswith(room)) for room in rooms)


def known_to(place: str) -> tuple[str, ...] | None:
    """What of edged a file may import; None for everything."""
    if fits(place, EVERYTHING):
        return None
    for room, known in MAY_IMPORT.items():
        if fits(place, (room,)):
            return known
    pytest.fail(f"{place} lies in no room of this test's table")


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_rooms(path: Path) -> None:
    """A file imports of edged what its room may know, and no more."""
    known = known_to(name_of(path))
    for line, module in imports(path):
        parts = module.split(".")
        if parts[0] != "edged" or known is None:
            continue
        inner = ".".join(parts[1:])
        allowed = not inner or any(inner == one or inner.startswith(f"{one}.") for one in known)
        assert allowed, f"{name_of(path)}:{line} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_one_place(path: Path) -> None:
    """A package that stands for something outside is imported in its one place."""
    for line, module in imports(path):
        places = ONE_PLACE.get(module.split(".")[0])
        assert places is None or fits(name_of(path), places), f"{name_of(path)}:{line} imports {module}"


@pytest.mark.parametrize("path", [path for path in FILES if name_of(path).startswith("core/")], ids=name_of)
def test_core_is_pure(path: Path) -> None:
    """The core knows the standard library, msgspec and pydantic; of the library nothing that acts or waits."""
    acts = {"asyncio", "io", "logging", "os", "pathlib", "queue", "random", "secrets", "selectors", "signal"}
    acts |= {"socket", "subprocess", "tempfile", "threading", "time", "multiprocessing", "shutil"}
    for line, module in imports(path):
        root = module.split(".")[0]
        where = f"{name_of(path)}:{line} imports {module}"
        assert root in {"edged", "msgspec", "pydantic"} or root in sys.stdlib_module_names, where
        assert root not in acts, where


def test_broad_excepts() -> None:
    """An `except` that takes everything and does not raise it again stands in few named places."""
    found = [
        name_of(path)
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ExceptHandler) and _keeps_everything(node)
    ]
    assert sorted(found) == BROAD


def _keeps_everything(handler: ast.ExceptHandler) -> bool:
    last, caught = handler.body[-1], handler.type
    if isinstance(last, ast.Raise) and last.exc is None:
        return False
    if caught is None:
        return True
    names = caught.elts if isinstance(caught, ast.Tuple) else [caught]
    return any(isinstance(name, ast.Name) and name.id in {"Exception", "BaseException"} for name in names)


@pytest.mark.parametrize(
    ("text", "place", "expected"),
    [
        ("from ...core.vitals import Zone", "adapters/vitals/reader.py", "edged.core.vitals.Zone"),
        ("from . import files", "adapters/vitals/reader.py", "edged.adapters.vitals.files"),
        ("from .. import mqtt", "adapters/vitals/reader.py", "edged.adapters.mqtt"),
        ("def late():\n    import llama_cpp.x", "core/job.py", "llama_cpp.x"),
        ("from .cli import main", "__main__.py", "edged.cli.main"),
    ],
)
def test_imports_are_found(
    text: str, place: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Relative and late imports are seen as what they are."""
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    path = tmp_path / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    assert [module for _, module in imports(path)] == [expected]


@pytest.mark.parametrize(
    ("handler", "keeps"),
    [
        ("except:\n    pass", True),
        ("except Exception:\n    pass", True),
        ("except (OSError, BaseException) as error:\n    print(error)", True),
        ("except BaseException:\n    close()\n    raise", False),
        ("except OSError:\n    pass", False),
    ],
)
def test_broad_excepts_are_found(handler: str, keeps: bool) -> None:  # noqa: FBT001 - a table
    """What takes everything is seen, and what only cleans up is not meant."""
    [statement] = ast.parse(f"try:\n    act()\n{handler}").body
    assert isinstance(statement, ast.Try)
    assert _keeps_everything(statement.handlers[0]) is keeps
