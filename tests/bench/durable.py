"""What it costs to lose nothing: the whole path with the scripted engine, on the cores of this machine.

    python tests/bench/durable.py [--questions 10000] [--folder FOLDER] [--json FILE]

Mosquitto, the daemon with its journal, and the devices share the machine. Printed: questions a second that were
accepted, answered and journaled; how often the broker saved its store; milliseconds and bytes written for each, and
whose; memory of the daemon after 100 questions and at the end; how far `eta_ms` was off. Bytes are `write_bytes` of
/proc/PID/io (proc(5)): what the daemon sent to the block layer, zero on tmpfs, so choose a FOLDER on the medium in
question.
"""

from __future__ import annotations

import argparse
import json
import ssl
import statistics
import sys
import tempfile
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from broker import Mosquitto, free_port  # noqa: E402 - found through the path above
from certificates import Authority  # noqa: E402 - likewise
from daemon_process import DaemonProcess  # noqa: E402 - likewise
from faults.load import Load, Verdict  # noqa: E402 - likewise

QUIET = "log_type none\nlog_type error\nlog_type warning\nlog_type notice\nlog_type information\n"
TLS = """\
listener {port} 127.0.0.1
cafile {ca}
certfile {cert}
keyfile {key}
"""
BROKERS = {
    "that saves every change, over TLS": TLS,
    "that saves every change": "",
    "that saves every 50 changes": "autosave_interval 50\n",
    "in memory": "persistence false\n",
}
"""Mosquitto rewrites its whole store at each save: as configs/mosquitto has it, the same in plain text, and two
that promise less."""
SAVED = "Saving in-memory database"
WARM_UP = 100
SLOTS = 8
DEVICES, OPEN_EACH = 8, 32
LIMITS = {"queue_jobs": 512, "client_jobs": 64}
NOTHING = nullcontext()


def main() -> None:
    """Run both parts and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--questions", type=int, default=10_000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        figures = {
            f"broker {name}": throughput(Path(folder) / name.replace(" ", "-"), given.questions, extra)
            for name, extra in BROKERS.items()
        }
        figures["promises"] = honesty(Path(folder))
    for part, values in figures.items():
        print(f"\n{part}")
        for name, value in values.items():
            print(f"  {name:38} {value:12,.2f}")
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def throughput(
    folder: Path, questions: int, broker_settings: str, around: AbstractContextManager[None] = NOTHING
) -> dict[str, float]:
    """As many questions as fit, each answered in one step of the engine; the broker is started within `around`."""
    broker, daemon, tls = _started(folder, broker_settings, around)
    process = psutil.Process(daemon.pid)
    load = Load(
        *tls.address if tls else (broker.host, broker.port),
        devices=DEVICES,
        open_each=OPEN_EACH,
        rate_per_s=None,
        words=(3, 3),
        prompt=lambda words: f"tokens={words}",
        fields={"stream": False},
        tls=tls.context() if tls else None,
    )
    try:
        load.start(WARM_UP + questions)
        load.wait_ended(WARM_UP)
        before_bytes, written = process.memory_info().rss, process.io_counters().write_bytes
        saves = broker.log().count(SAVED)
        first, began_s = load.ended(), time.monotonic()
        shares = {
            "daemon": process,
            "engine": psutil.Process(daemon.engine_pid()),
            "broker": psutil.Process(broker.pid),
            "devices": psutil.Process(),
        }
        before_s = {name: _cpu_s(share) for name, share in shares.items()}
        load.wait(lambda: load.ended() >= WARM_UP + questions, 600.0)
        took_s = time.monotonic() - began_s
        n = load.ended() - first
        spent = {name: _cpu_s(share) - before_s[name] for name, share in shares.items()}
        saves = broker.log().count(SAVED) - saves
        _sound(load.settle())
        return {
            "questions": n,
            "questions per second": n / took_s,
            "saves of the broker per question": saves / n,
            "median ms from question to answer": 1000 * statistics.median(_durations(load)),
            **{f"CPU ms per question, {name}": 1000 * cpu_s / n for name, cpu_s in spent.items()},
            "KiB written per question": (process.io_counters().write_bytes - written) / 1024 / n,
            "MiB of memory after 100": before_bytes / 2**20,
            f"MiB of memory after {WARM_UP + n}": process.memory_info().rss / 2**20,
        }
    finally:
        load.close()
        daemon.close()
        broker.kill()


def honesty(folder: Path) -> dict[str, float]:
    """Questions of some length in a queue: what `accepted` promised against what came."""
    broker, daemon, _ = _started(folder / "promises", "")
    load = Load(
        broker.host,
        broker.port,
        devices=4,
        open_each=8,
        rate_per_s=None,
        words=(10, 60),
        prompt=lambda words: f"tokens={words} step_ms=5",
        fields={"stream": False},
    )
    try:
        load.start(400)
        load.wait(lambda: load.ended() >= 400, 120.0)
        _sound(load.settle())
        pairs = [
            (entry.accepted[0] / 1000, entry.ended_s - entry.accepted[1])
            for entry in list(load.ledger.values())[50:]
            if entry.accepted and entry.ended_s
        ]
        return {
            "eta: promised s, median": statistics.median(promised for promised, _ in pairs),
            "eta: actual s, median": statistics.median(actual for _, actual in pairs),
            "eta: off by s, median": statistics.median(abs(actual - promised) for promised, actual in pairs),
            "eta: actual / promised, in all": sum(a for _, a in pairs) / max(1e-9, sum(p for p, _ in pairs)),
        }
    finally:
        load.close()
        daemon.close()
        broker.kill()


@dataclass(frozen=True, slots=True)
class Secured:
    """The broker's listener with TLS, and whose word it has."""

    address: tuple[str, int]
    ca: Path

    def context(self) -> ssl.SSLContext:
        """What a device demands of it."""
        return ssl.create_default_context(cafile=str(self.ca))


def _started(
    folder: Path, broker_settings: str, around: AbstractContextManager[None] = NOTHING
) -> tuple[Mosquitto, DaemonProcess, Secured | None]:
    for name in ("broker", "node", "ca"):
        (folder / name).mkdir(parents=True)
    sections: dict[str, dict[str, Any]] = {
        "limits": LIMITS,
        "engine": {"slots": SLOTS},
        "log": {"level": "warning"},
    }
    tls = None
    if broker_settings is TLS:
        authority = Authority(folder / "ca")
        pair = authority.server()
        tls = Secured(("localhost", free_port()), authority.pem)
        broker_settings = TLS.format(port=tls.address[1], ca=tls.ca, cert=pair.cert, key=pair.key)
        sections["mqtt"] = dict(zip(("host", "port"), tls.address, strict=True))
        sections["mqtt.tls"] = {"ca": str(tls.ca)}
    broker = Mosquitto(folder / "broker", f"{QUIET}set_tcp_nodelay true\n{broker_settings}")
    with around:
        broker.start()
    daemon = DaemonProcess(folder / "node", broker.host, broker.port, sections, scripted=True)
    return broker, daemon.start(), tls


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _durations(load: Load) -> list[float]:
    return [entry.ended_s - entry.asked_s for entry in load.ledger.values() if entry.ended_s]


def _sound(verdict: Verdict) -> None:
    verdict.check()


if __name__ == "__main__":
    main()
