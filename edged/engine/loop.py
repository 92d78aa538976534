"""The model thread's loop: take in what was ordered, step, say that we live; at rest, have prompts written to disk.

The only one that calls the scheduler, but for what the intake thread may ask it. It learns of orders from its inbox
alone, so that between two steps everything is as the last one left it.
"""

from __future__ import annotations

import os
import queue
import time

from edged.core.batching import CHUNK_MIN
from edged.core.rates import per_s
from edged.engine.channel import Channel
from edged.engine.cores import Cores
from edged.engine.crowd import Crowd
from edged.engine.messages import (
    Cancel,
    EndReasoning,
    ForgetPrompts,
    Frame,
    Join,
    Log,
    PromptsForgotten,
    Pulse,
    SetLimits,
)
from edged.engine.ports import Passes
from edged.engine.prefixes import Prefixes
from edged.engine.prepare import Preparation
from edged.engine.scheduler import Scheduler
from edged.engine.sequence import Sequence

Inbox = queue.SimpleQueue[Sequence | Cancel | Join | EndReasoning | SetLimits | ForgetPrompts]
"""From the intake thread: measured questions, and the orders that are the scheduler's to carry out."""

PULSE_S = 0.5
"""Least time between two signs of life; the daemon's watchdog counts on them."""
PASS_SHARE = 1 / 8
"""Share of `hang_s` that a pass may take, by the measured rate: heat and other programs may slow it down."""
KEEP_AFTER_S, KEEP_TALKS_AFTER_S = 2.0, 20.0
"""Without a question for so long, prompts are written to disk; those of conversations later: they may go on."""


class Loop:
    """What the model thread does, for ever.

    Args:
        inbox: what is to be taken in.
        scheduler: runs the questions.
        prefixes: prompts on disk, where there are any.
        channel: to the daemon.
        passes: the model's; how long one may be is bounded from here.
        preparation: read for what a question may have just now.
        cores: how many there still are.
        crowd: who else wants them.
        hang_s: silence after which the daemon takes us for hung; the longest that a question may be measured.
    """

    def __init__(
        self,
        inbox: Inbox,
        scheduler: Scheduler,
        prefixes: Prefixes | None,
        channel: Channel[Frame, Frame],
        *,
        passes: Passes,
        preparation: Preparation,
        cores: Cores,
        crowd: Crowd,
        hang_s: float,
    ) -> None:
        self._inbox = inbox
        self._scheduler = scheduler
        self._passes = passes
        self._preparation = preparation
        self._cores = cores
        self._crowd = crowd
        self._prefixes = prefixes
        self._channel = channel
        self._pulsed_at = 0.0
        self._computed = False  # since the last pulse
        self._rests_since = time.monotonic()
        self._hang_s = hang_s
        self._rows_max, self._pass_s = passes.batch_tokens, PASS_SHARE * hang_s
        self._rows_min = min(self._rows_max, max(CHUNK_MIN, scheduler.limits.slots_max + 1))

    def run(self) -> None:
        """Step for ever; wait where there is nothing to do, and in a rest, but never longer than for a pulse.

        An order ends the wait: cancels, new questions and new limits are taken in the midst of a rest.
        """
        scheduler = self._scheduler
        busy = False
        while True:
            self._drain(0.0 if busy else min(PULSE_S, scheduler.rest_s or PULSE_S))
            self._bound_pass()
            busy = scheduler.step()
            self._computed |= busy
            self._pulse(busy=busy)
            if scheduler.running or scheduler.waiting:
                self._rests_since = time.monotonic()
            elif not busy:
                self._keep(time.monotonic() - self._rests_since)

    def _bound_pass(self) -> None:
        """Let no pass be so long that it looks like a hang: a large `batch_tokens` is much for a slow board."""
        read_s = self._scheduler.counters.rates.read_s
        rows = int(self._pass_s / read_s) if read_s > 0 else self._rows_max
        self._passes.batch_tokens = min(self._rows_max, max(self._rows_min, rows))

    def _keep(self, rests_s: float) -> None:
        """Have one prompt written that may well be wanted again, if nothing was asked for `rests_s` seconds."""
        prefixes, slots = self._prefixes, self._scheduler.slots
        if prefixes is None or rests_s < KEEP_AFTER_S or prefixes.writing:
            return
        for index, tokens in slots.worthwhile(talks=rests_s >= KEEP_TALKS_AFTER_S):
            if prefixes.wants(tokens) and (state := slots.state(index, len(tokens))) is not None:
                prefixes.put(tokens, state)
                return

    def _drain(self, wait_s: float) -> None:
        scheduler = self._scheduler
        try:
            item = self._inbox.get(timeout=wait_s) if wait_s else self._inbox.get_nowait()
            while True:
                match item:
                    case Sequence():
                        scheduler.submit(item)
                    case Cancel(number):
                        scheduler.cancel(number)
                    case Join(number, client, priority, deadline):
                        scheduler.join(number, client, priority, deadline)
                    case EndReasoning(number):
                        scheduler.end_reasoning(number)
                    case SetLimits():
                        scheduler.limit(item)
                    case ForgetPrompts():
                        scheduler.slots.forget_idle()
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
        since = self._preparation.since
        if since is not None and now - since > self._hang_s:  # nobody behind it is heard, not even a cancel
            reason = f"for {self._hang_s:g} s; the model's chat template may have no end"
            self._channel.send(Log("error", "question_not_measured", {"reason": reason}))
            os._exit(1)
        scheduler, prefixes = self._scheduler, self._prefixes
        cores = self._cores.left(scheduler.limits.threads_max)
        scheduler.confine(cores, spared=self._crowd.spare(cores, computed=self._computed))
        self._computed = False
        counters, limits = scheduler.counters, scheduler.limits
        self._channel.send(
            Pulse(
                steps=counters.steps,
                running=scheduler.running,
                waiting=scheduler.waiting,
                busy=busy,
                decode_tokens_per_s=round(counters.rates.written_per_s, 1),
                prefill_tokens_per_s=round(per_s(counters.rates.read_s), 1),
                kv_tokens=scheduler.slots.held_tokens,
                context=self._preparation.context,
                slots=limits.slots,
                pace=limits.pace.share,
                paused=limits.paused,
                prefix_bytes=prefixes.size_bytes if prefixes else 0,
                prefix_loads=prefixes.loads if prefixes else 0,
                alone_tokens_per_s=round(counters.rates.take_alone(), 1),
                drafted=counters.drafted,
                drafted_right=counters.drafted_right,
            )
        )
