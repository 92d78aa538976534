"""The model file: whether it is whole, what it is, whether it fits into memory, and the calibration for it."""

from __future__ import annotations

from dataclasses import dataclass

from edged.core.calibration import Calibration
from edged.core.checks.verdict import Verdict, failure, ok, unknown, warning
from edged.core.model_shape import Shape

BILLION = 10**9
BEYOND_BYTES = 205_000_000
"""Both processes beyond weights and KV cache: measured 116 to 135 MB with a vocabulary of 49k tokens and 152 to 201
with 152k, at rest and after a schema (`tests/bench/memory.py`)."""
FREE_SHARE = 0.15
"""Share of a board's memory that stays free of us, for the kernel, the broker, updates: what MemoryMax= of the unit
leaves."""


@dataclass(frozen=True, slots=True)
class Room:
    """What the settings ask of memory."""

    slots: int = 4
    context_max: int = 2048
    kv_type: str = "f16"


def file(shape: Shape | None, size_bytes: int, missing_bytes: int, reason: str) -> Verdict:
    """Whether there is a model, and all of it."""
    if shape is None:
        words, _, mend = reason.partition("; ")
        return failure("model", words, mend or "put the file there, or correct model.path")
    if missing_bytes:
        words = f"the file was cut: {missing_bytes / 1e6:.1f} MB of its tensors are missing"
        return failure("model", words, "copy the model again, and compare sha256sum")
    name = f"{shape.name}, {shape.architecture}" if shape.name else shape.architecture
    many = shape.parameters
    parameters = (
        f"{many / 1e9:.2f} billion weights" if many >= BILLION else f"{many / 1e6:.0f} million weights"
    )
    return ok("model", f"{name}, {parameters}, {size_bytes / 1e6:.0f} MB")


def quantisation(shape: Shape, path: str) -> Verdict:
    """Q4_0 is what llama.cpp repacks for the CPU's dot products."""
    if shape.quantisation == "Q4_0":
        return ok("format", f"Q4_0, {shape.bytes_per_token / 1e6:.0f} MB read a token")
    words = f"mostly {shape.quantisation}: llama.cpp is fastest on these CPUs with Q4_0"
    return warning("format", words, f"edged model add --q4-0 {path}, and set model.path to what it prints")


def sha256(wanted: str | None, found: str | None) -> Verdict:
    """Damaged weights load without a complaint: only a hash finds them."""
    if wanted is None:
        mend = f'under [model]: sha256 = "{found}"' if found else "sha256sum the file, and set model.sha256"
        return warning("hash", "model.sha256 is not set: damaged weights would not be noticed", mend)
    if found is None:
        return unknown("hash", "not computed (--quick)")
    if found != wanted:
        return failure(
            "hash", f"the file's SHA-256 is {found[:12]}..., not the one in model.sha256", "copy it again"
        )
    return ok("hash", f"SHA-256 {found[:12]}... as set")


def template(shape: Shape, *, configured: bool, reason: str = "") -> Verdict:
    """How conversations are written for the model; `reason`: why the one in the settings cannot be used."""
    if reason:
        words, _, mend = reason.rpartition("; ")
        return failure("template", words, mend)
    if shape.has_template or configured:
        return ok("template", "of the settings" if configured else "of the file")
    return warning(
        "template", "the file brings no chat template: ChatML is assumed", "set model.chat_template"
    )


def memory(
    shape: Shape,
    room: Room,
    total_bytes: int | None,
    available_bytes: int | None,
    running: bool,  # noqa: FBT001 - as above
) -> Verdict:
    """Weights, KV cache and code against the board's memory.

    Args:
        shape: of the model.
        room: what the settings ask for.
        total_bytes: the board's memory.
        available_bytes: what is free of it.
        running: a daemon with this model is up: what is free counts as it is then.
    """
    kv_bytes = shape.kv_bytes(room.slots * room.context_max, room.kv_type)
    need = shape.weight_bytes + kv_bytes + BEYOND_BYTES
    words = (
        f"{_mb(need)}: weights {_mb(shape.weight_bytes)}, KV cache {_mb(kv_bytes)} "
        f"({room.slots} x {room.context_max} tokens)"
    )
    if total_bytes is None or available_bytes is None:
        return unknown("memory", f"needs {words}")
    words = f"{words}; {available_bytes / 1e6:.0f} of {_mb(total_bytes)} free"
    mend = "lower engine.slots or engine.context_max" + (
        '; kv_type = "q8_0"' if room.kv_type == "f16" else ""
    )
    if need > (1 - FREE_SHARE) * total_bytes:
        return failure("memory", f"needs {words}", mend)
    if not running and need > available_bytes:
        return warning("memory", f"needs {words}", f"end what holds the rest, or {mend}")
    return ok("memory", f"needs {words}")


def context(shape: Shape, room: Room) -> Verdict | None:
    """A context longer than the model was trained for gives nonsense; None where it is well."""
    if shape.context_trained is None or room.context_max <= shape.context_trained:
        return None
    words = (
        f"engine.context_max is {room.context_max}, the model was trained for {shape.context_trained} tokens"
    )
    return warning("context", words, f"context_max = {shape.context_trained}")


def calibration(made: Calibration | None, reason: str | None, mend: str) -> Verdict:
    """Whether the daemon knows its board; `mend`: the command that measures it."""
    if reason is not None:
        return warning("calibration", reason, mend)
    if made is None:
        return warning("calibration", "none: thread counts are guessed, ETAs begin with a warm-up's", mend)
    words = (
        f"decode {made.decode_tokens_per_s:.1f} tokens/s with {made.decode_threads}, "
        f"prefill {made.prefill_tokens_per_s:.0f} with {made.prefill_threads} threads"
    )
    if made.notes:
        return warning("calibration", f"{words}; {made.notes[0]}", mend)
    return ok("calibration", words)


def _mb(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.0f} MB"
