"""Damaged payloads, properties and topics: each gets an answer or is counted, and nothing else is raised.

Seeded mutations of questions that are right, since random bytes rarely get past the first check: three quarters at
the parser, a quarter at a running daemon. In the unit tests hypothesis searches the parser as well; under `--soak`
atheris does, led by the branches that a payload takes.
"""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from broker import Mosquitto
from device import Device, hear, leave
from faults.nursery import MakeNode
from faults.record import Trial
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edged.core import control
from edged.core.parsing import Bounds, Envelope, Misread, parse
from edged.core.question import Properties as Properties5
from edged.core.topics import Topics
from edged.errors import Refusal

PARSED, SENT = 7_500, 2_500
COVERAGE_FUZZ = Path(__file__).with_name("coverage_fuzz.py")
BATCH = 250
FAULT = "payload fuzz"
ENDS = (b'{"type":"done"', b'{"type":"error"', b'{"type":"cancelled"')
ODD = [
    b"\x00", b"\xff\xfe", b"\xed\xa0\x80", b"\\ud800", b'"', b"{", b"}", b"[" * 900, b"1e999", b"-1", b"9" * 400,
    b"null", b"true", b'"prompt":"', b'"messages":[]', b"\xe2\x80\xae", b"#", b"+", b"/../", b"\\u0000", b"NaN",
]  # fmt: skip
TOPICS = ["edged/v1/client/fuzz/r", "edged/v1/client/other/r", "a", "edged/v1/node/n1/ask/fuzz", "/" * 80]

Payload = dict[str, Any]


def question(rng: random.Random) -> Payload:
    """A question that is right, with some of the optional fields."""
    fields: Payload = {"id": f"{rng.getrandbits(64):x}", "prompt": "Is it hot?"}
    options: list[Payload] = [
        {"max_tokens": rng.randint(-1, 9)},
        {"deadline_ms": rng.choice([1, 10_000, 10**12])},
        {"temperature": rng.choice([0, 2, 2.1, "hot"])},
        {"stop": rng.choice(["x", ["a", "b"], [], [""] * 9])},
        {"reasoning": {"mode": rng.choice(["hide", "loud"]), "budget": rng.randint(-1, 3)}},
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"schema": {"type": rng.choice(["object", 1])}},
            }
        },
        {"reply_to": rng.choice(TOPICS)},
        {"stream": rng.choice([True, False, 0])},
        {"priority": rng.choice(["background", "urgent"])},
        {"tools": rng.choice([[], [{}]])},
        {"seed": rng.choice([0, 2**32, -1])},
        {"overflow": "trim_history", "prompt": None, "messages": [{"role": "user", "content": "Is it hot?"}]},
    ]
    for option in rng.sample(options, rng.randint(0, 3)):
        fields |= option
    return fields


def damaged(rng: random.Random, payload: bytes) -> bytes:
    """One to three small damages, or none."""
    for _ in range(rng.randint(0, 3)):
        at = rng.randrange(len(payload) + 1)
        damages: list[Callable[[bytes, int], bytes]] = [
            lambda p, i: p[:i],
            lambda p, i: p[i:],
            lambda p, i: p[:i] + rng.choice(ODD) + p[i:],
            lambda p, i: p[:i] + rng.randbytes(3) + p[i + 3 :],
            lambda p, i: p[:i] + bytes([p[i] ^ 1 << rng.randrange(8)]) + p[i + 1 :] if i < len(p) else p,
            lambda p, i: p[:i] + p[i // 2 : i] + p[i:],
            lambda p, i: p.replace(b":", rng.choice([b"::", b"", b":[", b": "]), i % 4),
        ]
        payload = rng.choice(damages)(payload, at)
    return payload


class Fuzzer:
    """Publishes without waiting, and knows by Correlation Data what was answered."""

    def __init__(self, broker: Mosquitto) -> None:
        self._answered: set[bytes] = set()
        self._changed = threading.Condition()
        topic = "edged/v1/client/fuzz/#"
        self._client = hear(broker, "fuzz", topic, self._on_message, inflight_max=BATCH)

    def publish(self, topic: str, payload: bytes, **properties: object) -> None:
        """Send; properties by paho's names."""
        packed = Properties(PacketTypes.PUBLISH)
        for key, value in properties.items():
            setattr(packed, key, value)
        self._client.publish(topic, payload, qos=1, properties=packed)

    def wait_answered(self, names: set[bytes]) -> set[bytes]:
        """Wait for a terminal message to each; returns those without one."""
        with self._changed:
            self._changed.wait_for(lambda: names <= self._answered, 60.0)
            return names - self._answered

    def close(self) -> None:
        """Disconnect."""
        leave(self._client)

    def _on_message(self, _client: paho.Client, _userdata: object, message: paho.MQTTMessage) -> None:
        if not message.payload.startswith(ENDS):
            return
        with self._changed:
            self._answered.add(vars(message.properties).get("CorrelationData", b""))
            self._changed.notify_all()


def test_parser_fuzz(trial: Trial) -> None:
    """The parser gives a question, or a refusal with an address to send it to; nothing else comes out of it."""
    rng = random.Random(8)  # noqa: S311 - damages, not secrets
    topics, bounds = Topics("edged", "n1"), Bounds()
    read = refused = 0
    for _ in range(PARSED * trial.factor):
        payload = damaged(rng, json.dumps(question(rng)).encode())
        given = {
            {"CorrelationData": "correlation", "ResponseTopic": "response_topic"}.get(
                key, "content_type"
            ): value
            for key, value in _properties(rng, rng.randbytes(9)).items()
            if key != "MessageExpiryInterval"
        }
        try:
            address = parse(payload, Envelope("fuzz", "q1", Properties5(**given)), topics, bounds).reply_to
            read += 1
        except Misread as misread:
            address = misread.address.reply_to
            refused += 1
        assert topics.may_reply_to("fuzz", address)
    assert read > 100
    assert refused > 100
    trial.note(FAULT, read + refused, "payloads at the parser", also=f"{read} read, {refused} refused")


def test_payload_fuzz(broker: Mosquitto, node: MakeNode, trial: Trial) -> None:
    """Each damaged message ends in a reply or a counted drop; the daemon and its engine live on."""
    process = node(broker, "n1", {"limits": {"queue_jobs": 2000, "client_jobs": 2000}}).start()
    pid = process.pid
    fuzz = Fuzzer(broker)
    rng = random.Random(4)  # noqa: S311 - damages, not secrets
    waiting: set[bytes] = set()
    dropped = controls = 0
    total = SENT * trial.factor
    for first in range(0, total, BATCH):
        for number in range(first, first + BATCH):
            payload = damaged(rng, json.dumps(question(rng)).encode())
            kind = rng.random()
            if kind < 0.1:
                order = damaged(rng, json.dumps({"op": "cancel", "id": f"f{number}"}).encode())
                fuzz.publish("edged/v1/node/n1/control/fuzz", order)
                controls += 1
                dropped += not _is_order(order)
            elif kind < 0.13:
                fuzz.publish(f"edged/v1/node/n1/ask/{rng.choice(['a b', 'ä', 'x' * 65, '$'])}", payload)
                dropped += 1
            else:
                name = f"c{number}".encode()
                waiting.add(name)
                fuzz.publish("edged/v1/node/n1/ask/fuzz", payload, **_properties(rng, name))
        assert not (silent := fuzz.wait_answered(waiting)), sorted(silent)[:5]
    health = process.wait_health(lambda h: h["counts"]["dropped"] >= dropped)
    assert health["counts"]["dropped"] == dropped
    assert health["engine_restarts"] == 0
    assert process.pid == pid
    assert process.running
    fuzz.close()
    sane = Device(broker.host, broker.port, "sane").start()
    assert sane.answer(sane.ask("tokens=2")).check().last["type"] == "done"
    sane.stop()
    trial.note(
        "payload fuzz",
        total,
        "payloads at a daemon",
        also=f"{len(waiting)} answered, {dropped} counted drops, {controls} controls",
    )


@pytest.mark.soak
@pytest.mark.parametrize("target", ["question", "control", "admin"])
def test_coverage_fuzz(target: str, tmp_path: Path, trial: Trial) -> None:
    """Nothing escapes a parser that a search led by its own branches finds, in ten seconds times the factor."""
    limits = [f"-max_total_time={10 * trial.factor}", "-timeout=10", "-rss_limit_mb=2048", "-max_len=4096"]
    ran = subprocess.run(
        [
            sys.executable,
            COVERAGE_FUZZ,
            target,
            *limits,
            f"-artifact_prefix={tmp_path}/found-",
            str(tmp_path),
        ],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-4000:]
    done = re.search(r"Done (\d+) runs", ran.stderr)
    assert done, ran.stderr[-4000:]
    assert int(done[1]) > 1000
    trial.note(f"{FAULT}, led by branches", int(done[1]), f"payloads at the parser of {target} messages")


def _is_order(payload: bytes) -> bool:
    try:
        control.parse(payload)
    except Refusal:
        return False
    return True


def _properties(rng: random.Random, name: bytes) -> dict[str, Any]:
    properties: dict[str, Any] = {"CorrelationData": name}
    if rng.random() < 0.2:
        properties["ResponseTopic"] = rng.choice(TOPICS)
    if rng.random() < 0.2:
        properties["ContentType"] = rng.choice(["application/json", "text/plain", "x", "ä" * 99])
    if rng.random() < 0.1:
        properties["MessageExpiryInterval"] = rng.choice([60, 2**32 - 1])
    return properties
