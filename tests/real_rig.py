"""The engine's own parts over the real small model, in the test's process: measured, scheduled, decoded, no daemon.

What the scripted rig cannot show: llguidance's masks, the model's own tokens, sampling with a seed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from configured import configured
from scripted import submit

from edged.core.question import Message
from edged.engine.loading import load
from edged.engine.messages import Ended, Refused, Report, Submit
from edged.engine.ports import Chooser, MakeChooser
from edged.engine.scheduler import Scheduler

THREADS = 1
"""Two would spin for each other where the machine has other work as well."""


class RealRig:
    """One model, one scheduler.

    Args:
        model: GGUF file.
        slots, context: shape of the cache.
        threads: that compute.
        fixed_seed: of all questions.

    Attributes:
        make_chooser: makes what chooses the tokens of the questions that begin.
    """

    def __init__(
        self,
        model: Path,
        *,
        slots: int = 4,
        context: int = 1024,
        threads: int = THREADS,
        fixed_seed: int | None = None,
    ) -> None:
        setup = configured(
            model_path=str(model),
            slots=slots,
            context=context,
            batch_tokens=256,
            decode_threads=threads,
            prefill_threads=threads,
        )
        loaded = load(setup, lambda _level, _text: None)
        self.make_chooser: MakeChooser = loaded.make_chooser
        self.vocabulary = loaded.vocabulary
        self.preparation = loaded.preparation
        self.reports: list[Report] = []

        def make_chooser(*, temperature: float, top_p: float, seed: int) -> Chooser:
            return self.make_chooser(temperature=temperature, top_p=top_p, seed=fixed_seed or seed)

        self.scheduler = Scheduler(
            loaded.vocabulary,
            loaded.passes,
            make_chooser,
            slots=slots,
            decode_threads=threads,
            prefill_threads=threads,
            emit=self.reports.extend,
        )

    def submit(self, order: Submit) -> None:
        """Measure a question and put it in line; raises `Refusal` where the engine would refuse it."""
        self.scheduler.submit(self.preparation.prepare(order, 0.0))

    def run(self) -> dict[int, Ended | Refused]:
        """Step until there is nothing to do; returns how each question ended since the last run."""
        self.reports.clear()
        while self.scheduler.step():
            pass
        return {one.number: one for one in self.reports if isinstance(one, Ended | Refused)}


def ask(number: int, text: str, **changes: Any) -> Submit:
    """An order of one message, at the engine's own sampling."""
    return submit(number, Message("user", text), **({"seed": number} | changes))
