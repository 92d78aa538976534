"""Would speculation pay? Drafts looked up in the prompt, their cost and their luck, measured apart.

    python tests/bench/speculation.py [--threads N] [--rounds 15] [--json FILE]

A draft of k tokens makes a pass of k + 1 rows. What such a pass costs, against one of a single row, is measured on
this machine for the small model and for the shape of R1-Distill-Qwen-1.5B. How many drafted tokens a greedy answer
takes is measured on real answers of the small model: verification keeps the text, so the answer can be written
once and every draft be looked up in it afterwards. Both together give the speed that speculation would reach, at
best: its own bookkeeping costs nothing here. The engine has no speculation; this is why.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from bench import rig  # noqa: E402 - found through the path above
from r1model import bench_model  # noqa: E402

from edged.core.question import Message  # noqa: E402
from edged.demo_model import ensure_demo_model  # noqa: E402
from edged.engine import llama  # noqa: E402
from edged.engine.chat import ChatTemplate, to_tokens  # noqa: E402

DEPTH = 256
"""Tokens in the cache when a pass is timed."""
ROWS = (1, 2, 3, 4, 5, 6, 8)
NGRAMS = (4, 3, 2)
"""Lengths of the endings that are looked up, longest first; llama.cpp's lookup example tries 4 to 1."""
ANSWER_TOKENS = 160
READINGS = "pump 3: 61 C, 1480 rpm, 4.2 bar; pump 4: 74 C, 1475 rpm, 4.1 bar; pump 5: 58 C, 0 rpm, 0.0 bar"
QUESTIONS = {
    "copying: repeat a log line by line": f"Repeat this log word for word, one pump a line: {READINGS}",
    "extracting: readings to JSON": 'Write these readings as a JSON list with keys "pump", "temp", "rpm": '
    + READINGS,
    "judging: which reading is odd": f"Here are readings: {READINGS}. Which pump needs attention, and why?",
    "answering: general knowledge": "Why do bearings get hot, and what should one do about it?",
}


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    llama.start(lambda _level, _text: None)
    costs = {
        path.stem: pass_costs(path, options.threads, options.rounds)
        for path in (ensure_demo_model(), bench_model())
    }
    answers = {name: answer(ensure_demo_model(), text, options.threads) for name, text in QUESTIONS.items()}
    result = {
        "machine": rig.machine(),
        "threads": options.threads,
        "cost_of_rows": costs,
        "gain": {
            kind: {
                model: {str(rows - 1): gain(*tokens, cost, rows - 1) for rows in ROWS[1:]}
                for model, cost in costs.items()
            }
            for kind, tokens in answers.items()
        },
    }
    rows: list[tuple[str, ...]] = [("rows of a pass", *map(str, ROWS))]
    rows += [(model, *(f"{cost[count]:.2f}" for count in ROWS)) for model, cost in costs.items()]
    rig.show("time of a pass, against one row; medians", rows)
    rows = [("answer", "model", *(f"{count - 1} drafted" for count in ROWS[1:]))]
    for kind, models in result["gain"].items():
        rows += [(kind, model, *(f"x {value:.2f}" for value in by.values())) for model, by in models.items()]
    rig.show("decode speed with speculation, against without", rows)
    rig.save(options.json, result)


def pass_costs(path: Path, threads: int, rounds: int) -> dict[int, float]:
    """Time of a pass for each count of rows, all with logits, in units of a pass of one row."""
    model = llama.Model(path)
    context = llama.Context(
        model, sequences=1, context=DEPTH + max(ROWS), batch_tokens=DEPTH, threads=threads, kv_type="f16"
    )
    token = model.tokenize(" the", special=False)[0]
    for position in range(DEPTH):
        context.add(token, position, 0, logits=position == DEPTH - 1)
    context.decode(threads)
    times: dict[int, list[float]] = {count: [] for count in ROWS}
    for _ in range(rounds):
        for count in ROWS:
            for position in range(DEPTH, DEPTH + count):
                context.add(token, position, 0, logits=True)
            begun = time.perf_counter()
            context.decode(threads)
            times[count].append(time.perf_counter() - begun)
            context.forget(0, DEPTH)
    context.close()
    model.close()
    alone = statistics.median(times[1])
    return {count: round(statistics.median(each) / alone, 3) for count, each in times.items()}


def answer(path: Path, question: str, threads: int) -> tuple[list[int], list[int]]:
    """Prompt and greedy answer of the small model, in tokens."""
    model = llama.Model(path)
    context = llama.Context(
        model, sequences=1, context=1024, batch_tokens=512, threads=threads, kv_type="f16"
    )
    template = ChatTemplate(model.chat_template or "")
    spans = template.render([Message("user", question)])
    prompt = to_tokens(spans, lambda text, special: model.tokenize(text, special=special), model.begin)
    sampler = llama.Sampler(context, temperature=0, top_p=1, seed=0)
    row = 0
    for position, token in enumerate(prompt):
        row = context.add(token, position, 0, logits=position == len(prompt) - 1)
    written: list[int] = []
    while len(written) < ANSWER_TOKENS:
        context.decode(threads)
        token = sampler.choose(row)
        if model.ends_answer(token):
            break
        row = context.add(token, len(prompt) + len(written), 0, logits=True)
        written.append(token)
    sampler.close()
    context.close()
    model.close()
    return prompt, written


def gain(prompt: Sequence[int], written: Sequence[int], cost: dict[int, float], drafted: int) -> float:
    """Decode speed with drafts of at most so many tokens, against without."""
    spent, at = 0.0, 0
    while at < len(written):
        draft = look_up([*prompt, *written[:at]], drafted)
        right = 0
        while right < len(draft) and at + right < len(written) and draft[right] == written[at + right]:
            right += 1
        spent += _between(cost, 1 + len(draft))
        at += right + 1  # the pass itself chooses one more
    return round(len(written) / spent, 3)


def look_up(tokens: Sequence[int], count: int) -> list[int]:
    """What followed the latest earlier occurrence of the text's ending; empty where there is none."""
    for size in NGRAMS:
        ending = list(tokens[-size:])
        for start in range(len(tokens) - size - 1, -1, -1):
            if list(tokens[start : start + size]) == ending:
                return list(tokens[start + size : start + size + count])
    return []


def _between(cost: dict[int, float], rows: int) -> float:
    known = sorted(cost)
    above = next(count for count in known if count >= rows)
    below = max(count for count in known if count <= rows)
    if above == below:
        return cost[above]
    return cost[below] + (cost[above] - cost[below]) * (rows - below) / (above - below)


if __name__ == "__main__":
    main()
