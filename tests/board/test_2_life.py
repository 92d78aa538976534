"""What a board goes through: heat, killed and restarted daemons, a reboot, a power cut."""

from __future__ import annotations

import pytest
from board_rig import ANSWER_S, FIRST, Board

pytestmark = pytest.mark.board

LONG = "Tell a long story about a bear, a bell and a boat."


def test_heat_is_seen_and_acted_on(installed: Board) -> None:
    """The sensor's temperature makes the level; the context falls, questions are refused, and come in again.

    The board's trip is 85 C: warm from 70, hot from 84. A jump of a sensor is believed at its second reading.
    """
    device = installed.device("heat")
    try:
        with installed.step("heat: cool, warm (context 768), hot (512, `normal` refused), cool again"):
            installed.cool_down()
            installed.order("temp", "45000", "76000")
            warm = installed.health_when(
                lambda health: health["level"] == "warm" and health["context"] == 768
            )
            assert warm["board"]["zones"]["soc-thermal"]["temp_c"] == pytest.approx(76, abs=0.5)
            installed.order("temp", "76000", "84200")
            hot = installed.health_when(lambda health: health["level"] == "hot" and health["context"] == 512)
            assert hot["heat"]["slots"] == 1
            refused = device.answer(device.ask("Say yes.", max_tokens=8), ANSWER_S).last
            assert refused["code"] == "hot"
            assert refused["retry_after_ms"] > 0
            urgent = device.ask("Say yes.", max_tokens=8, priority="interactive")
            assert device.answer(urgent, ANSWER_S).last["type"] == "done"
            installed.cool_down()
            later = device.ask("Say yes.", max_tokens=8)
            assert device.answer(later, ANSWER_S).last["type"] == "done"
    finally:
        installed.cool_down()
        device.stop()


def test_beyond_its_trip_the_answer_pauses(installed: Board) -> None:
    """Critical: what runs stands still, the kernel holds the clocks; both go on when it is cool."""
    device = installed.device("critical")
    try:
        with installed.step("heat: critical at 92 C, the running answer pauses, and ends when it is cool"):
            running = device.ask(LONG, max_tokens=48)
            device.wait_reply(running, "delta", timeout_s=ANSWER_S)
            installed.order("temp", "60000", "92000")
            critical = installed.health_when(lambda health: health["level"] == "critical")
            assert critical["heat"]["paused"]
            assert critical["board"]["throttled"]
            installed.cool_down()
            assert device.answer(running, ANSWER_S).last["type"] == "done"
    finally:
        installed.cool_down()
        device.stop()


def test_a_hot_board_is_not_touched(installed: Board) -> None:
    """A play against a board within 10 C of its trip ends before anything, and says what to do."""
    pid = installed.daemon_pid()
    try:
        with installed.step("`site.yml` on a board at 79 C: refused, nothing changed"):
            installed.order("temp", "60000", "79000")
            ended = installed.play("site.yml", FIRST)
            assert ended.code != 0
            assert "too hot: soc-thermal at 79.0 C, it brakes at 85 C; let it cool down" in ended.text
            assert "changed=0 " in ended.text
    finally:
        installed.cool_down()
    assert installed.daemon_pid() == pid


def test_killed_while_it_answers(installed: Board) -> None:
    """Kill -9 of the daemon: systemd starts it again, and the question is answered as the second attempt."""
    device = installed.device("killed")
    try:
        with installed.step("kill -9 of the daemon while it answers: answered by the next one"):
            asked = device.ask(LONG, max_tokens=32)
            device.wait_reply(asked, "delta", timeout_s=ANSWER_S)
            installed.ssh("systemctl kill --signal=KILL --kill-whom=main edged")
            last = device.answer(asked, ANSWER_S).last
            assert (last["type"], last["attempt"]) == ("done", 2)
    finally:
        device.stop()


def test_restarted(installed: Board) -> None:
    """Systemctl restart: another process, which answers."""
    pid = installed.daemon_pid()
    with installed.step("`systemctl restart edged`: answers"):
        installed.ssh("systemctl restart edged")
        installed.asked()
    assert installed.daemon_pid() not in {0, pid}


def test_rebooted(installed: Board) -> None:
    """Shut down and booted again, nobody logs in: it starts by itself and answers."""
    with installed.step("reboot: starts by itself, answers"):
        installed.order("down")
        installed.order("up", "--keep")
        installed.asked()


def test_the_plug_is_pulled_while_it_answers(installed: Board) -> None:
    """What was accepted before the power went is answered after it came back."""
    device = installed.device("plug")
    with installed.step("power cut while it answers: the accepted question is answered after the boot"):
        asked = device.ask(LONG, max_tokens=32)
        device.wait_reply(asked, "delta", timeout_s=ANSWER_S)
        device.stop()
        installed.order("down", "--kill")
        installed.order("up", "--keep")
        installed.asked()
        again = installed.device("plug")
        try:
            again.ask(LONG, id=asked, max_tokens=32)  # the answer may have been sent before anybody listened
            last = again.answer(asked, ANSWER_S).last
            assert (last["type"], last["attempt"]) == ("done", 2)
        finally:
            again.stop()
