"""What the daemon and the engine process say to each other: one msgpack frame a message.

Both sides import this file; neither imports the other. Times are seconds of CLOCK_MONOTONIC, which the two
processes share (clock_gettime(2)).
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from edged.core.answer_text import Kind
from edged.core.question import Message, Priority, ReasoningMode
from edged.core.reply import FinishReason, Timings, Usage
from edged.core.tools import Call, Mode, Tool
from edged.errors import Code


class Frame(msgspec.Struct, frozen=True, tag_field="t", array_like=True):
    """Root of all messages; arrays on the wire, so a step's event costs tens of bytes."""


# daemon to engine ---------------------------------------------------------------------------------------


class Configure(Frame, frozen=True, tag="configure"):
    """First message of a session: what to load and how to run it. `[engine]` in settings explains each.

    Attributes:
        batch_tokens: rows of a pass; None leaves it to the model, see `rows_for`.
        step_s, read_s: seconds of a pass that writes and to read one token of a prompt, as calibrated with these
            thread counts: what ETAs begin with. 0.0 where that is not known.
        huge_pages: False keeps the model's memory in pages of the usual size.
        hang_s: silence after which the daemon takes the engine for hung: no pass may come near that.
    """

    model_path: str
    sha256: str | None
    name: str | None
    chat_template: str | None
    slots: int
    context: int
    batch_tokens: int | None
    decode_threads: int
    prefill_threads: int
    cores: tuple[int, ...]
    reasoning_budget: int | None
    delta_interval_s: float
    kv_type: str
    lock_memory: bool
    gpu_layers: int
    system_prompt: str
    prefix_folder: str = ""
    prefix_bytes: int = 0
    draft_max: int = 0
    step_s: float = 0.0
    read_s: float = 0.0
    hang_s: float = 120.0
    flash_attention: str = "auto"
    huge_pages: bool = True


class Submit(Frame, frozen=True, tag="submit"):
    """Run this question. `number` names it between the processes.

    Attributes:
        sampled: tokens of earlier answers, by the place of their message in `messages`.
        session: the conversation goes on: `Ended.said` is wanted.
        tools: what the model may call, how it may, and the one that it must call, if any.
        spent: tokens of `max_tokens` that rounds before this one wrote, of which it is what they left.
        context: what the first round had, in tokens; 0 in that one. Heat takes nothing of it between two rounds.
    """

    number: int
    client: str
    messages: tuple[Message, ...]
    priority: Priority
    max_tokens: int | None
    deadline: float | None
    temperature: float | None
    top_p: float | None
    seed: int | None
    stop: tuple[str, ...]
    reasoning_mode: ReasoningMode
    reasoning_budget: int | None
    stream: bool
    overflow: Literal["error", "trim_history"] = "error"
    reuse: bool = True
    schema: str | None = None
    sampled: dict[int, tuple[int, ...]] = {}
    session: bool = False
    tools: tuple[Tool, ...] = ()
    tool_mode: Mode = "auto"
    tool_named: str | None = None
    tools_parallel: bool = True
    spent: int = 0
    context: int = 0


class Cancel(Frame, frozen=True, tag="cancel"):
    """Stop this question, wherever it stands; answered by `Ended` with `cancelled`."""

    number: int


class Join(Frame, frozen=True, tag="join"):
    """Another question is the same as this one: it has the turn of whichever would come sooner from now on.

    `deadline` is the later one of both.
    """

    number: int
    client: str
    priority: Priority
    deadline: float | None


class EndReasoning(Frame, frozen=True, tag="end_reasoning"):
    """Close the thinking now and go on with the answer."""

    number: int


class SetLimits(Frame, frozen=True, tag="set_limits"):
    """What the engine may do from now on, all of it, in place of the order before; `Configure` is the ceiling.

    Attributes:
        context: tokens that a question may have, prompt and answer together, from the next one measured on.
        slots: questions that run at once; more that run already go on to their end.
        decode_threads, prefill_threads: from the next pass on.
        clock: highest clock of the engine's cores, as a share of what it is without heat; for what to expect.
        pace: share of the time that passes may fill, above 0 to 1; the rest is rest, between passes.
        paused: no pass is begun and nothing admitted; what runs keeps its place and goes on afterwards, but
            its deadline counts on.
        reasoning_budget: tokens of thinking at most, from the next question measured on, whatever it asks
            for; None for no such bound.
    """

    context: int
    slots: int
    decode_threads: int
    prefill_threads: int
    clock: float = 1.0
    pace: float = 1.0
    paused: bool = False
    reasoning_budget: int | None = None


class ForgetPrompts(Frame, frozen=True, tag="forget_prompts"):
    """Drop the prompts that are kept, in memory and on disk; questions that run keep theirs to their end.

    `PromptsForgotten` answers it, but where the disk refuses.
    """


class Shutdown(Frame, frozen=True, tag="shutdown"):
    """End now; running questions are not reported on any more."""


# engine to daemon ---------------------------------------------------------------------------------------


class ModelInfo(msgspec.Struct, frozen=True):
    """What was loaded, from the file's own metadata."""

    name: str
    architecture: str
    quantisation: str
    file_bytes: int
    parameters: int
    context_trained: int
    sha256: str | None
    reasoning: bool
    kv_bytes_per_token: int


class Ready(Frame, frozen=True, tag="ready"):
    """The model is loaded and warm.

    Attributes:
        cores: cores that the model thread is pinned to, read back from the kernel.
        prefill_tokens_per_s, decode_tokens_per_s: the first estimate for ETAs: as calibrated, else of the warm-up.
        gpus: what computes layers beside the cores, where `gpu_layers` asks for it.
    """

    model: ModelInfo
    cores: tuple[int, ...]
    decode_threads: int
    prefill_threads: int
    prefill_tokens_per_s: float
    decode_tokens_per_s: float
    load_s: float
    gpus: tuple[str, ...] = ()


class LoadFailed(Frame, frozen=True, tag="load_failed"):
    """The model cannot be used; the text says why and what to do. The engine ends after it."""

    reason: str


class Prepared(Frame, frozen=True, tag="prepared"):
    """The question was measured and stands in the engine's queue; `ahead` questions go first."""

    number: int
    prompt_tokens: int
    context: int
    ahead: int
    eta_s: float


class Started(Frame, frozen=True, tag="started"):
    """The question has a slot and its prompt is being read."""

    number: int


class Piece(Frame, frozen=True, tag="piece"):
    """The next text of an answer; whole characters. `written` and `thought` count tokens so far."""

    number: int
    kind: Kind
    text: str
    written: int = 0
    thought: int = 0


class Said(msgspec.Struct, frozen=True, array_like=True):
    """An answer as the session keeps it: its text without the thinking, and the tokens that make it.

    `tokens` is empty where they make another text: a stop string was cut off, a character was not finished.
    """

    text: str
    tokens: tuple[int, ...]


class Ended(Frame, frozen=True, tag="ended"):
    """The question is over: exactly one of these, or a `Refused`, for each `Submit`.

    `hurried`: its thinking was ended sooner than on a cool board.
    """

    number: int
    outcome: FinishReason | Literal["cancelled"]
    text: str
    reasoning: str
    usage: Usage
    timings: Timings
    trimmed: int = 0
    said: Said | None = None
    calls: tuple[Call, ...] = ()
    hurried: bool = False


class Refused(Frame, frozen=True, tag="refused"):
    """The engine cannot run the question, and says what the device should change."""

    number: int
    code: Code
    message: str
    details: dict[str, Any]
    retry_after_ms: int | None = None


class Pulse(Frame, frozen=True, tag="pulse"):
    """Sign of life, at least once a second between steps, also when idle.

    Attributes:
        steps: forward passes since the start; a hung engine stops counting, or stops sending.
        busy: a forward pass is due as soon as this one has been sent; False in a rest and while paused.
        slots, pace, paused: the limits that hold, see `SetLimits`.
        prefix_bytes, prefix_loads: size of the prompts kept on disk, and how often one was read since the start.
        decode_tokens_per_s, prefill_tokens_per_s: of the last seconds with work in them; 0.0 before any.
        alone_tokens_per_s: of an answer that runs alone, were nothing drafted; 0.0 without a pass since the last.
        drafted, drafted_right: tokens that were guessed since the start, and those of them that came true.
    """

    steps: int
    running: int
    waiting: int
    busy: bool
    decode_tokens_per_s: float
    prefill_tokens_per_s: float
    kv_tokens: int
    context: int
    slots: int = 0
    pace: float = 1.0
    paused: bool = False
    prefix_bytes: int = 0
    prefix_loads: int = 0
    alone_tokens_per_s: float = 0.0
    drafted: int = 0
    drafted_right: int = 0


class Log(Frame, frozen=True, tag="log"):
    """A line for the daemon's log; llama.cpp's own complaints come this way too."""

    level: Literal["debug", "info", "warning", "error"]
    event: str
    fields: dict[str, Any]


class PromptsForgotten(Frame, frozen=True, tag="prompts_forgotten"):
    """None of the prompts that were kept when `ForgetPrompts` was read is kept any more."""


Order = Configure | Submit | Cancel | Join | EndReasoning | SetLimits | ForgetPrompts | Shutdown
"""Everything the daemon says."""
Report = Ready | LoadFailed | Prepared | Started | Piece | Ended | Refused | PromptsForgotten | Pulse | Log
"""Everything the engine says."""
