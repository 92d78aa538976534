"""The engine process until it is ready: what it asks of the machine, the model loaded and warmed up, two threads.

Started by `edged.engine.client` with one end of a socket pair; ends when that socket closes, so it never
outlives its daemon. The intake thread reads orders and measures questions, see `intake`; the model thread,
which is the main one, steps, see `loop`. It is pinned before it touches llama.cpp, because worker threads
inherit the mask of the thread that makes them.
"""

from __future__ import annotations

import os
import queue
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from edged.child import do_without_huge_pages, end_with_parent, offer_to_oom_killer
from edged.core.rates import per_s
from edged.engine.channel import Channel
from edged.engine.cores import Cores, Say
from edged.engine.crowd import Crowd
from edged.engine.intake import Intake
from edged.engine.locked import ADVICE, lock_memory
from edged.engine.loop import Inbox, Loop
from edged.engine.messages import Configure, Frame, LoadFailed, Log, ModelInfo, Order, Ready
from edged.engine.ports import MakeChooser, Passes, Vocabulary
from edged.engine.prefixes import Prefixes, erase
from edged.engine.prepare import Preparation
from edged.engine.scheduler import Scheduler
from edged.engine.warm_up import warm_up
from edged.errors import LibraryError, ModelError

OOM_SCORE_ADJ = 500


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

Raises `ModelError` where the file is at fault, `LibraryError` where llama.cpp is."""


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
    setup = next(orders, None)
    if not isinstance(setup, Configure):
        return 0
    started = time.monotonic()

    def say(level: str, event: str, fields: dict[str, Any]) -> None:
        with suppress(OSError):  # the daemon is gone, and we are about to be
            channel.send(Log(cast("Any", level), event, fields))

    cores = Cores(setup.cores, say)
    cores.left(setup.prefill_threads)
    if not setup.huge_pages:
        do_without_huge_pages()

    def log(level: str, text: str) -> None:
        channel.send(Log(cast("Any", level), "llama_cpp", {"text": text[:500]}))

    try:
        model = load(setup, log)
    except (LibraryError, ModelError) as error:
        channel.send(LoadFailed(str(error)))
        return 0
    if model.gpu_missed:
        channel.send(Log("warning", "gpu_not_used", {"reason": model.gpu_missed}))
    if 0 < model.info.context_trained < setup.context:
        reason = (
            f"the model was trained for {model.info.context_trained} tokens: beyond them it writes nonsense; "
            "lower engine.context_max"
        )
        channel.send(Log("warning", "context_too_long", {"context": setup.context, "reason": reason}))
    prefixes = _open_prefixes(setup, model, say)
    scheduler = Scheduler(
        model.vocabulary,
        model.passes,
        model.make_chooser,
        slots=setup.slots,
        decode_threads=setup.decode_threads,
        prefill_threads=setup.prefill_threads,
        emit=lambda reports: channel.send(*reports),
    )
    scheduler.confine(cores.left(scheduler.limits.threads_max))
    longest = model.passes.batch_tokens if model.gpus else None
    warm_up(scheduler, model.vocabulary, context=setup.context, longest=longest)
    scheduler.drafts.most = setup.draft_max  # from here on: the first rates are those without
    if setup.lock_memory and (reason := lock_memory()):
        channel.send(Log("warning", "memory_not_locked", {"reason": f"{reason}; {ADVICE}"}))
    rates = scheduler.counters.rates
    if setup.step_s > 0 and setup.read_s > 0:
        rates.expect(setup.step_s, setup.read_s)
    channel.send(
        Ready(
            model=model.info,
            cores=tuple(sorted(os.sched_getaffinity(0))),
            decode_threads=setup.decode_threads,
            prefill_threads=setup.prefill_threads,
            prefill_tokens_per_s=round(per_s(rates.read_s), 1),
            decode_tokens_per_s=round(per_s(rates.step_s), 1),
            load_s=round(time.monotonic() - started, 3),
            gpus=model.gpus,
        )
    )
    inbox: Inbox = queue.SimpleQueue()
    intake = Intake(inbox, scheduler, model.preparation, prefixes, channel, context_max=setup.context)
    threading.Thread(target=intake.run, args=(orders,), name="intake", daemon=True).start()
    Loop(
        inbox,
        scheduler,
        prefixes,
        channel,
        passes=model.passes,
        preparation=model.preparation,
        cores=cores,
        crowd=Crowd(say),
        hang_s=setup.hang_s,
    ).run()
    return 0


def _open_prefixes(setup: Configure, model: LoadedModel, say: Say) -> Prefixes | None:
    if not setup.prefix_folder or not model.state_key:
        return None
    folder = Path(setup.prefix_folder)
    if setup.prefix_bytes:
        size = model.info.kv_bytes_per_token
        return Prefixes(
            folder, model.state_key, setup.prefix_bytes, say, token_bytes=size, least=model.passes.least
        )
    erase(folder)
    return None
