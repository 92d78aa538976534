"""A daemon on a board whose temperature the test changes: levels, refusals, pauses; and nothing is lost."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import boards
from broker import Mosquitto
from daemon_process import DaemonProcess, MakeDaemon
from device import MakeDevice

from edged.client.local import order

WITHOUT_PRIVILEGE = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--")
"""setpriv(1): takes root's right to write everything from a program."""
BIG = "bigcore0-thermal"
QUICK = {"interval_s": 0.2, "dwell_s": 0.5}
ANSWER = "tokens=60 step_ms=30"
TEXT = "".join(f"w{n} " for n in range(60))


def hot_node(
    broker: Mosquitto, daemon: MakeDaemon, root: Path, *, scripted: bool = True, **sections: Mapping[str, Any]
) -> DaemonProcess:
    """A node on a ROCK 5B that is read five times a second."""
    boards.rk3588_mainline(root)
    paths = {"sys": str(root / "sys"), "proc": str(root / "proc")}
    return daemon(broker, {"paths": paths, "heat": QUICK, **sections}, scripted=scripted).start()


def heat_to(node: DaemonProcess, root: Path, temp_c: float, level: str) -> Any:
    """Warm or cool the board; returns the event of the level that it comes to."""
    since = node.watcher.mark
    boards.set_temp_c(root, BIG, temp_c)
    return node.watcher.wait_for("/event", lambda h: h.json.get("level") == level, since=since).json


def test_levels_tell_and_limit(
    broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice, tmp_path: Path
) -> None:
    """Each level is an event, a line of the log and a state of health with its limits; the engine obeys them."""
    root = tmp_path / "board"
    node = hot_node(broker, daemon, root)
    asking = device(broker, "d1")
    assert asking.answer(asking.ask("x")).check().attempts[0][0]["context"] == 2048
    warm = heat_to(node, root, 72.0, "warm")
    assert (warm["before"], warm["context"], warm["target_c"]) == ("cool", 1536, 82.5)
    node.wait_health(lambda h: h.get("context") == 1536)
    heat_to(node, root, 84.2, "hot")
    health = node.wait_health(lambda h: h["level"] == "hot" and h.get("context") == 1024)
    assert health["heat"]["zone"] == BIG
    assert (health["heat"]["slots"], health["heat"].get("paused")) == (1, False)
    assert health["heat"]["retry_after_ms"] > 0
    refused = asking.answer(asking.ask("x"))
    assert (refused.last["code"], refused.last["details"]["level"]) == ("hot", "hot")
    assert refused.last["retry_after_ms"] >= 5000
    assert "interactive" in refused.last["message"]
    urgent = asking.answer(asking.ask("x", priority="interactive")).check()
    assert (urgent.text, urgent.last["level"]) == ("w0 w1 w2 ", "hot")
    heat_to(node, root, 50.0, "cool")
    node.wait_health(lambda h: h.get("context") == 2048 and h["heat"]["effort"] == 1.0)
    assert asking.answer(asking.ask("x")).check().last["level"] == "cool"
    assert [line["level"] for line in node.log("level_changed")] == ["warm", "hot", "cool"]


def test_an_answer_given_before_needs_no_cool_board(
    broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice, tmp_path: Path
) -> None:
    """A hot or draining node gives a stored answer again to who asks under the same id; all else is refused."""
    root = tmp_path / "board"
    node = hot_node(broker, daemon, root)
    asking = device(broker, "d1")
    first = asking.answer(asking.ask("x", id="known")).check()
    heat_to(node, root, 84.2, "hot")
    asking.ask("x", id="known")
    assert asking.wait_reply("known", "done", count=2) == first.last
    assert asking.answer(asking.ask("y")).last["code"] == "hot"
    asking.ask("y", id="known")
    assert asking.wait_reply("known", "error")["code"] == "bad_request"
    heat_to(node, root, 50.0, "cool")
    order(node.config.parent / "state" / "control.sock", "drain")
    asking.ask("x", id="known")
    assert asking.wait_reply("known", "done", count=3) == first.last
    assert asking.answer(asking.ask("y")).last["code"] == "draining"


def test_critical_pauses_and_nothing_is_lost(
    broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice, tmp_path: Path
) -> None:
    """At critical a running answer stands still and new questions are refused; cooler, it goes on to its end.

    A pause longer than a hang is none.
    """
    root = tmp_path / "board"
    node = hot_node(broker, daemon, root, engine={"slots": 2, "hang_s": 5.0})
    asking, other = device(broker, "d1"), device(broker, "d2")
    job, cancelled, late = asking.ask(ANSWER), other.ask(ANSWER), other.ask(ANSWER, deadline_ms=6500)
    asking.wait_reply(job, "delta", count=3)
    other.wait_reply(cancelled, "delta", count=3)
    heat_to(node, root, 86.0, "critical")
    node.wait_health(lambda h: h["heat"].get("paused"))
    for priority in ("interactive", "normal"):
        assert asking.answer(asking.ask("x", priority=priority)).last["code"] == "hot"
    other.control("cancel", cancelled)
    assert other.answer(cancelled).last["type"] == "cancelled"
    assert other.answer(late).last["code"] == "expired", "a deadline counts on in a pause"
    assert node.log("engine_hung") == []
    node.wait_health(lambda h: h["active"] == 1, since=node.watcher.mark)
    heat_to(node, root, 50.0, "cool")
    answer = asking.answer(job).check()
    assert (answer.text, answer.last["attempt"]) == (TEXT, 1)
    assert node.wait_health(since=node.watcher.mark)["engine_restarts"] == 0


def test_a_new_engine_obeys_too(
    broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice, tmp_path: Path
) -> None:
    """An engine that starts while the board is hot is told its limits before its first question."""
    root = tmp_path / "board"
    node = hot_node(broker, daemon, root)
    asking = device(broker, "d1")
    heat_to(node, root, 84.2, "hot")
    asking.ask("crash=SIGKILL at=1 tokens=3", priority="interactive")
    node.wait_event("engine_gone")
    node.wait_log("engine_ready", lambda _: len(node.log("engine_ready")) > 1)
    since = node.watcher.mark
    node.wait_health(lambda h: h.get("context") == 1024, since=since)


def test_sensor_fails_and_comes_back(broker: Mosquitto, daemon: MakeDaemon, tmp_path: Path) -> None:
    """A sensor that says nonsense is an event, and so is its recovery; the others go on judging."""
    root = tmp_path / "board"
    node = hot_node(broker, daemon, root)
    node.wait_health(lambda h: h["heat"].get("zone"))
    since = node.watcher.mark
    boards.set_temp_c(root, BIG, -273.0)
    failed = node.wait_event("sensor_failed", since=since)
    assert (failed["zone"], failed["state"], failed["blind"]) == (BIG, "missing", False)
    boards.set_temp_c(root, BIG, 50.0)
    assert node.wait_event("sensor_mended", since=since)["zone"] == BIG
    assert node.log("level_changed") == []


def test_real_model(
    broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice, small_model: Path, tmp_path: Path
) -> None:
    """The real engine pauses between two steps and goes on: the answer is the same, token by token."""
    root = tmp_path / "board"
    node = hot_node(broker, daemon, root, scripted=False, model={"path": str(small_model)})
    asking = device(broker, "d1")
    fields: dict[str, Any] = {"temperature": 0, "max_tokens": 120, "cache": "bypass"}
    text = asking.answer(asking.ask("Tell me a long story about a bearing.", **fields)).check().text
    job = asking.ask("Tell me a long story about a bearing.", **fields)
    asking.wait_reply(job, "delta", count=2)
    heat_to(node, root, 86.0, "critical")
    node.wait_health(lambda h: h["heat"].get("paused") and h["active"] == 1)
    heat_to(node, root, 50.0, "cool")
    answer = asking.answer(job).check()
    assert (answer.text, answer.last["attempt"]) == (text, 1)


def test_contradictions_are_refused(tmp_path: Path) -> None:
    """Margins that contradict each other end the daemon at once with exit code 78 and the reason.

    `tests/unit/test_settings.py` has all pairs.
    """
    config = tmp_path / "edged.toml"
    config.write_text('[model]\npath = "none.gguf"\n[heat]\nhot_c = 6.0\ntarget_c = 4.0\n')
    command = [sys.executable, "-m", "edged", "run", "--config", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 78
    assert "heat.target_c: 4.0 is not accepted: more than heat.hot_c (6)" in done.stderr


def test_leaves_its_pools_when_hot(
    broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice, tmp_path: Path
) -> None:
    """Of two boards the cool one gets all the pool's questions while the other is hot; later they share again."""
    root = tmp_path / "board"
    node = hot_node(broker, daemon, root, node={"id": "hot", "pools": ["shed"]})
    daemon(broker, {"node": {"id": "cool", "pools": ["shed"]}}, scripted=True).start()
    node.wait_event("pools_joined")
    heat_to(node, root, 84.2, "hot")
    left = node.wait_event("pools_left")
    assert left["reasons"] == ["hot"]
    asking = device(broker, "d1")
    asking.ask_topic = "edged/v1/pool/shed/ask/d1"
    jobs = [asking.ask(f"{n}") for n in range(8)]
    assert {asking.answer(job).check().last["node"] for job in jobs} == {"cool"}
    since = node.watcher.mark
    heat_to(node, root, 50.0, "cool")
    node.wait_event("pools_joined", since=since)
    jobs = [asking.ask(f"again {n}") for n in range(8)]
    assert "hot" in {asking.answer(job).check().last["node"] for job in jobs}


# clocks -----------------------------------------------------------------------------------------------------


def policies(root: Path) -> list[Path]:
    """The caps of all clocks of the board."""
    return sorted(root.glob("sys/devices/system/cpu/cpufreq/policy*/scaling_max_freq"))


def caps(root: Path) -> list[int]:
    """What they say, megahertz."""
    return [int(path.read_text() or 0) // 1000 for path in policies(root)]


FULL = [1800, 2400, 2400]


def lowered_node(
    broker: Mosquitto, daemon: MakeDaemon, root: Path, **heat: Any
) -> tuple[DaemonProcess, dict[str, Any]]:
    """A node whose board is so warm that it lowers its clocks; and its health then."""
    node = hot_node(broker, daemon, root, heat={**QUICK, **heat})
    heat_to(node, root, 83.5, "warm")
    return node, node.wait_health(
        lambda h: any(hz < 1_300_000_000 for hz in h["heat"].get("clock_cap_hz", {}).values()), timeout_s=60.0
    )


def test_a_warm_board_lowers_its_clocks_first(
    broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice, tmp_path: Path
) -> None:
    """The caps of the engine's cores go down before threads and time, are told, and come back with the cold."""
    root = tmp_path / "board"
    node, health = lowered_node(broker, daemon, root)
    told = health["heat"]
    assert (told["pace"], told["decode_threads"]) == (1.0, 1)
    assert min(caps(root)) < 1300
    assert health["board"]["throttled"] is False, "what we hold down ourselves is not the kernel's throttling"
    assert told["throttles"] == 0
    assert node.wait_info(lambda info: "clocks" in info)["clocks"] == {"lowered": True}
    asking = device(broker, "d1")
    assert asking.answer(asking.ask("x")).check().last["type"] == "done"
    heat_to(node, root, 50.0, "cool")
    node.wait_health(lambda h: h["heat"]["effort"] == 1.0, since=node.watcher.mark)
    assert caps(root) == FULL


def test_the_end_gives_the_clocks_back(broker: Mosquitto, daemon: MakeDaemon, tmp_path: Path) -> None:
    """SIGTERM on a warm board leaves the caps that were there, and no note."""
    root = tmp_path / "board"
    node, _ = lowered_node(broker, daemon, root)
    assert node.terminate() == 0
    assert caps(root) == FULL
    assert not (node.config.parent / "state/clocks").exists()


def test_a_killed_daemon_s_clocks_come_back(broker: Mosquitto, daemon: MakeDaemon, tmp_path: Path) -> None:
    """By the next start, whatever its settings; or by the command that the unit runs after every end."""
    root = tmp_path / "board"
    node, _ = lowered_node(broker, daemon, root)
    node.kill()
    assert min(caps(root)) < 1300
    boards.set_temp_c(root, BIG, 50.0)
    node.start()
    node.wait_log("clocks_restored")
    assert caps(root) == FULL
    heat_to(node, root, 83.5, "warm")
    node.wait_health(lambda h: "clock_cap_hz" in h["heat"] and min(caps(root)) < 1300, timeout_s=60.0)
    node.kill()
    command = [sys.executable, "-m", "edged", "clocks", "--restore", "--config", str(node.config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, caps(root)) == (0, FULL), done.stderr


def test_throttling_is_counted_over_a_boot(broker: Mosquitto, daemon: MakeDaemon, tmp_path: Path) -> None:
    """The kernel began to throttle once: a daemon that was killed meanwhile and starts again says the same."""
    root = tmp_path / "board"
    node = hot_node(broker, daemon, root)
    node.wait_health(lambda h: h["heat"].get("throttles") == 0)
    cooling = root / "sys/class/thermal/cooling_device1/cur_state"
    cooling.write_text("2\n", encoding="ascii")
    node.wait_event("throttling_began")
    node.wait_health(lambda h: h["heat"].get("throttles") == 1)
    node.kill()
    since = node.watcher.mark
    node.start()
    node.wait_health(lambda h: h["heat"].get("throttles") == 1, since=since)
    cooling.write_text("0\n", encoding="ascii")
    node.wait_event("throttling_ended", since=since)
    assert [line["count"] for line in node.log("throttling_began")] == [1]


def test_without_the_right_to_lower_clocks(broker: Mosquitto, daemon: MakeDaemon, tmp_path: Path) -> None:
    """Threads and time do it alone then; log and `info` name the file and the command."""
    root = boards.rk3588_mainline(tmp_path / "board")
    for path in policies(root):
        path.chmod(0o444)
    paths = {"sys": str(root / "sys"), "proc": str(root / "proc")}
    node = daemon(broker, {"paths": paths, "heat": QUICK}, scripted=True, wrapper=WITHOUT_PRIVILEGE).start()
    told = node.wait_info(lambda info: "clocks" in info)["clocks"]
    assert told["lowered"] is False
    assert told["mend"].startswith("sudo chown ")
    assert node.wait_log("clocks_left_alone")["mend"] == told["mend"]
    heat_to(node, root, 83.5, "warm")
    node.wait_health(lambda h: h["heat"].get("pace", 1.0) < 1.0, timeout_s=60.0)
    assert caps(root) == FULL


def test_clocks_switched_off(broker: Mosquitto, daemon: MakeDaemon, tmp_path: Path) -> None:
    """`heat.clocks = "off"` leaves them alone."""
    root = tmp_path / "board"
    node = hot_node(broker, daemon, root, heat={**QUICK, "clocks": "off"})
    heat_to(node, root, 83.5, "warm")
    health = node.wait_health(lambda h: h["heat"].get("pace", 1.0) < 1.0, timeout_s=60.0)
    assert "clock_cap_hz" not in health["heat"]
    assert caps(root) == FULL
