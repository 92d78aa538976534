"""kill -9 in a conversation: each turn finds all turns before it, once each, wherever the daemon was killed.

The scripted engine counts words as tokens, so the length of a prompt says what stood in it.
"""

from __future__ import annotations

import signal

from broker import Mosquitto
from device import Device
from faults.nursery import ForkedDaemon, MakeNode
from faults.record import Trial

FAILPOINTS = ("before_accept_commit", "after_accept_commit", "before_finish_commit", "after_finish_commit")
ASKED, ANSWERED = 2, 3  # words


def test_kill_in_a_conversation(broker: Mosquitto, node: MakeNode, trial: Trial) -> None:
    """Killed before and after each commit of a turn, the next turn knows the turn, and knows it once."""
    process = node(broker, "n1", {"limits": {"attempts": 10}}).start()
    assert isinstance(process, ForkedDaemon)
    device = Device(broker.host, broker.port, "c1", persistent=True).start()
    turns = 20 * trial.factor
    try:
        for turn in range(turns):
            process.kill()
            process.failpoint = FAILPOINTS[turn % 4]
            process.launch()
            job = device.ask(
                f"tokens={ANSWERED} hm", session=f"s{turn // 40}", overflow="trim_history", cache="bypass"
            )
            assert process.wait_end(30.0) == -signal.SIGKILL, "the failpoint was not reached"
            process.launch()
            done = device.answer(job).last
            assert done["type"] == "done", done
            assert done["usage"]["prompt_tokens"] == 1 + ASKED + turn % 40 * (ASKED + ANSWERED)
    finally:
        device.stop()
    trial.note("kill -9 in a conversation", turns, "turns, killed at failpoints")
