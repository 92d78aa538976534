"""Loads a model and times it, for `edged calibrate` and `bench`; `edged.engine.trial_process` begins it.

Not part of a running node: its own process, because llama.cpp may abort, and because a calibration must not
share a context with questions. Orders come through the socket `FD` one by one; it ends when that closes.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np

from edged.child import do_without_huge_pages, end_with_parent
from edged.core.batching import rows_for
from edged.engine import llama
from edged.engine.channel import Channel
from edged.engine.loading import check_file, why
from edged.engine.trial_messages import (
    Describe,
    Failed,
    Frame,
    Loaded,
    LoadTrial,
    Ran,
    ReadMemory,
    RunPasses,
    TrialOrder,
)
from edged.errors import EngineError, ModelError

DECODE_TOKENS_MIN = 4
PROBE_ROWS, ROWS_MIN = 16, 32
"""Rows of the pass that finds out how fast prefill is, and the fewest of one that is timed."""
MEMORY_ROUNDS = 3


class Bench:
    """A loaded model and the timing of it."""

    def __init__(self, setup: LoadTrial) -> None:
        _run_on(setup.cores)
        if not setup.huge_pages:
            do_without_huge_pages()
        path = Path(setup.model_path)
        self.file_bytes = check_file(path, setup.sha256)
        complaints: list[str] = []
        llama.start(lambda level, text: complaints.append(text) if level == "error" else None)
        try:
            self.model = llama.Model(path, gpu_layers=setup.gpu_layers)
            self._context = llama.Context(
                self.model,
                sequences=1,
                context=setup.context,
                batch_tokens=min(setup.batch_tokens or rows_for(self.model.width), setup.context),
                threads=setup.threads,
                kv_type=setup.kv_type,
                flash_attention=setup.flash_attention,
            )
        except ModelError as error:
            raise ModelError(f"{error}{why(complaints, setup.gpu_layers)}") from error
        self._room = setup.context
        self._past = 0

    def run(self, order: RunPasses) -> Ran:
        """Time passes."""
        _run_on(order.cores)
        self._context.forget(0)
        self._past = 0
        while self._past < order.depth:
            self._pass(min(self._context.batch_tokens, order.depth - self._past), order.threads)
        return self._prefill(order) if order.kind == "prefill" else self._decode(order)

    def _decode(self, order: RunPasses) -> Ran:
        self._pass(1, order.threads)  # builds the graph and the threads of this count
        done, begun = 0, time.perf_counter()
        while done < order.tokens and self._past < self._room:
            self._pass(1, order.threads)
            done += 1
            if order.seconds and done >= DECODE_TOKENS_MIN and time.perf_counter() - begun > order.seconds:
                break
        return Ran(done, time.perf_counter() - begun)

    def _prefill(self, order: RunPasses) -> Ran:
        rows = self._context.batch_tokens
        if order.seconds:
            self._pass(min(PROBE_ROWS, rows), order.threads)
            begun = time.perf_counter()
            self._pass(min(PROBE_ROWS, rows), order.threads)
            guess = min(PROBE_ROWS, rows) / (time.perf_counter() - begun) * order.seconds
            rows = min(rows, max(ROWS_MIN, int(guess)))
            self._context.forget(0)
            self._past = 0
        done, begun = 0, time.perf_counter()
        while done < order.tokens:
            if self._past + rows > self._room:
                self._context.forget(0)
                self._past = 0
            count = min(rows, order.tokens - done)
            self._pass(count, order.threads)
            done += count
            if order.seconds and time.perf_counter() - begun > order.seconds:
                break
        return Ran(done, time.perf_counter() - begun)

    def _pass(self, rows: int, threads: int) -> None:
        """Compute `rows` tokens more; which ones does not matter to the speed, as long as they differ."""
        first = 100 + self._past * 7919
        for row in range(rows):
            token = (first + row * 104_729) % self.model.vocabulary
            self._context.add(token, self._past + row, 0, logits=row == rows - 1)
        code = self._context.decode(threads)
        if code != 0:
            raise EngineError(f"llama_decode returned {code} for {rows} rows")
        self._past += rows


def read_memory(order: ReadMemory) -> Ran:
    """Time plain reading: each thread looks for the largest of its share of numbers, the best of some rounds.

    numpy lets other threads run meanwhile and reads faster than memory answers, with SIMD on both architectures.
    """
    _run_on(order.cores)
    numbers = np.ones(max(1, order.size_bytes // 8), dtype=np.int64)
    shares = np.array_split(numbers, order.threads)
    best = min(_timed_together([share.max for share in shares]) for _ in range(MEMORY_ROUNDS))
    return Ran(numbers.nbytes, best)


def _timed_together(works: list[Callable[[], object]]) -> float:
    if len(works) == 1:
        begun = time.perf_counter()
        works[0]()
        return time.perf_counter() - begun
    gate = threading.Barrier(len(works) + 1)

    def wait_and(work: Callable[[], object]) -> None:
        gate.wait()
        work()

    threads = [threading.Thread(target=wait_and, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    gate.wait()
    begun = time.perf_counter()
    for thread in threads:
        thread.join()
    return time.perf_counter() - begun


def _run_on(cores: tuple[int, ...]) -> None:
    """Move every thread of this process: OpenMP's live on from one trial to the next."""
    for task in Path("/proc/self/task").iterdir():
        try:
            os.sched_setaffinity(int(task.name), cores)
        except ProcessLookupError:
            continue  # it has just ended


def run(fd: int) -> int:
    """Carry out orders until the other end closes; returns the exit code of the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's ctrl-C is for whoever started us
    end_with_parent()
    channel: Channel[Frame, Frame] = Channel(socket.socket(fileno=fd), cast("Any", TrialOrder))
    bench: Bench | None = None
    try:
        for order in channel.receive():
            try:
                match order:
                    case LoadTrial():
                        bench = Bench(order)
                        channel.send(
                            Loaded(
                                bench.model.description,
                                bench.model.parameters,
                                bench.file_bytes,
                                llama.system_info(),
                            )
                        )
                    case Describe():
                        llama.start(lambda _level, _text: None)
                        channel.send(
                            Loaded("", 0, 0, llama.system_info(), llama.gpus(), llama.gpu_backends())
                        )
                    case RunPasses() if bench is not None:
                        channel.send(bench.run(order))
                    case ReadMemory():
                        channel.send(read_memory(order))
                    case _:
                        channel.send(Failed("no model was loaded before"))
            except (ModelError, EngineError, OSError, MemoryError) as error:
                channel.send(Failed(str(error) or "there is not enough memory"))
    except (BrokenPipeError, ConnectionResetError):
        pass  # nobody is left to tell
    return 0
