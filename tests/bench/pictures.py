"""The README's pictures, made anew: real commands against real parts, drawn as SVG under `.github/`.

    python tests/bench/pictures.py [demo top doctor path dashboard]

Each command runs on a terminal of its own, emulated by pyte; what stands on it at the end is the picture. The fleet
of `top` is four daemons with scripted models, on trees of files that stand for boards (tests/boards): their levels
are real, their heat is not. Install pyte first: `pip install pyte`.
"""

from __future__ import annotations

import contextlib
import os
import pty
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

import boards  # noqa: E402 - found through the path above
import pyte  # noqa: E402
from bench.dashboard_picture import dashboard  # noqa: E402
from bench.path_picture import path  # noqa: E402
from broker import Mosquitto  # noqa: E402
from daemon_process import DaemonProcess  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.style import Style  # noqa: E402
from rich.text import Text  # noqa: E402

from edged.client import Client  # noqa: E402
from edged.demo_model import ensure_demo_model  # noqa: E402

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".github"
COLUMNS, LINES = 100, 70
LONGEST_S = 180.0
FLEET: dict[str, tuple[Callable[[Path], Path], dict[str, float]]] = {
    "attic": (boards.pi5, {"cpu-thermal": 61.0}),
    "cellar": (boards.pi4, {"cpu-thermal": 74.5}),
    "press-hall": (boards.rk3588_mainline, {"bigcore0-thermal": 82.5}),
    "shed": (boards.rk3588_vendor, {}),
}
"""Nodes of the fleet: their board, and zones that are warmer than it has them."""


def main() -> None:
    """Draw what is asked for, or all."""
    pictures = {"demo": demo, "top": top, "doctor": doctor, "path": path, "dashboard": dashboard}
    FOLDER.mkdir(exist_ok=True)
    for name in sys.argv[1:] or pictures:
        pictures[name](FOLDER / f"{name}.svg")
        print(FOLDER / f"{name}.svg")


def demo(file: Path) -> None:
    """`bash deploy/try`, which ends with an invitation to ask more."""
    with terminal("demo") as screen:
        screen.wait_for("ask", quiet_s=6.0)
        screen.draw(file, "bash deploy/try")


def doctor(file: Path) -> None:
    """`edged doctor` with the small model and a broker, on the machine that this runs on."""
    with tempfile.TemporaryDirectory(prefix="edged-") as place, contextlib.ExitStack() as stack:
        home = Path(place)
        (home / "broker").mkdir()
        broker = Mosquitto(home / "broker").start()
        stack.callback(broker.stop)
        settings = home / "edged.toml"
        settings.write_text(
            f'[node]\nid = "attic"\n[mqtt]\nport = {broker.port}\n'
            f'[model]\npath = "{ensure_demo_model()}"\n[paths]\nstate = "{home}"\n'
        )
        with terminal("doctor", "--config", str(settings)) as screen:
            screen.wait_end()
            screen.draw(file, "edged doctor --config edged.toml")


def top(file: Path) -> None:
    """`edged top` over a small fleet that answers."""
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as stack:
        home = Path(place)
        (home / "broker").mkdir()
        broker = Mosquitto(home / "broker").start()
        stack.callback(broker.stop)
        for name, (build, warmer) in FLEET.items():
            folder = home / name
            folder.mkdir()
            tree = build(folder / "tree")
            for zone, temp_c in warmer.items():
                boards.set_temp_c(tree, zone, temp_c)
            paths = {"state": str(folder / "state"), "sys": str(tree / "sys"), "proc": str(tree / "proc")}
            model = {"name": "R1-Distill-Qwen-1.5B", "path": str(folder / "model.gguf")}
            sections = {"node": {"id": name}, "paths": paths, "model": model}
            node = DaemonProcess(folder, broker.host, broker.port, sections, scripted=True)
            stack.callback(node.close)
            node.start().wait_online()
        client = stack.enter_context(Client(port=broker.port, name="press-7"))
        for count, name in enumerate(FLEET, 1):
            for _ in range(count):
                client.ask("tokens=600 step_ms=80", node=name)
        time.sleep(3.0)  # some tokens, for a rate
        with terminal("top", "--port", str(broker.port)) as screen:
            for name in FLEET:
                screen.wait_for(name)
            for key in (b"s", b"\x1b[B", b"\r"):
                screen.press(key)
                time.sleep(1.5)
            screen.wait_for("zone", quiet_s=0.5)
            screen.draw(file, "edged top")
            screen.press(b"q")


class Screen:
    """A terminal and what stands on it."""

    def __init__(self, process: subprocess.Popen[bytes], end: int) -> None:
        self._process, self._end = process, end
        self._screen: Any = pyte.Screen(COLUMNS, LINES)
        self._stream: Any = pyte.ByteStream(self._screen)

    def press(self, key: bytes) -> None:
        """Type."""
        os.write(self._end, key)
        self._read(0.2)

    def wait_for(self, words: str, quiet_s: float = 0.0) -> None:
        """Until the words stand there and nothing has changed for so long."""
        end, still_since = time.monotonic() + LONGEST_S, time.monotonic()
        while time.monotonic() < end:
            if self._read(0.2):
                still_since = time.monotonic()
            if time.monotonic() - still_since >= quiet_s and any(
                words in line for line in self._screen.display
            ):
                return
        raise SystemExit(f"{words!r} never stood there:\n" + "\n".join(self._screen.display))

    def wait_end(self) -> None:
        """Until the command has ended."""
        while self._process.poll() is None or self._read(0.2):
            self._read(0.2)

    def draw(self, file: Path, title: str) -> None:
        """Write the picture."""
        rows = [self._row(y) for y in range(LINES)]
        while rows and not rows[-1].plain.strip():
            rows.pop()
        while rows and not rows[0].plain.strip():
            rows.pop(0)
        with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
            console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True)
            for row in rows:
                console.print(row, no_wrap=True, overflow="crop")
            file.write_text(console.export_svg(title=title), "utf-8")

    def _row(self, y: int) -> Text:
        row = Text()
        for x in range(COLUMNS):
            cell = self._screen.buffer[y][x]
            colour = None if cell.fg == "default" else cell.fg
            known = colour if colour is None or not _hexadecimal(colour) else f"#{colour}"
            style = Style(color=_named(known), bold=cell.bold, reverse=cell.reverse, italic=cell.italics)
            row.append(cell.data, style)
        row.rstrip()
        return row

    def _read(self, timeout_s: float) -> bool:
        if not select.select([self._end], [], [], timeout_s)[0]:
            return False
        try:
            data = os.read(self._end, 65_536)
        except OSError:
            return False  # the other side is closed
        self._stream.feed(data)
        return bool(data)


def _hexadecimal(colour: str) -> bool:
    return len(colour) == 6 and all(digit in "0123456789abcdef" for digit in colour)


def _named(colour: str | None) -> str | None:
    """Pyte's words for the sixteen colours, as rich has them."""
    if colour is None or colour.startswith("#"):
        return colour
    return colour.replace("brown", "yellow").replace("bright", "bright_")


@contextlib.contextmanager
def terminal(*arguments: str) -> Iterator[Screen]:
    """A command of edged on a terminal of its own."""
    ours, theirs = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("EDGED_")}
    size = {"TERM": "xterm-256color", "COLUMNS": str(COLUMNS), "LINES": str(LINES)}
    with subprocess.Popen(
        [sys.executable, "-m", "edged", *arguments],
        env=environment | size,
        cwd=ROOT,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    ) as process:
        os.close(theirs)
        try:
            yield Screen(process, ours)
        finally:
            process.terminate()
            process.wait(20)
            os.close(ours)


if __name__ == "__main__":
    main()
