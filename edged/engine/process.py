"""The engine process: an intake thread that reads orders and measures questions, a model thread that steps.

Started by `edged.engine.client` with one end of a socket pair; ends when that socket closes, so it never
outlives its daemon. The model thread is the main thread; it is pinned before it touches llama.cpp, because
worker threads inherit the mask of the thread that makes them.
"""

from __future__ import annotations

import os
import queue
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from edged.child import end_with_parent, offer_to_oom_killer
from edged.core.answer_text import AnswerText
from edged.core.batching import CHUNK_MIN
from edged.core.chunker import Chunker
from edged.core.rates import Rates
from edged.engine.channel import Channel
from edged.engine.locked import ADVICE, lock_memory
from edged.engine.messages import (
    Cancel,
    Configure,
    EndReasoning,
    ForgetPrompts,
    Frame,
    LoadFailed,
    Log,
    ModelInfo,
    Order,
    Prepared,
    PromptsForgotten,
    Pulse,
    Ready,
    Refused,
    Report,
    SetDeadline,
    SetLimits,
    Shutdown,
    Submit,
)
from edged.engine.ports import MakeChooser, Passes, Vocabulary
from edged.engine.prefixes import Prefixes, erase
from edged.engine.prepare import Preparation
from edged.engine.scheduler import Scheduler
from edged.engine.sequence import Sequence
from edged.errors import EngineError, ModelError, Refusal

PULSE_S = 0.5
"""Least time between two signs of life; the daemon's watchdog counts on them."""
OOM_SCORE_ADJ = 500
WARM_UP_TOKENS, WARM_UP_STEPS = 64, 4
PASS_SHARE = 1 / 8
"""Share of `hang_s` that a pass may take, by the measured rate: heat and other programs may slow it down."""
KEEP_AFTER_S, KEEP_TALKS_AFTER_S = 2.0, 20.0
"""Without a question for so long, prompts are written to disk; those of conversations later: they may go on."""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that is ready for the scheduler.

    Attributes:
        state_key: names all that states of its cache depend on.
        gpus: what computes some of its layers, or all.
        gpu_missed: why nothing does though the settings ask for it, and what to change; else empty.
    """

    vocabulary: Vocabulary
    passes: Passes
    make_chooser: MakeChooser
    preparation: Preparation
    info: ModelInfo
    state_key: str = ""
    gpus: tuple[str, ...] = ()
    gpu_missed: str = ""


Load = Callable[[Configure, Callable[[str, str], None]], LoadedModel]
"""Loads what a `Configure` names; the second argument takes level and text of log lines.

Raises `ModelError` where the file is at fault."""


def run(fd: int, load: Load) -> int:
    """Serve the daemon at the other end of socket `fd`; returns the exit code of the process."""
    try:
        return _run(fd, load)
    except (BrokenPipeError, ConnectionResetError):
        return 0  # the daemon was killed: nobody is left to tell


def _run(fd: int, load: Load) -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's ctrl-C is the daemon's to deal with
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # systemd signals the whole group; the daemon ends us
    end_with_parent()  # while the model is loaded nobody reads the socket to see that the daemon was killed
    offer_to_oom_killer(OOM_SCORE_ADJ)
    channel: Channel[Frame, Frame] = Channel(socket.socket(fileno=fd), cast("Any", Order))
    orders = channel.receive()
    first = next(orders, None)
    if not isinstance(first, Configure):
        return 0
    started = time.monotonic()
    if first.cores:
        os.sched_setaffinity(0, first.cores)

    def log(level: str, text: str) -> None:
        channel.send(Log(cast("Any", level), "llama_cpp", {"text": text[:500]}))

    try:
        model = load(first, log)
    except ModelError as error:
        channel.send(LoadFailed(str(error)))
        return 0
    if model.gpu_missed:
        channel.send(Log("warning", "gpu_not_used", {"reason": model.gpu_missed}))
    engine = Engine(first, model, channel)
    engine.warm_up()
    engine.scheduler.drafts.most = first.draft_max  # from here on: the first rates are those without
    if first.lock_memory and (reason := lock_memory()):
        channel.send(Log("warning", "memory_not_locked", {"reason": f"{reason}; {ADVICE}"}))
    rates = engine.scheduler.counters.rates
    if first.step_s > 0 and first.read_s > 0:
        rates.expect(first.step_s, first.read_s)
    channel.send(
        Ready(
            model=model.info,
            cores=tuple(sorted(os.sched_getaffinity(0))),
            decode_threads=first.decode_threads,
            prefill_threads=first.prefill_threads,
            prefill_tokens_per_s=_inverse(rates.read_s),
            decode_tokens_per_s=_inverse(rates.step_s),
            load_s=round(time.monotonic() - started, 3),
            gpus=model.gpus,
        )
    )
    intake = threading.Thread(target=engine.take_in, args=(orders,), name="intake", daemon=True)
    intake.start()
    engine.serve()
    return 0


class Engine:
    """The two threads' meeting place."""

    def __init__(self, setup: Configure, model: LoadedModel, channel: Channel[Frame, Frame]) -> None:
        self._model = model
        self._channel = channel
        self._inbox: queue.SimpleQueue[
            Sequence | Cancel | SetDeadline | EndReasoning | SetLimits | ForgetPrompts
        ] = queue.SimpleQueue()
        self._context_max = setup.context
        self._pulsed_at = 0.0
        self._rests_since = time.monotonic()
        self._prefixes = self._open_prefixes(setup)
        self._rows_max, self._pass_s = model.passes.batch_tokens, PASS_SHARE * setup.hang_s
        self._rows_min = min(self._rows_max, max(CHUNK_MIN, setup.slots + 1))
        self.scheduler = Scheduler(
            model.vocabulary,
            model.passes,
            model.make_chooser,
            slots=setup.slots,
            decode_threads=setup.decode_threads,
            prefill_threads=setup.prefill_threads,
            emit=self._emit,
        )

    def _open_prefixes(self, setup: Configure) -> Prefixes | None:
        if not setup.prefix_folder or not self._model.state_key:
            return None
        folder = Path(setup.prefix_folder)
        if setup.prefix_bytes:
            size = self._model.info.kv_bytes_per_token
            return Prefixes(folder, self._model.state_key, setup.prefix_bytes, self._log, token_bytes=size)
        erase(folder)
        return None

    def _emit(self, reports: list[Report]) -> None:
        self._channel.send(*reports)

    def _log(self, level: str, event: str, fields: dict[str, Any]) -> None:
        with suppress(OSError):  # the daemon is gone, and we are about to be
            self._channel.send(Log(cast("Any", level), event, fields))

    # intake thread --------------------------------------------------------------------------------------

    def take_in(self, orders: Any) -> None:  # noqa: ANN401 - the iterator that `run` has begun
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
            os._exit(
                code
            )  # the model thread may be deep inside a pass, and nobody is left to read its result

    def _take(self, order: Frame) -> None:
        match order:
            case Submit():
                self._measure(order)
            case Cancel() | SetDeadline() | EndReasoning():
                self._inbox.put(order)  # first: an interrupted pass finds the reason in the inbox
                if isinstance(order, Cancel):
                    self.scheduler.interrupt(order.number)
            case SetLimits():
                # Here for what is measured next, in the model thread for what is computed next.
                self._model.preparation.context = min(order.context, self._context_max)
                self._model.preparation.reasoning_max = order.reasoning_budget
                self._inbox.put(order)
            case ForgetPrompts():
                self._inbox.put(order)
            case Shutdown():
                os._exit(0)
            case _:
                raise EngineError(f"an order of type {type(order).__name__} makes no sense now")

    def _measure(self, order: Submit) -> None:
        try:
            sequence = self._model.preparation.prepare(order, time.monotonic())
        except Refusal as refusal:
            self._refuse(order.number, refusal)
            return
        except Exception as error:  # noqa: BLE001 - around one question: the template and the schema are others' code
            # Not the error's own text, which may hold the prompt.
            at = traceback.extract_tb(error.__traceback__)[-1]
            reason = f"{type(error).__name__} in {at.name}, {Path(at.filename).name}:{at.lineno}"
            self._log("error", "question_not_measured", {"number": order.number, "reason": reason})
            self._refuse(
                order.number, Refusal("internal", "this node met a defect of its own with this question")
            )
            return
        if self._prefixes is not None and order.reuse:
            read_s = self.scheduler.counters.rates.read_s
            sequence.stored = self._prefixes.fetch(
                sequence.tokens, self.scheduler.slots.longest(sequence.tokens), read_s
            )
        hopeless = self.scheduler.promises.refusal(sequence, time.monotonic())
        if hopeless is not None:
            self._refuse(order.number, hopeless)
            return
        ahead, eta_s = self.scheduler.promises.estimate(sequence)
        self.scheduler.announce(sequence)
        self._channel.send(
            Prepared(order.number, sequence.prompt_tokens, sequence.context, ahead, round(eta_s, 3))
        )
        self._inbox.put(sequence)

    def _refuse(self, number: int, refusal: Refusal) -> None:
        self._channel.send(
            Refused(number, refusal.code, refusal.message, refusal.details, refusal.retry_after_ms)
        )

    # model thread ---------------------------------------------------------------------------------------

    def warm_up(self) -> None:
        """Touch the weights, build the graphs and take the first rates, before the node calls itself online.

        A GPU's driver compiles its code where a shape of pass first comes, which may take longer than the passes of
        a whole answer: so the longest pass is run as well, and what both took counts for no rate.
        """
        if self._model.gpus:
            for rows in (WARM_UP_TOKENS, self._model.passes.batch_tokens):
                self._warm_up(min(rows, self._context_max - WARM_UP_STEPS))
            self.scheduler.counters.rates = Rates()
        self._warm_up(WARM_UP_TOKENS)

    def _warm_up(self, rows: int) -> None:
        vocabulary, preparation = self._model.vocabulary, self._model.preparation
        tokens = (vocabulary.tokenize("The quick brown fox. ", special=False) or [0]) * rows
        order = Submit(
            0, "", (), "normal", None, None, 0.0, 1.0, 0, (), "hide", None, stream=False, reuse=False
        )
        sequence = Sequence(
            order=order,
            tokens=tokens[:rows],
            prompt_tokens=rows,
            text=AnswerText(),
            closing=[],
            room=WARM_UP_STEPS,
            budget=0,
            context=preparation.context,
            arrived=0.0,
            chunker=Chunker(0.0),
        )
        scheduler, emit = self.scheduler, self.scheduler.replace_emit(lambda _: None)
        scheduler.submit(sequence)
        while scheduler.step():
            pass
        scheduler.replace_emit(emit)

    def serve(self) -> None:
        """Step for ever; wait where there is nothing to do, and in a rest, but never longer than for a pulse.

        An order ends the wait: cancels, new questions and new limits are taken in the midst of a rest.
        """
        busy = False
        while True:
            self._drain(0.0 if busy else min(PULSE_S, self.scheduler.rest_s or PULSE_S))
            self._bound_pass()
            busy = self.scheduler.step()
            self._pulse(busy=busy)
            if self.scheduler.running or self.scheduler.waiting:
                self._rests_since = time.monotonic()
            elif not busy:
                self._keep(time.monotonic() - self._rests_since)

    def _bound_pass(self) -> None:
        """Let no pass be so long that it looks like a hang: a large `batch_tokens` is much for a slow board."""
        read_s = self.scheduler.counters.rates.read_s
        rows = int(self._pass_s / read_s) if read_s > 0 else self._rows_max
        self._model.passes.batch_tokens = min(self._rows_max, max(self._rows_min, rows))

    def _keep(self, rests_s: float) -> None:
        """Have one prompt written that may well be wanted again, if nothing was asked for `rests_s` seconds."""
        prefixes = self._prefixes
        if prefixes is None or rests_s < KEEP_AFTER_S or prefixes.writing:
            return
        for index, tokens in self.scheduler.slots.worthwhile(talks=rests_s >= KEEP_TALKS_AFTER_S):
            if (
                prefixes.wants(tokens)
                and (state := self.scheduler.slots.state(index, len(tokens))) is not None
            ):
                prefixes.put(tokens, state)
                return

    def _drain(self, wait_s: float) -> None:
        try:
            item = self._inbox.get(timeout=wait_s) if wait_s else self._inbox.get_nowait()
            while True:
                match item:
                    case Sequence():
                        self.scheduler.submit(item)
                    case Cancel(number):
                        self.scheduler.cancel(number)
                    case SetDeadline(number, deadline):
                        self.scheduler.set_deadline(number, deadline)
                    case EndReasoning(number):
                        self.scheduler.end_reasoning(number)
                    case SetLimits():
                        self.scheduler.limit(item)
                    case ForgetPrompts():
                        self.scheduler.slots.forget_idle()
                        if self._prefixes is None or self._prefixes.clear():
                            self._channel.send(PromptsForgotten())
                item = self._inbox.get_nowait()
        except queue.Empty:
            return

    def _pulse(self, *, busy: bool) -> None:
        now = time.monotonic()
        if now - self._pulsed_at < PULSE_S:
            return
        self._pulsed_at = now
        counters, scheduler = self.scheduler.counters, self.scheduler
        self._channel.send(
            Pulse(
                steps=counters.steps,
                running=scheduler.running,
                waiting=scheduler.waiting,
                busy=busy,
                decode_tokens_per_s=round(counters.rates.written_per_s, 1),
                prefill_tokens_per_s=_inverse(counters.rates.read_s),
                kv_tokens=scheduler.slots.held_tokens,
                context=self._model.preparation.context,
                slots=scheduler.limits.slots,
                pace=scheduler.limits.pace.share,
                paused=scheduler.limits.paused,
                prefix_bytes=self._prefixes.size_bytes if self._prefixes else 0,
                prefix_loads=self._prefixes.loads if self._prefixes else 0,
                alone_tokens_per_s=round(counters.rates.take_alone(), 1),
                drafted=counters.drafted,
                drafted_right=counters.drafted_right,
            )
        )


def _inverse(seconds: float) -> float:
    return round(1 / seconds, 1) if seconds > 0 else 0.0
