"""Touches the weights, builds the graphs and takes the first rates, before the node calls itself online.

In the model thread, before there is another one.
"""

from __future__ import annotations

from edged.core.answer_text import AnswerText
from edged.core.chunker import Chunker
from edged.core.rates import Rates
from edged.engine.messages import Submit
from edged.engine.ports import Vocabulary
from edged.engine.scheduler import Scheduler
from edged.engine.sequence import Sequence

TOKENS, STEPS = 64, 4


def warm_up(
    scheduler: Scheduler, vocabulary: Vocabulary, *, context: int, longest: int | None = None
) -> None:
    """Run passes as of a question, of which nobody hears.

    A GPU's driver compiles its code where a shape of pass first comes, which may take longer than the passes of a
    whole answer: so the longest pass is run as well there, and what both took counts for no rate.

    Args:
        scheduler: with nothing in it.
        vocabulary: the model's.
        context: tokens of prompt and answer together that a question may have.
        longest: rows of the longest pass, where a GPU computes.
    """
    emit = scheduler.replace_emit(lambda _: None)
    if longest is not None:
        for rows in (TOKENS, longest):
            _answer(scheduler, vocabulary, min(rows, context - STEPS), context)
        scheduler.counters.rates = Rates()
    _answer(scheduler, vocabulary, TOKENS, context)
    scheduler.replace_emit(emit)


def _answer(scheduler: Scheduler, vocabulary: Vocabulary, rows: int, context: int) -> None:
    tokens = (vocabulary.tokenize("The quick brown fox. ", special=False) or [0]) * rows
    # Sampled, as most answers are: what only greedy ones need is not brought into memory.
    order = Submit(0, "", (), "normal", None, None, None, 1.0, 0, (), "hide", None, stream=False, reuse=False)
    scheduler.submit(
        Sequence(
            order=order,
            tokens=tokens[:rows],
            prompt_tokens=rows,
            text=AnswerText(),
            closing=[],
            room=STEPS,
            budget=0,
            context=context,
            arrived=0.0,
            chunker=Chunker(0.0),
        )
    )
    while scheduler.step():
        pass
