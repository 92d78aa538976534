"""What stands behind the parser, under questions that it takes: strange ones, with strange MQTT 5 properties.

Queue, journal, sessions, shared runs, the cache of answers, tools and schemas must bear whatever is legal. Each
question has exactly one terminal message, and what nobody can be told is counted.
"""

from __future__ import annotations

import itertools
import signal
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from broker import Mosquitto
from daemon_process import DaemonProcess, Sections
from device import Device
from faults.bursts import POOL, Crowd, Step, steps
from faults.nursery import MakeNode
from faults.record import Trial
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from odd_questions import Sent, as_read

FAULT = "odd questions"
BURSTS, KILLS = 100, 3
SLOTS = 4
SECTIONS: Sections = {
    "node": {"pools": [POOL]},
    "engine": {"slots": SLOTS, "context_max": 4096},
    "tools": {"enabled": ["calculate"]},
    "limits": {"queue_jobs": 500, "client_jobs": 500, "attempts": 10},
}
ENGINES = ("scripted_engine", "calling_engine")
"""One whose answers are as long as a question says, one that follows schemas and calls tools by llguidance."""


@pytest.mark.parametrize("engine", ENGINES)
def test_odd_questions(broker: Mosquitto, node: MakeNode, trial: Trial, engine: str) -> None:
    """Each ends once or is counted; daemon and engine live on, and answer a plain question."""
    process = _node(node, broker, forked=False, environment={"SCRIPTED_ENGINE": engine})
    pid, engine_pid = process.pid, process.engine_pid()
    crowd, numbers = Crowd(broker), itertools.count()
    counted: Counter[str] = Counter()

    @settings(
        max_examples=BURSTS * trial.factor,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(st.lists(steps(), min_size=6, max_size=14))
    def play(burst: list[Step]) -> None:
        number = next(numbers)
        counted.update(crowd.play(burst, number))
        crowd.wait(number)

    play()
    health = process.wait_health(lambda h: all(h["counts"][what] >= counted[what] for what in counted))
    assert {what: health["counts"][what] for what in counted} == dict(counted)
    crowd.check_once()
    assert crowd.codes["internal"] == 0, process.log("question_not_measured")
    assert (process.pid, process.engine_pid(), process.running) == (pid, engine_pid, True)
    assert health["engine_restarts"] == 0
    _still_answers(broker)
    crowd.close()
    asked = sum(asked.total() for asked in crowd.asked.values())
    trial.note(
        FAULT,
        asked,
        f"questions, {engine}",
        also=", ".join(f"{n} {code}" for code, n in crowd.codes.most_common()),
    )


def test_odd_questions_after_a_kill(broker: Mosquitto, node: MakeNode, trial: Trial) -> None:
    """Killed with all of them in its journal or at the broker, the node starts again, and each of them ends."""
    process = _node(node, broker)
    crowd, numbers = Crowd(broker), itertools.count()

    @settings(
        max_examples=KILLS * trial.factor,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(steps(), min_size=12, max_size=20))
    def kill(burst: list[Step]) -> None:
        number = next(numbers)
        slow = Step(0, Sent({"prompt": "tokens=40 step_ms=20", "cache": "bypass"}), "own", marked=True)
        # Known by their Correlation Data: what was not acknowledged to the broker comes again and may end twice.
        known = [_known(step) for step in burst if as_read(step.message.properties).fault is None]
        crowd.play([slow] * SLOTS + known, number)
        crowd.wait_accepted(number)
        assert process.kill() == -signal.SIGKILL
        process.start()
        crowd.wait_marks(number)

    kill()
    _still_answers(broker)
    crowd.close()
    asked = len(crowd.marks_asked)
    trial.note(FAULT, next(numbers), "kills with them in the journal", also=f"{asked} questions, all ended")


def _known(step: Step) -> Step:
    """The same with an id and Correlation Data of its own, and acknowledged."""
    kind, how = step.kind, step.how
    return replace(
        step, kind="order" if kind == "order" else "own", marked=True, how="node" if how == "qos0" else how
    )


def _node(node: MakeNode, broker: Mosquitto, **options: Any) -> DaemonProcess:
    process = node(broker, "n1", SECTIONS, **options).start()
    process.wait_log("pools_joined")
    return process


def _still_answers(broker: Mosquitto) -> None:
    sane = Device(broker.host, broker.port, "sane").start()
    assert sane.answer(sane.ask("tokens=2 3")).check().last["type"] == "done"
    sane.stop()
