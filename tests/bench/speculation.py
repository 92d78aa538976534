"""What drafts from the text so far are worth: the engine with and without them, in turn, over real answers.

    python tests/bench/speculation.py [--threads 2] [--rounds 5] [--tokens 160] [--json FILE]

The small model answers greedily four kinds of questions. The shape of R1-Distill-Qwen-1.5B, whose weights are
random, computes the same answers: they are dictated to it token by token, in its own vocabulary, where it would
choose. So its passes cost what they cost, and as many drafts come true as in a text that a model has written. One
question at a time, and two of a kind together.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from bench import rig  # noqa: E402 - found through the path above
from r1model import bench_model  # noqa: E402
from real_rig import RealRig, ask  # noqa: E402

from edged.core.drafting import DRAFT_MAX  # noqa: E402
from edged.demo_model import ensure_demo_model  # noqa: E402
from edged.engine.messages import Ended  # noqa: E402

READINGS = "pump 3: 61 C, 1480 rpm, 4.2 bar; pump 4: 74 C, 1475 rpm, 4.1 bar; pump 5: 58 C, 0 rpm, 0.0 bar"
QUESTIONS = {
    "copying: repeat a log line by line": f"Repeat this log word for word, one pump a line: {READINGS}",
    "extracting: readings to JSON": 'Write these readings as a JSON list with keys "pump", "temp", "rpm": '
    + READINGS,
    "judging: which reading is odd": f"Here are readings: {READINGS}. Which pump needs attention, and why?",
    "answering: general knowledge": "Why do bearings get hot, and what should one do about it?",
}
WAYS = {"without": 0, "with": DRAFT_MAX}


class Dictated:
    """Chooses the tokens of a text, whatever the logits say."""

    def __init__(self, tokens: list[int]) -> None:
        self._tokens: Iterator[int] = iter(tokens)

    def choose(self, row: int) -> int:
        """The next one."""
        del row
        return next(self._tokens)

    def choose_among(self, row: int, mask: bytes) -> int:
        """The next one as well: nothing is held to a schema here."""
        del mask
        return self.choose(row)

    def close(self) -> None:
        """There is nothing to free."""


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=160)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    small = RealRig(ensure_demo_model(), threads=options.threads)
    shape = RealRig(bench_model(), threads=options.threads)
    found: list[dict[str, Any]] = []
    for kind, question in QUESTIONS.items():
        text = write(small, question, options.tokens, 1)[0].text
        for name, model in (("SmolLM2-135M", small), ("1.5B shape", shape)):
            tokens = model.vocabulary.tokenize(text, special=False)[: options.tokens]
            if model is shape:
                shape.make_chooser = lambda tokens=tokens, **_: Dictated(tokens)
            for together in (1, 2):
                about = {"kind": kind, "model": name, "together": together}
                found.append(about | compare(model, question, len(tokens), together, options.rounds))
    rows: list[tuple[str, ...]] = [
        ("answer", "model", "at once", "tokens/s", "with drafts", "ratio", "came true")
    ]
    rows += [
        (
            each["kind"],
            each["model"],
            str(each["together"]),
            *(f"{statistics.median(each['tokens_per_s'][way]):.1f}" for way in WAYS),
            f"{each['ratio']:.2f}",
            f"{100 * each['right'] / max(1, each['drafted']):.0f} % of {each['drafted']}",
        )
        for each in found
    ]
    rig.show(f"answers of up to {options.tokens} tokens, {options.threads} threads", rows)
    rig.save(options.json, {"machine": rig.machine(), "threads": options.threads, "found": found})


def write(model: RealRig, question: str, tokens: int, together: int) -> list[Ended]:
    """Have a question answered, by as many devices at once."""
    for number in range(1, together + 1):
        model.submit(ask(number, question, max_tokens=tokens, temperature=0.0, reasoning_budget=0, seed=None))
    ends = [end for end in model.run().values() if isinstance(end, Ended)]
    if len(ends) != together:
        raise RuntimeError("a question was refused")
    return ends


def compare(model: RealRig, question: str, tokens: int, together: int, rounds: int) -> dict[str, Any]:
    """Tokens a second of the writing, in turn; the first round warms up and is not counted."""
    per_s: dict[str, list[float]] = {way: [] for way in WAYS}
    counters = model.scheduler.counters
    drafted = right = 0
    for number in range(rounds + 1):
        for way, most in WAYS.items():
            model.scheduler.drafts.most = most
            before = counters.drafted, counters.drafted_right
            ends = write(model, question, tokens, together)
            if number:
                per_s[way].append(sum(end.timings.decode_tokens_per_s for end in ends))
                drafted += counters.drafted - before[0]
                right += counters.drafted_right - before[1]
    ratio = statistics.median(a / b for a, b in zip(per_s["with"], per_s["without"], strict=True))
    return {"tokens_per_s": per_s, "ratio": ratio, "drafted": drafted, "right": right}


if __name__ == "__main__":
    main()
