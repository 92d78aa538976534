"""The engine's keeper: starts it, notices when it dies, hangs or cannot load, and starts it again.

Belongs to the dispatcher thread. A model that cannot be used is tried again when its files change, and now and
then; a crash is followed by a start with back-off; a process that neither steps nor sends is killed.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec
import structlog

from edged.core.batching import ROWS_MAX
from edged.core.news import Phase
from edged.core.ration import worth_a_line
from edged.engine import exit_code
from edged.engine.client import EngineGone
from edged.engine.messages import Configure, LoadFailed, Order, Pulse, Ready, SetLimits
from edged.errors import DiedError

LOOK_S = 2.0
"""How often the files of a model that cannot be used are looked at."""
AGAIN_MIN_S, AGAIN_MAX_S = 60.0, 3600.0
"""A model that could not be used is tried again after so long though its files are the same, and then after twice
as long: a card that once did not read, or memory that was short, leaves no trace in them."""
RETRY_MAX_S = 30.0
"""The longest pause before an engine that crashed is started again."""
SAY_AGAIN = 2048
"""Crashes of an engine that never comes up are told at each doubling, in the end one in so many: each 17 hours."""
STEADY_S = 60.0
"""An engine that lived this long, or answered a question, was well: the next crash begins the back-off anew."""
BROKEN_AFTER = 3
"""Crashes in a row, before ever being ready, after which new questions are refused."""

AWAY_S = 2.0
"""The dispatcher looks after the engine some times a second. After a longer while it was away itself: stopped
(ctrl-Z, a paused container, the cgroup freezer) or held up by a write, and what the engine said is still unread."""

HANG_MIN_S, HANG_PASSES = 10.0, 20
"""A pass may take this many times its measured length, and in any case some seconds, before it counts as hung."""
CONTEXT_STEP = 256

Trace = tuple[tuple[int, ...], ...] | None
"""What tells files from others that take their place; None where one cannot be seen."""

log = structlog.get_logger()


class Process(Protocol):
    """`edged.engine.client.EngineClient`, as far as its keeper needs it."""

    run: int

    def start(self, setup: Configure) -> None:
        """Start a process."""

    def send(self, order: Order) -> None:
        """Give an order."""

    def kill(self) -> None:
        """End the process at once."""


@dataclass(slots=True)
class Supervision:
    """Keeps one engine running.

    Attributes:
        process: the engine.
        setup: what to load and how.
        context_min: the context is not made smaller than this when memory runs out.
        hang_s: without a sign of life for so long the engine counts as hung, at the latest.
        start_timeout_s: the same while it loads.
        clock: monotonic seconds.
        oom_kills: how often the kernel has ended a process for want of memory; None where it does not say.
        updated: whether the program's files are others than those that run here: their engine speaks otherwise.
        phase: `starting`, `ready`, `failed` (the model cannot be used), `broken` (it keeps crashing).
        reason: why it is not ready.
        ready_report: what the running engine said of itself.
        pulse: its latest sign of life.
        restarts: starts after a crash.
        limits: the latest ones; each engine that starts is told them.
        quiet: the latest crash is one of many alike, and neither it nor the start behind it is news.
        replacing: the process is being ended to make room for one with another set-up: no crash.
        reverted: why another set-up was given up again; empty otherwise.
    """

    process: Process
    setup: Configure
    context_min: int
    hang_s: float
    start_timeout_s: float
    clock: Callable[[], float]
    oom_kills: Callable[[], int | None] = lambda: None
    updated: Callable[[], bool] = lambda: False
    phase: Phase = "starting"
    reason: str = ""
    ready_report: Ready | None = None
    pulse: Pulse | None = None
    restarts: int = 0
    limits: SetLimits | None = None
    quiet: bool = False
    replacing: bool = False
    reverted: str = ""
    stopping: bool = False
    _next_setup: Configure | None = None
    _fallback: Configure | None = None
    _alive: bool = False
    _answered: bool = False
    _oom_kills: int | None = None
    _heard_at: float = 0.0
    _looked_at: float = 0.0
    _started_at: float = 0.0
    _next_start: float | None = None
    _crashes: int = 0
    _failures: int = 0
    _files: Trace = None
    _seen: Trace = None

    @property
    def ready(self) -> bool:
        """Whether orders are taken."""
        return self.phase == "ready"

    @property
    def computing(self) -> bool:
        """Whether the engine has work that heats the board, by its last pulse.

        A question may well run and none of this be: at the larger server, while its tools run, in a pause.
        """
        return self.pulse is not None and self.pulse.running > 0 and not self.pulse.paused

    @property
    def run(self) -> int:
        """Number of the current process; reports of others are stale."""
        return self.process.run

    def start(self) -> None:
        """Start the engine."""
        now = self.clock()
        self._files = _trace(self.setup)
        self._next_start = None
        self._heard_at = self._started_at = self._looked_at = now
        self._alive, self._answered = True, False
        self._oom_kills = self.oom_kills()
        if self.phase == "ready":
            self.phase = "starting"
        self.process.start(self.setup)
        say = log.debug if self.quiet else log.info
        say("engine_starting", run=self.process.run, model=self.setup.model_path)
        self.quiet = False

    def send(self, order: Order) -> None:
        """Give an order to an engine that is ready; to another one it would be lost anyway."""
        if self.ready:
            self.process.send(order)

    def limit(self, limits: SetLimits) -> None:
        """Tell this engine, and each one that follows it, what it may do from now on."""
        if limits != self.limits:
            self.limits = limits
            self.send(limits)

    def prepare(self, setup: Configure) -> None:
        """Keep another set-up for `replace`."""
        self._next_setup = setup

    def replace(self) -> None:
        """End this engine and start one with the set-up that was prepared; if it cannot load, the old is back."""
        setup, self._next_setup = self._next_setup, None
        if setup is None:
            return
        self._fallback, self.setup, self.reverted = self.setup, setup, ""
        log.info("engine_replaced", before=self._fallback.model_path, model=setup.model_path)
        self.replacing = self._alive
        if self._alive:
            self.process.kill()
        else:
            self.phase, self._next_start = "starting", self.clock()

    def _revert(self, reason: str) -> bool:
        """Go back to the set-up that worked, where one was left for another."""
        if self._fallback is None:
            return False
        log.error("engine_reverted", model=self.setup.model_path, reason=reason)
        self.setup, self._fallback, self.reverted = self._fallback, None, reason
        return True

    def heard(self) -> None:
        """The process said something."""
        self._heard_at = self.clock()

    def answered(self) -> None:
        """A question was answered."""
        self._answered = True

    def became_ready(self, report: Ready) -> None:
        """The model is loaded and warm."""
        self.phase, self.reason = "ready", ""
        self._fallback, self._failures = None, 0
        self.ready_report = report
        if self.limits is not None:
            self.send(self.limits)
        log.info(
            "engine_ready",
            model=report.model.name,
            quantisation=report.model.quantisation,
            load_s=report.load_s,
            cores=list(report.cores),
            decode_threads=report.decode_threads,
            prefill_threads=report.prefill_threads,
            **({"gpus": list(report.gpus)} if report.gpus else {}),
        )

    def load_failed(self, report: LoadFailed) -> None:
        """The model cannot be used: say so, and look at its files from now on."""
        if self._revert(report.reason):
            self.replacing = True  # its end follows
            return
        self.phase, self.reason = "failed", report.reason
        self._seen = self._files
        self._failures += 1
        log.error("model_failed", reason=report.reason)

    def gone(self, event: EngineGone) -> None:
        """The process ended."""
        self._alive = False
        self.pulse = None
        if self.stopping:
            return
        now = self.clock()
        if self.replacing:
            self.replacing = False
            self.phase, self.reason = "starting", "another model loads"
            self._next_start, self._crashes = now, 0
            return
        if self.phase == "failed":
            self._next_start = now + LOOK_S
            return
        how = event.why or exit_code.words(event.code)
        advice = "" if self.ready or event.why else exit_code.advice(event.code)
        if not self.ready and self._revert(f"the engine ended with {how}{advice or ' while it loaded'}"):
            self._next_start = now
            return
        if event.code == -signal.SIGKILL and self.oom_kills() != self._oom_kills:
            self._shrink()
        was_well = self._answered or now - self._started_at > STEADY_S
        self._crashes = 1 if self.ready and was_well else self._crashes + 1
        was_ready, before = self.ready, self.reason
        self.reason = event.why or f"it ended with {how}{advice}"
        if not was_ready and self._crashes >= BROKEN_AFTER:
            self.phase = "broken"
        elif self.phase != "broken":
            self.phase = "starting"
        self.restarts += 1
        doublings = min(self._crashes - 1, 8)  # beyond the bound; of crashes there may be any number
        delay_s = min(RETRY_MAX_S, 0.25 * 2.0**doublings)
        self._next_start = now + delay_s
        news = worth_a_line(self._crashes, first=BROKEN_AFTER, then_each=SAY_AGAIN)
        self.quiet = not was_ready and self.reason == before and not news
        say = log.debug if self.quiet else log.error
        told = {"how": how + advice, "was_ready": was_ready, "crashes": self._crashes, "again_in_s": delay_s}
        say("engine_gone", **told)

    def tick(self) -> None:
        """Look after it: kill a hung process, start a new one where it is time.

        Silence counts while somebody listens: nobody did while we were away ourselves.

        Raises:
            DiedError: the engine that is due would be another version's.
        """
        now = self.clock()
        if now - self._looked_at > AWAY_S:
            self._heard_at = min(now, self._heard_at + now - self._looked_at)
        self._looked_at = now
        if self._alive:
            if now - self._heard_at > self._silence_s():
                log.error("engine_hung", silent_s=round(now - self._heard_at, 1))
                self._heard_at = now
                self.process.kill()
            return
        if self._next_start is None or now < self._next_start or self.stopping:
            return
        if self.phase == "failed" and not self._worth_a_try(now):
            return
        if self.updated():
            raise DiedError("edged was updated while it ran; its new version goes on when it is started anew")
        self.start()

    def healthy(self) -> bool:
        """Whether the watchdog may be fed: the engine is silent no longer than it may be."""
        if not self._alive:
            return True
        return self.clock() - self._heard_at <= self._silence_s() + LOOK_S

    def _silence_s(self) -> float:
        """How long the engine may say nothing: some times the longest pass that its measured speed allows.

        An engine that rests by its pace or is paused says so in its pulses, so neither looks like a hang.
        """
        if not self.ready:
            return self.start_timeout_s
        rate = self.pulse.prefill_tokens_per_s if self.pulse else 0.0
        if rate == 0.0:
            return self.hang_s
        rows = self.setup.batch_tokens or ROWS_MAX
        return min(self.hang_s, max(HANG_MIN_S, HANG_PASSES * rows / rate))

    def _shrink(self) -> None:
        """Memory ran out: the next start asks for a smaller KV cache."""
        context = max(self.context_min, self.setup.context - CONTEXT_STEP)
        if context < self.setup.context:
            log.warning("context_lowered", before=self.setup.context, context=context)
            self.setup = msgspec.structs.replace(self.setup, context=context)

    def _worth_a_try(self, now: float) -> bool:
        """Whether the model that failed may load by now.

        With other files it is `starting`. With the same ones it stays `failed`: nobody shall wait for it.
        """
        if self._files_changed(now):
            self.phase, self._failures = "starting", 0
            return True
        doublings = min(self._failures - 1, 8)
        return now - self._started_at >= min(AGAIN_MAX_S, AGAIN_MIN_S * 2.0**doublings)

    def _files_changed(self, now: float) -> bool:
        """True when the files differ from those that failed, and have been still since the last look.

        A model is copied for minutes: a file that still grows would fail again.
        """
        self._next_start = now + LOOK_S
        current = _trace(self.setup)
        still = current == self._seen
        self._seen = current
        return still and current is not None and current != self._files


def _trace(setup: Configure) -> Trace:
    """What model and template are to be read from, and by whom they may be."""
    paths = (setup.model_path, setup.chat_template)
    try:
        found = [Path(path).stat() for path in paths if path is not None]
    except OSError:
        return None
    return tuple((one.st_ino, one.st_size, one.st_mtime_ns, one.st_ctime_ns) for one in found)
