"""Answers that are kept to be given again, and when two questions are the same. Pure; the clock is an argument.

The same question has the same answer only where sampling leaves nothing to chance: at temperature 0, or with a
seed. Elsewhere a device says that any earlier answer will do (`cache: "use"`), or that none will (`bypass`).
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass, field

import msgspec

from edged.core.question import Question
from edged.core.reply import FinishReason, Usage, parsed
from edged.errors import Refusal

OVERHEAD_BYTES = 512
"""Counted for an answer beside its text: key, figures, and what Python needs for them."""
WHOLE = frozenset({"stop", "tool_calls"})


class Kept(msgspec.Struct, frozen=True):
    """An answer as it is kept: all of `done` that does not belong to the one who asked."""

    text: str
    reasoning: str
    finish_reason: FinishReason
    usage: Usage
    context: int

    @property
    def size_bytes(self) -> int:
        """What it counts for."""
        return len(self.text.encode()) + len(self.reasoning.encode()) + OVERHEAD_BYTES


def key(question: Question) -> bytes | None:
    """Names what is computed for a question; None where it must be computed for this one alone.

    Left out is who asks and how it is told: everything else counts, what is added to `Question` later too.
    A session's question depends on what was said before, and what a tool says may differ each time.
    """
    if question.cache == "bypass" or question.session is not None or question.tools is not None:
        return None
    certain = question.temperature == 0 or question.seed is not None
    if not certain and question.cache != "use":
        return None
    asked = msgspec.structs.replace(
        question,
        client="",
        id="",
        made_id=False,
        plain=False,
        reply_to="",
        correlation=None,
        deadline_ms=None,
        priority="normal",
        stream=True,
        cache="auto",
    )
    return hashlib.sha256(msgspec.msgpack.encode(asked)).digest()


def may_keep(question: Question, finish_reason: str, text: str, *, trimmed: bool, written: int) -> bool:
    """Whether an answer of `written` tokens would be the same next time: not cut by what the node had room for.

    One to a schema that is no JSON to us (a number beyond all floats) ended as an error: it is not given again.
    """
    if trimmed or (question.schema is not None and not _is_readable(text)):
        return False
    bound = question.max_tokens  # where the context has left less, that ended it
    return finish_reason in WHOLE or (finish_reason == "length" and bound is not None and written >= bound)


def _is_readable(text: str) -> bool:
    try:
        parsed(text)
    except Refusal:
        return False
    return True


@dataclass(slots=True)
class AnswerCache:
    """The answers that were given lately; the one not used for longest goes first.

    Attributes:
        answers_max, bytes_max: bounds; an answer that alone is larger is not kept.
        age_max_s: an answer older than this is no answer.
        size_bytes: of all.
    """

    answers_max: int
    bytes_max: int
    age_max_s: float
    size_bytes: int = 0
    _answers: OrderedDict[bytes, tuple[float, Kept]] = field(default_factory=OrderedDict)

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, name: bytes, now: float) -> Kept | None:
        """The answer kept under this key, if it is not too old."""
        found = self._answers.get(name)
        if found is None:
            return None
        at, kept = found
        if now - at > self.age_max_s:
            self._drop(name)
            return None
        self._answers.move_to_end(name)
        return kept

    def put(self, name: bytes, kept: Kept, now: float) -> None:
        """Keep an answer, in place of an older one under its key."""
        if name in self._answers:
            self._drop(name)
        if kept.size_bytes > self.bytes_max:
            return
        self._answers[name] = (now, kept)
        self.size_bytes += kept.size_bytes
        self._fit()

    def bound(self, answers_max: int, bytes_max: int, age_max_s: float) -> None:
        """Change the bounds; what no longer fits goes."""
        self.answers_max, self.bytes_max, self.age_max_s = answers_max, bytes_max, age_max_s
        self._fit()

    def clear(self) -> int:
        """Forget all; returns how many there were."""
        count = len(self._answers)
        self._answers.clear()
        self.size_bytes = 0
        return count

    def _fit(self) -> None:
        while len(self._answers) > self.answers_max or self.size_bytes > self.bytes_max:
            self._drop(next(iter(self._answers)))

    def _drop(self, name: bytes) -> None:
        _, kept = self._answers.pop(name)
        self.size_bytes -= kept.size_bytes
