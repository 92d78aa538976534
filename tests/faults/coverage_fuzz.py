"""Looks for a payload that escapes a parser, led by the branches that earlier ones took (atheris, libFuzzer).

    python tests/faults/coverage_fuzz.py {question,control,admin} [CORPUS] [-max_total_time=300] [-seed=1]

What stands behind the target goes to libFuzzer, whose last line says how many payloads ran. A payload that
escapes ends the run with code 77 and is written to a file, which, given in place of CORPUS, runs alone. Needs the
extra `soak`; `test_payload_fuzz.py` runs it under `--soak`.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import atheris

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]

with atheris.instrument_imports(include=["edged"]):
    from edged.core import admin, control
    from edged.core.parsing import Bounds, Envelope, Misread, parse
    from edged.core.question import Properties
    from edged.core.topics import Topics, is_job_id
    from edged.errors import Refusal

TOPICS, BOUNDS = Topics("edged", "n1"), Bounds(models=("large",))
TYPES = (None, "application/json", "text/plain")
REPLY_TO = (None, "edged/v1/client/fuzz/r", "edged/v1/client/other/r", "#")


def question(data: bytes) -> None:
    """The first byte chooses the MQTT properties, the rest is the payload."""
    how = data[0] if data else 0
    given = Properties(
        content_type=TYPES[how % 3],
        response_topic=REPLY_TO[how // 3 % 4],
        correlation=data[:9] if how & 128 else None,
    )
    try:
        reply_to = parse(data[1:], Envelope("fuzz", "q1", given), TOPICS, BOUNDS).reply_to
    except Misread as misread:
        reply_to = misread.address.reply_to
        sentence(misread.refusal)
    assert TOPICS.may_reply_to("fuzz", reply_to), reply_to


def steer(data: bytes) -> None:
    """A control message."""
    try:
        order = control.parse(data)
    except Refusal as refusal:
        sentence(refusal)
    else:
        assert is_job_id(order.id)


def order(data: bytes) -> None:
    """An operator's order; the first byte chooses what the topic names."""
    names = [None, *sorted(admin.OPS), "reboot"]
    try:
        read = admin.parse(data[1:], names[data[0] % len(names)] if data else None)
    except Refusal as refusal:
        sentence(refusal)
    else:
        assert read.op in admin.OPS


def sentence(refusal: Refusal) -> None:
    """What a device is told stands on one line."""
    assert refusal.message.isprintable(), refusal.message
    assert refusal.message


TARGETS: dict[str, Callable[[bytes], None]] = {"question": question, "control": steer, "admin": order}


def main() -> None:
    """Seed the corpus and fuzz; libFuzzer ends the process."""
    name = sys.argv.pop(1)
    folder = next((Path(word) for word in sys.argv[1:] if not word.startswith("-")), None)
    if folder is not None and folder.is_dir():
        rng = random.Random(1)  # noqa: S311 - examples, not secrets
        for number in range(64):
            (folder / f"seed-{number}").write_bytes(example(name, rng))
    atheris.Setup(sys.argv, TARGETS[name])
    atheris.Fuzz()


def example(name: str, rng: random.Random) -> bytes:
    """A payload that is right, or nearly."""
    from faults.test_payload_fuzz import question as asked  # noqa: PLC0415 - what it imports is not to be instrumented

    if name == "question":
        return bytes([rng.randrange(256)]) + json.dumps(asked(rng)).encode()
    if name == "control":
        op = rng.choice(["cancel", "resume", "end_reasoning", "status", "forget"])
        return json.dumps({"op": op, "id": "q1", "from_seq": 3, "session": "s"}).encode()
    op = rng.choice(sorted(admin.OPS))
    fields: dict[str, dict[str, Any]] = {
        "config": {"set": {"limits.queue_jobs": 32}},
        "model": {"path": "a.gguf", "sha256": "0" * 64},
    }
    return bytes([rng.randrange(9)]) + json.dumps({"transaction": "t", **fields.get(op, {})}).encode()


if __name__ == "__main__":
    main()
