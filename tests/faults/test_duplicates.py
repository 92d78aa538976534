"""QoS 1 may deliver twice: each copy joins the running question or gets the stored answer, and runs nothing."""

from __future__ import annotations

import json
import random
from collections import Counter

from broker import Mosquitto
from device import Device
from faults.nursery import MakeNode
from faults.record import Trial

IDS, COPIES = 100, 10


def test_duplicates(broker: Mosquitto, node: MakeNode, trial: Trial) -> None:
    """Of ten copies of a question, sent before, during and after its run, one runs; all endings are the same."""
    ids, copies = IDS * trial.factor, COPIES
    sections = {"limits": {"queue_jobs": 1000, "client_jobs": 1000}}
    process = node(broker, "n1", sections).start()
    asking = Device(broker.host, broker.port, "d1").start()
    rng = random.Random(9)  # noqa: S311 - an order, not a secret
    deck = [f"q{number}" for number in range(ids) for _ in range(copies)]
    # Near each other, so that copies meet a question in every state; a tenth comes when all is over.
    deck.sort(key=lambda name: int(name[1:]) + rng.uniform(0, 12))
    late = deck[:: ids // 10]
    for name in (*deck, *late):
        asking.publish(
            asking.ask_topic,
            json.dumps({"id": name, "prompt": "tokens=3 step_ms=1", "stream": False}).encode(),
        )
    for number in range(ids):
        asking.answer(f"q{number}")
    total = len(deck) + len(late)

    def all_counted(health: dict[str, Counter[str]]) -> bool:
        counts = health["counts"]
        return counts["accepted"] + counts["duplicates"] >= total and counts["done"] >= ids

    counts = process.wait_health(all_counted)["counts"]
    assert counts["accepted"] == counts["done"] == ids
    assert counts["duplicates"] == total - ids
    for answer in asking.answers().values():
        ends = {h.payload for h in answer.heard if h.json["type"] in {"done", "error", "cancelled"}}
        assert len(ends) == 1, answer.id
        assert answer.last["attempt"] == 1
    asking.stop()
    trial.note("duplicates of QoS 1 deliveries", total - ids, "copies", also=f"{ids} questions, {ids} runs")
