"""What is drawn comes as often as the model's logits say, cut and sharpened as the question asks."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from edged.core.question import TOP_K
from edged.engine import llama
from edged.engine.llama.bindings import C

DRAWS = 2000
RARE = 8
"""What is expected less often is counted together."""

Logits = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def context(small_model: Path) -> Iterator[llama.Context]:
    """The small model behind a question: its row 0 tells what may follow."""
    llama.start(lambda _level, _line: None)
    model = llama.Model(small_model)
    made = llama.Context(model, sequences=1, context=256, batch_tokens=64, threads=1, kv_type="f16")
    *before, last = model.tokenize(
        "<|im_start|>user\nName a colour.<|im_end|>\n<|im_start|>assistant\n", special=True
    )
    for at, token in enumerate(before):
        made.add(token, at, 0, logits=False)
    assert made.decode(1) == 0
    made.add(last, len(before), 0, logits=True)
    assert made.decode(1) == 0
    yield made
    made.close()
    model.close()


def logits(context: llama.Context) -> Logits:
    """Of that row, where they stand."""
    pointer = C.llama_get_logits_ith(context.pointer, context.first_row)
    return np.ctypeslib.as_array(pointer, shape=(context.vocabulary,))


def expected(row: Logits, temperature: float, top_p: float) -> dict[int, float]:
    """Tokens and how likely each is to be drawn: cut to the likeliest, then to `top_p`, then by temperature."""
    tokens = np.argsort(-row, kind="stable")[:TOP_K]
    left = row[tokens].astype(np.float64)
    shares = np.exp(left - left[0])
    count = int(np.searchsorted(np.cumsum(shares / shares.sum()), top_p)) + 1
    tokens, left = tokens[:count], left[:count]
    shares = np.exp((left - left[0]) / temperature)
    return dict(zip(tokens.tolist(), (shares / shares.sum()).tolist(), strict=True))


def check(drawn: Mapping[int, int], shares: Mapping[int, float]) -> None:
    """Chi-square, four standard deviations; and nothing else was drawn."""
    assert drawn.keys() <= shares.keys()
    common = {token: DRAWS * share for token, share in shares.items() if share >= RARE / DRAWS}
    rare = DRAWS - sum(common.values())
    pairs = [(drawn.get(token, 0), wanted) for token, wanted in common.items()]
    if rare >= RARE:
        pairs.append((DRAWS - sum(drawn.get(token, 0) for token in common), rare))
    degrees = len(pairs) - 1
    assert degrees > 0
    chi = sum((seen - wanted) ** 2 / wanted for seen, wanted in pairs)
    assert chi < degrees + 4 * math.sqrt(2 * degrees)


@pytest.mark.parametrize(("temperature", "top_p"), [(0.6, 0.95), (1.0, 1.0), (2.0, 0.5)])
def test_drawn_as_often_as_the_logits_say(context: llama.Context, temperature: float, top_p: float) -> None:
    """The usual settings, the model's own distribution, and a hot one of few tokens."""
    sampler = llama.Sampler(context, temperature=temperature, top_p=top_p, seed=1)
    drawn = Counter(sampler.choose(0) for _ in range(DRAWS))
    sampler.close()
    check(drawn, expected(logits(context), temperature, top_p))


def held(sampler: llama.Sampler, allowed: Collection[int], mask: bytes) -> int:
    """A token as the writer of answers chooses one that a schema allows."""
    free = sampler.choose(0)
    return free if free in allowed else sampler.choose_among(0, mask)


def test_drawn_among_what_is_allowed(context: llama.Context) -> None:
    """Every second of the likeliest tokens: what is drawn and does not fit is drawn again among these."""
    row = logits(context)
    before = row.copy()
    allowed = set(np.argsort(-before)[1:TOP_K:2].tolist())
    bits = np.zeros(context.vocabulary, dtype=bool)
    bits[list(allowed)] = True
    mask = np.packbits(bits, bitorder="little").tobytes()
    sampler = llama.Sampler(context, temperature=0.6, top_p=0.95, seed=1)
    drawn = Counter[int]()
    for _ in range(DRAWS):
        drawn[held(sampler, allowed, mask)] += 1
        row[:] = before
    sampler.close()
    free, among = expected(before, 0.6, 0.95), expected(np.where(bits, before, -np.inf), 0.6, 0.95)
    missed = sum(share for token, share in free.items() if token not in allowed)
    check(drawn, {token: free.get(token, 0) + missed * share for token, share in among.items()})


def test_a_seed_repeats(context: llama.Context) -> None:
    """The same seed draws the same, the least and the greatest ones too; another one others."""
    told = []
    for seed in (0, 0, 1, 0xFFFF_FFFE, 0xFFFF_FFFE):
        sampler = llama.Sampler(context, temperature=1.0, top_p=1.0, seed=seed)
        told.append([sampler.choose(0) for _ in range(12)])
        sampler.close()
    assert told[0] == told[1]
    assert told[3] == told[4]
    assert len({*map(tuple, told)}) == 3
