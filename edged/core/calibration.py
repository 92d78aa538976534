"""What was measured once on this board with this model, and what the daemon makes of it.

Here live the measurements as values, the choice of thread counts from them, the file's content and the
judgement whether it still fits. Running the trials is `edged.engine.trials`, keeping the file an adapter's.
Pure functions, any thread.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from edged.core.huge_pages import Measured
from edged.errors import DECODE_ERRORS

FORMAT: Literal[1] = 1
FILE_BYTES_MAX = 64 * 1024
"""A file of 200 trials takes 20 KiB."""

KNEE_SHARE = 0.95
"""A thread count is good enough at this share of the best rate. Threads beyond it cost heat and the other
programs' time; on a Raspberry Pi 5 decoding gets slower with each beyond the second (Arm learning path
"llm-decode-roofline": 10.5, 12.4, 11.2, 9.9 tokens/s)."""

Kind = Literal["decode", "prefill"]
StepKind = Literal["memory", "decode", "prefill"]
Positive = Annotated[float, Meta(gt=0, le=1e15)]
Count = Annotated[int, Meta(ge=1, le=256)]
Index = Annotated[int, Meta(ge=0, lt=4096)]
Text = Annotated[str, Meta(max_length=256)]


class Trial(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One thread count on one set of cores.

    Attributes:
        tokens_per_s: the rate of each round, in order.
    """

    kind: Kind
    cores: Annotated[tuple[Index, ...], Meta(min_length=1, max_length=4096)]
    threads: Count
    tokens_per_s: Annotated[tuple[Positive, ...], Meta(min_length=1, max_length=100)]

    @property
    def rate(self) -> float:
        """Median of the rounds, tokens per second."""
        return statistics.median(self.tokens_per_s)

    @property
    def spread(self) -> float:
        """Standard deviation of the rounds, tokens per second; 0.0 for a single one."""
        return statistics.stdev(self.tokens_per_s) if len(self.tokens_per_s) > 1 else 0.0


class Key(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What the figures hold for: this model, on these cores of this board, with this llama.cpp.

    Attributes:
        model_sha256: where the settings name it; else size and time of change stand for the file.
        llama_cpp: version of llama-cpp-python, which is one of llama.cpp.
        gpu_layers: as the settings have it: with another share of the model on a GPU all rates are others.
    """

    model_bytes: Annotated[int, Meta(ge=1)]
    model_mtime_ns: int
    model_sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")] | None
    board: Text | None
    cores: Annotated[tuple[Index, ...], Meta(min_length=1, max_length=4096)]
    llama_cpp: Text
    gpu_layers: Annotated[int, Meta(ge=0)] = 0


class Calibration(msgspec.Struct, frozen=True, omit_defaults=True):
    """The file's content. What a later release adds under the same number may be skipped.

    Attributes:
        made_unix_s: wall clock of the measurement; for people only.
        decode_threads, prefill_threads: the chosen counts.
        decode_tokens_per_s, prefill_tokens_per_s: their rates, of one question alone with an almost empty cache.
        read_bytes_per_s: what the memory gives to plain reading, the best over thread counts.
        bytes_per_token, kv_bytes_per_token: read to compute one token, and besides for each token before it.
        others_share: share of the engine's cores that other programs took meanwhile; None where it is not told.
        notes: what makes the figures doubtful, in words.
        huge_pages: with them against without; None where there was nothing to choose. All other rates are of the
            way that was chosen.
    """

    format: Literal[1]
    edged: Text
    made_unix_s: Annotated[int, Meta(ge=0)]
    key: Key
    decode_threads: Count
    prefill_threads: Count
    decode_tokens_per_s: Positive
    prefill_tokens_per_s: Positive
    read_bytes_per_s: Positive | None
    bytes_per_token: Annotated[int, Meta(ge=1)]
    kv_bytes_per_token: Annotated[int, Meta(ge=0)]
    others_share: Annotated[float, Meta(ge=0, le=1)] | None
    notes: Annotated[tuple[Text, ...], Meta(max_length=10)]
    trials: Annotated[tuple[Trial, ...], Meta(max_length=500)]
    huge_pages: Measured | None = None

    def rates(self, decode_threads: int, prefill_threads: int) -> tuple[float, float] | None:
        """Decode and prefill rate with these counts on the engine's cores; None where one was not measured."""
        found = {
            (trial.kind, trial.threads): trial.rate for trial in self.trials if trial.cores == self.key.cores
        }
        decode, prefill = found.get(("decode", decode_threads)), found.get(("prefill", prefill_threads))
        return None if decode is None or prefill is None else (decode, prefill)

    def expected_decode(self, decode_tokens_per_s: float, kv_tokens: int) -> float:
        """Tokens per second to expect of one question with so many tokens before it, from the rate with none.

        Decoding is bound by what is read: the weights and, for each token before, its keys and values.
        """
        weights = float(self.bytes_per_token)
        return decode_tokens_per_s * weights / (weights + self.kv_bytes_per_token * max(0, kv_tokens))


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to time: a thread count on a set of cores."""

    kind: StepKind
    cores: tuple[int, ...]
    threads: int


def plan(engine: tuple[int, ...], allowed: Iterable[int], rounds: int) -> tuple[Step, ...]:
    """What to time, in order: the memory, then rounds over all thread counts.

    Rounds, not one count after the other, so that a board which grows hot or another program that wakes up
    touches all counts alike. Where the engine leaves cores to others, all allowed ones together are timed too:
    that shows what they would cost.

    Args:
        engine: the engine's cores.
        allowed: all cores that may be used.
        rounds: 1 or more.
    """
    counts = [(engine, count) for count in thread_counts(len(engine))]
    everything = tuple(sorted({*allowed, *engine}))
    if everything != engine:
        counts.append((everything, len(everything)))
    memory = tuple(Step("memory", cores, count) for cores, count in counts if cores == engine)
    kinds: tuple[Kind, ...] = ("decode", "prefill")
    one_round = tuple(Step(kind, cores, count) for cores, count in counts for kind in kinds)
    return memory + one_round * rounds


def gather(steps: Sequence[Step], per_s: Sequence[float]) -> tuple[tuple[Trial, ...], float | None]:
    """Put the rates of all steps together: the trials, and the best rate of reading memory in bytes per second."""
    rates: dict[Step, list[float]] = {}
    for step, rate in zip(steps, per_s, strict=True):
        rates.setdefault(step, []).append(rate)
    trials = tuple(
        Trial(step.kind, step.cores, step.threads, tuple(round(rate, 3) for rate in found))
        for step, found in rates.items()
        if step.kind != "memory"
    )
    read = max(
        (rate for step, found in rates.items() if step.kind == "memory" for rate in found), default=None
    )
    return trials, read


def thread_counts(cores: int) -> tuple[int, ...]:
    """Counts to try on so many cores: each up to 8, then ever larger steps, and all of them."""
    steps = [*range(1, 9), 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 128, 192, 256]
    return tuple(sorted({count for count in steps if count <= cores} | {min(cores, 256)}))


def knee(trials: Iterable[Trial]) -> Trial:
    """The smallest thread count within a few percent of the best rate.

    Raises:
        ValueError: there is no trial.
    """
    line = sorted(trials, key=lambda trial: trial.threads)
    if not line:
        raise ValueError("no trial to choose from")
    best = max(trial.rate for trial in line)
    return next(trial for trial in line if trial.rate >= KNEE_SHARE * best)


def of_kind(trials: Sequence[Trial], kind: Kind, cores: tuple[int, ...]) -> tuple[Trial, ...]:
    """The trials of one kind on one set of cores, by thread count."""
    found = [trial for trial in trials if trial.kind == kind and trial.cores == cores]
    return tuple(sorted(found, key=lambda trial: trial.threads))


def bandwidth_share(rate: float, read_bytes: int, read_bytes_per_s: float | None) -> float | None:
    """Share of the memory's read bandwidth that decoding at `rate` uses; above 1 where caches help."""
    return None if not read_bytes_per_s else rate * read_bytes / read_bytes_per_s


def encode(calibration: Calibration) -> bytes:
    """The file's bytes: indented JSON, for people may look into it."""
    return msgspec.json.format(msgspec.json.encode(calibration), indent=1) + b"\n"


def decode(content: bytes) -> Calibration:
    """Read the file's bytes.

    Raises:
        ValueError: they are damaged, of another format, or contradict themselves.
    """
    if len(content) > FILE_BYTES_MAX:
        raise ValueError(f"it is longer than {FILE_BYTES_MAX} bytes")
    try:
        found = msgspec.json.decode(content, type=Calibration)
    except DECODE_ERRORS as error:
        raise ValueError(f"it is damaged, or of another version: {error}") from error
    most = len(found.key.cores)
    if found.decode_threads > most or found.prefill_threads > most:
        raise ValueError(f"it asks for more threads than its {most} cores")
    return found


def misfit(found: Key, now: Key) -> str | None:
    """Why a calibration does not hold any more, in words; None where it does."""
    if found.llama_cpp != now.llama_cpp:
        return f"it was made with llama-cpp-python {found.llama_cpp}, this is {now.llama_cpp}"
    if found.board != now.board:
        return f"it was made on {found.board or 'a board without a name'}, this is {now.board or 'another'}"
    if found.cores != now.cores:
        return "it was made on other cores than the engine's"
    if found.gpu_layers != now.gpu_layers:
        return f"it was made with engine.gpu_layers = {found.gpu_layers}, this is {now.gpu_layers}"
    if found.model_sha256 and now.model_sha256:
        return None if found.model_sha256 == now.model_sha256 else "it was made with another model"
    same = (found.model_bytes, found.model_mtime_ns) == (now.model_bytes, now.model_mtime_ns)
    return None if same else "it was made with another model, or the file was written anew"
