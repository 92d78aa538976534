"""One question's way through the house, as a picture: a real run of the small model, timed by the node's debug log.

Belongs to pictures.py. Lanes are who acts; rows are stations in the order in which they came, each with its time.
Times at the node are those of its log lines; the device's are its own, on the same machine and clock.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any

from broker import Mosquitto
from daemon_process import DaemonProcess
from device import Device

from edged.demo_model import ensure_demo_model

QUESTION = "What is the capital of France?"
FIELDS: dict[str, Any] = {"temperature": 0, "max_tokens": 24}
LANES = ("device", "MQTT thread", "dispatcher", "journal", "engine")
LANE_X, LANE_WIDTH, TOP, ROW = 150, 150, 78, 30
WIDTH = LANE_X + LANE_WIDTH * len(LANES) + 190
INK, SOFT, LINE, WARM, BACK = "#24292f", "#57606a", "#d0d7de", "#bf3989", "#ffffff"
FONT = "ui-sans-serif, Helvetica, Arial, sans-serif"


@dataclass(frozen=True, slots=True)
class Station:
    """Something that happened.

    Attributes:
        at_s: wall clock.
        lane: who acted.
        to: whom it was told; None for nobody.
        words: what it was.
    """

    at_s: float
    lane: str
    to: str | None
    words: str


LINES: dict[str, tuple[str, str | None, str]] = {
    "message_arrived": ("MQTT thread", "dispatcher", "bytes in: {size_bytes}"),
    "question_arrived": ("dispatcher", "journal", "parsed and admitted"),
    "question_stored": ("journal", "dispatcher", "on disk, synced"),
    "message_acknowledged": ("MQTT thread", "device", "PUBACK"),
    "question_prepared": ("engine", "dispatcher", "{prompt_tokens} tokens: accepted"),
    "answer_begun": ("engine", "dispatcher", "in a slot: first pass"),
    "delta_sent": ("dispatcher", "device", "delta"),
    "job_finished": ("dispatcher", "journal", "ended: {tokens} tokens"),
    "answer_stored": ("journal", "dispatcher", "answer on disk, synced"),
    "answer_delivered": ("dispatcher", "journal", "broker has it: outbox cleared"),
}
"""Lines of the log: lane, lane that is told, words."""


def path(file: Path) -> None:
    """Ask, watch, draw: the second question, for the first one finds caches cold."""
    with tempfile.TemporaryDirectory(prefix="edged-") as place, ExitStack() as stack:
        home = Path(place)
        (home / "broker").mkdir()
        broker = Prompt(home / "broker").start()
        stack.callback(broker.stop)
        sections: dict[str, dict[str, Any]] = {
            "model": {"path": str(ensure_demo_model())},
            "log": {"level": "debug"},
            "engine": {"decode_threads": 1, "prefill_threads": 1},
        }
        node = DaemonProcess(home, broker.host, broker.port, sections)
        stack.callback(node.close)
        node.start()
        press = Device(broker.host, broker.port, "press-7")
        stack.callback(press.stop)
        press.start()
        press.answer(press.ask("Is water wet?", **FIELDS))
        time.sleep(2.0)  # what the first one leaves to do is done
        since, asked_s = len(node.lines), time.time()
        job = press.ask(QUESTION, **FIELDS)
        answer = press.answer(job).check()
        heard_s = press.wait_for(f"/{job}", lambda heard: b'"done"' in heard.payload).at
        heard_s += time.time() - time.monotonic()
        node.wait_log("answer_delivered", lambda line: line in node.lines[since:])
        lines = node.lines[since:]
    told = [*stations(asked_s, lines), Station(heard_s, "MQTT thread", "device", "it has the whole answer")]
    draw(file, sorted(told, key=lambda station: station.at_s), answer.text)


class Prompt(Mosquitto):
    """A broker that sends small packets at once, as configs/mosquitto has it."""

    def _settings(self, port: int) -> str:
        return f"{super()._settings(port)}set_tcp_nodelay true\n"


def stations(asked_s: float, lines: list[dict[str, Any]]) -> list[Station]:
    """What happened, in order; of the deltas the first one and how many followed."""
    told = [Station(asked_s, "device", "MQTT thread", "question, QoS 1")]
    deltas = [line for line in lines if line["event"] == "delta_sent"]
    last = deltas[-1] if len(deltas) > 1 else None
    for line in lines:
        if line["event"] not in LINES or (line["event"] == "delta_sent" and line not in (deltas[0], last)):
            continue
        lane, to, words = LINES[line["event"]]
        at_s = datetime.fromisoformat(line["timestamp"]).timestamp()
        if line is last:
            words = f"... and the last of {len(deltas)}"
        elif line["event"] == "delta_sent":
            words = "first delta"
        told.append(Station(at_s, lane, to, words.format_map(line)))
    return told


def draw(file: Path, told: list[Station], answer: str) -> None:
    """Write the SVG."""
    height = TOP + ROW * len(told) + 56
    box = f'y="14" height="{height - 60}" rx="8" fill="#f6f8fa" stroke="{LINE}"/>'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="{FONT}">',
        f'<rect width="{WIDTH}" height="{height}" rx="8" fill="{BACK}" stroke="{LINE}"/>',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7"',
        f' orient="auto"><path d="M0 0L8 4L0 8z" fill="{SOFT}"/></marker></defs>',
        f'<rect x="{_x("MQTT thread") - 62}" width="{3 * LANE_WIDTH - 26}" {box}',
        _text(_x("dispatcher"), 32, "the daemon", SOFT, "middle"),
        f'<rect x="{_x("engine") - 62}" width="124" {box}',
        _text(_x("engine"), 32, "its child", SOFT, "middle"),
        _text(78, 56, "ms", SOFT, "end"),
    ]
    for lane in LANES:
        parts.append(_text(_x(lane), 56, lane, INK, "middle", bold=True))
        parts.append(f'<path d="M{_x(lane)} {TOP - 12}V{height - 56}" stroke="{LINE}" stroke-width="2"/>')
    for number, one in enumerate(told):
        y, x = TOP + ROW * number + 8, _x(one.lane)
        parts.append(_text(78, y + 4, f"{1000 * (one.at_s - told[0].at_s):.1f}", WARM, "end"))
        parts.append(f'<path d="M{LANE_X - 64} {y}H{x}" stroke="{LINE}" stroke-dasharray="2 4"/>')
        if one.to is not None:
            end = _x(one.to) + (-7 if _x(one.to) > x else 7)
            parts.append(f'<path d="M{x} {y}H{end}" stroke="{SOFT}" marker-end="url(#tip)"/>')
        parts.append(f'<circle cx="{x}" cy="{y}" r="4.5" fill="{WARM}"/>')
        parts.append(_text(_x("engine") + 78, y + 4, one.words, INK))
    parts.append(_text(20, height - 20, f"{QUESTION}  \N{RIGHTWARDS ARROW}  {answer.strip()}", INK))
    file.write_text("\n".join([*parts, "</svg>\n"]), "utf-8")


def _x(lane: str) -> int:
    return LANE_X + LANE_WIDTH * LANES.index(lane) + 10


def _text(x: int, y: int, words: str, colour: str, anchor: str = "start", *, bold: bool = False) -> str:
    weight = 600 if bold else 400
    style = f'fill="{colour}" text-anchor="{anchor}" font-size="13" font-weight="{weight}"'
    return f'<text x="{x}" y="{y}" {style}>{escape(words)}</text>'
