"""What is said between whoever measures and the process that runs the trials: one msgpack frame a message.

Both sides import this file. Orders are answered one by one, in order.
"""

from __future__ import annotations

from typing import Literal

import msgspec


class Frame(msgspec.Struct, frozen=True, tag_field="t", array_like=True):
    """Root of all messages."""


class LoadTrial(Frame, frozen=True, tag="load"):
    """First order: load this, with room for `context` tokens, on these cores; answered by `Loaded` or `Failed`.

    Attributes:
        batch_tokens: rows of a pass; None leaves it to the model, see `rows_for`.
        huge_pages: as for an engine, see `Configure`.
    """

    model_path: str
    sha256: str | None
    batch_tokens: int | None
    context: int
    cores: tuple[int, ...]
    threads: int
    kv_type: str = "f16"
    flash_attention: str = "auto"
    gpu_layers: int = 0
    huge_pages: bool = True


class Describe(Frame, frozen=True, tag="describe"):
    """Load llama.cpp and no model; answered by `Loaded` with `system_info` and what there is of GPUs."""


class RunPasses(Frame, frozen=True, tag="passes"):
    """Compute tokens and time them; answered by `Ran`.

    Attributes:
        kind: `prefill` many tokens a pass, `decode` one.
        tokens: at most so many; exactly so many where `seconds` is 0.
        seconds: about so long, and at least a few tokens.
        depth: tokens that stand in the cache before; not timed.
    """

    kind: Literal["decode", "prefill"]
    cores: tuple[int, ...]
    threads: int
    tokens: int
    seconds: float = 0.0
    depth: int = 0


class ReadMemory(Frame, frozen=True, tag="memory"):
    """Read memory with so many threads and time it; answered by `Ran`, in bytes."""

    cores: tuple[int, ...]
    threads: int
    size_bytes: int


class Loaded(Frame, frozen=True, tag="loaded"):
    """The model is there.

    Attributes:
        description: architecture, size and quantisation, such as `llama 134M Q4_0`.
        system_info: instruction sets that llama.cpp uses, in its own words.
        gpus, gpu_backends: the GPUs that it finds, and the kinds that it was built for.
    """

    description: str
    parameters: int
    file_bytes: int
    system_info: str
    gpus: tuple[str, ...] = ()
    gpu_backends: tuple[str, ...] = ()


class Ran(Frame, frozen=True, tag="ran"):
    """So many tokens (or bytes) took so many seconds."""

    amount: int
    seconds: float


class Failed(Frame, frozen=True, tag="failed"):
    """It cannot be done; the text says why and what to do."""

    reason: str


TrialOrder = LoadTrial | Describe | RunPasses | ReadMemory
TrialReport = Loaded | Ran | Failed
