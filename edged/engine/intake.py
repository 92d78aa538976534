"""The intake thread: reads the daemon's orders, measures questions, and hands both on to the model thread.

A question is measured here, so that it is refused or promised a time while the model thread computes others. When
the daemon closes its end the process is over, whatever the model thread is about.
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Iterable

from edged.engine.channel import Channel
from edged.engine.loop import Inbox
from edged.engine.messages import (
    Cancel,
    EndReasoning,
    ForgetPrompts,
    Frame,
    Join,
    Log,
    Prepared,
    Refused,
    SetLimits,
    Shutdown,
    Submit,
)
from edged.engine.prefixes import Prefixes
from edged.engine.prepare import Preparation
from edged.engine.scheduler import Scheduler
from edged.errors import EngineError, Refusal, own_defect, place


class Intake:
    """Takes in what the daemon sends.

    Args:
        inbox: the model thread's.
        scheduler: asked for what may be promised, and told to break a pass off.
        preparation: measures.
        prefixes: prompts on disk, where there are any.
        channel: to the daemon.
        context_max: tokens of prompt and answer together, as the cache was made.
    """

    def __init__(
        self,
        inbox: Inbox,
        scheduler: Scheduler,
        preparation: Preparation,
        prefixes: Prefixes | None,
        channel: Channel[Frame, Frame],
        *,
        context_max: int,
    ) -> None:
        self._inbox = inbox
        self._scheduler = scheduler
        self._preparation = preparation
        self._prefixes = prefixes
        self._channel = channel
        self._context_max = context_max

    def run(self, orders: Iterable[Frame]) -> None:
        """Read orders until the daemon closes its end; then the process is over, whatever it computes."""
        code = 1
        try:
            for order in orders:
                self._take(order)
            code = 0
        except OSError:
            code = 0  # the daemon is gone, seen as something was told to it
        except Exception:
            traceback.print_exc()  # nobody else would: the process ends here
            raise
        finally:
            # The model thread may be deep inside a pass, and nobody is left to read its result.
            os._exit(code)

    def _take(self, order: Frame) -> None:
        match order:
            case Submit():
                self._measure(order)
            case Cancel() | Join() | EndReasoning():
                self._inbox.put(order)  # first: an interrupted pass finds the reason in the inbox
                if isinstance(order, Cancel):
                    self._scheduler.interrupt(order.number)
            case SetLimits():
                # Here for what is measured next, in the model thread for what is computed next.
                self._preparation.context = min(order.context, self._context_max)
                self._preparation.reasoning_max = order.reasoning_budget
                self._inbox.put(order)
            case ForgetPrompts():
                self._preparation.forget_texts()
                self._inbox.put(order)
            case Shutdown():
                os._exit(0)
            case _:
                raise EngineError(f"an order of type {type(order).__name__} makes no sense now")

    def _measure(self, order: Submit) -> None:
        scheduler = self._scheduler
        try:
            sequence = self._preparation.prepare(order, time.monotonic())
        except Refusal as refusal:
            self._refuse(order.number, refusal)
            return
        except Exception as error:  # noqa: BLE001 - around one question: the template and the schema are others' code
            fields = {"number": order.number, "reason": place(error)}
            self._channel.send(Log("error", "question_not_measured", fields))
            self._refuse(order.number, own_defect())
            return
        if self._prefixes is not None and order.reuse:
            held, read_s = scheduler.slots.longest(sequence.tokens), scheduler.counters.rates.read_s
            sequence.stored = self._prefixes.fetch(sequence.tokens, held, read_s)
        hopeless = scheduler.promises.refusal(sequence, time.monotonic())
        if hopeless is not None:
            self._refuse(order.number, hopeless)
            return
        ahead, eta_s = scheduler.promises.estimate(sequence)
        scheduler.announce(sequence)
        self._channel.send(
            Prepared(order.number, sequence.prompt_tokens, sequence.context, ahead, round(eta_s, 3))
        )
        self._inbox.put(sequence)

    def _refuse(self, number: int, refusal: Refusal) -> None:
        self._channel.send(
            Refused(number, refusal.code, refusal.message, refusal.details, refusal.retry_after_ms)
        )
