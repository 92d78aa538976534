"""Many devices at once, with the real small model: nobody is forgotten, nobody gets two ends."""

from __future__ import annotations

from pathlib import Path

from broker import Mosquitto
from daemon_process import MakeDaemon, Sections
from device import Device, MakeDevice

CLIENTS, QUESTIONS = 20, 10
PLAIN = 2
"""How many of a plain-text client's questions are plain text: those cannot bound their answers."""
LONG_WINDED = "Answer with one word. " * 36
"""Leaves little of a context of 256 tokens, so that those answers are short too."""


def test_two_hundred_questions_of_twenty_clients(
    broker: Mosquitto, daemon: MakeDaemon, device: MakeDevice, small_model: Path
) -> None:
    """Each of 200 questions is accepted and ends once, without a gap, its text equal to its joined deltas."""
    sections: Sections = {
        "model": {"path": str(small_model), "system_prompt": LONG_WINDED},
        "engine": {"slots": 8, "context_max": 256, "context_min": 256},
        "limits": {"queue_jobs": CLIENTS * QUESTIONS, "client_jobs": QUESTIONS},
    }
    node = daemon(broker, sections).start()
    asking = [device(broker, f"c{n}", version=5 - n % 2) for n in range(CLIENTS)]
    asked: list[tuple[Device, str]] = []
    for number in range(QUESTIONS):
        for index, each in enumerate(asking):
            if index % 4 >= 2 and number < PLAIN:
                each.ask_text(f"Say yes. {number}")
            else:
                asked.append((each, each.ask(f"What is {number} plus {index}?", max_tokens=4)))
    for each, job in asked:
        answer = each.answer(job, timeout_s=90).check()
        assert answer.last["type"] == "done", answer.last
        assert answer.last["usage"]["completion_tokens"] <= 4
    for index, each in enumerate(asking):
        plain = PLAIN if index % 4 >= 2 else 0
        each.wait(lambda each=each, plain=plain: len(each.texts()) == plain, 90)  # type: ignore[misc]
        answers = [answer.check() for answer in each.answers().values()]
        assert len(answers) == QUESTIONS
        texts = [answer.text for answer in answers if answer.id.startswith("q")]
        assert sorted(texts) == sorted(each.texts())
    counts = node.wait_health(lambda h: h["counts"]["done"] == 200)["counts"]
    assert (counts["accepted"], counts["errors"], counts["refused"]) == (200, 0, 0)
    assert len(node.log("job_finished")) == 200
