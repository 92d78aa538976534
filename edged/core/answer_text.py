"""From the bytes of tokens to the text of an answer: whole characters, thinking set apart, stop strings obeyed.

Pure; one `AnswerText` a running question, used by the model thread. Tokens may cut a UTF-8 character, a tag
or a stop string anywhere; what could still become one is held back until it is decided.
"""

from __future__ import annotations

import codecs
from typing import Literal

from edged.core.thinking import Tags

Kind = Literal["text", "reasoning"]
Part = tuple[Kind, str]
"""The next text of an answer, or of its thinking."""


class AnswerText:
    """Splits a stream of bytes into reasoning and text.

    Args:
        stop: strings that end the answer; they are searched in the text only and never part of it.
        tags: between which the model thinks; without them there is nothing but text.
        thinking: the prompt already opened the thinking, as R1-Distill's template does.
        trigger: begins a tool call, which is no text; empty where there are no tools.
        trigger_first: a tool call can only be the very first thing that is no thinking.

    Attributes:
        thinking: True while the stream is inside the reasoning.
        stopped: True once a stop string was found; what follows is dropped.
        calling: True once a tool call has begun; all that follows is part of it.
        text, reasoning: all of each so far, equal to the joined pieces that were returned.
        call: the tool call so far, its trigger included.
    """

    def __init__(
        self,
        stop: tuple[str, ...] = (),
        *,
        tags: Tags | None = None,
        thinking: bool = False,
        trigger: str = "",
        trigger_first: bool = False,
    ) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stop = stop
        self._tags = tags
        self._may_open = tags is not None and not thinking
        self._head = ""
        self._held = ""
        self._leading = tags is not None  # drop white space between the closing tag and the answer
        self._trigger = trigger
        self._trigger_first = trigger_first
        self._text: list[str] = []
        self._call: list[str] = []
        self._reasoning: list[str] = []
        self.thinking = thinking
        self.stopped = False
        self.calling = False

    @property
    def call(self) -> str:
        """The tool call so far."""
        return "".join(self._call)

    @property
    def text(self) -> str:
        """The answer so far."""
        return "".join(self._text)

    @property
    def reasoning(self) -> str:
        """The thinking so far."""
        return "".join(self._reasoning)

    def would_open(self, data: bytes) -> bool:
        """Whether these bytes are the tag with which the model begins a thinking that the prompt has not opened."""
        return (
            self._tags is not None
            and self._may_open
            and not self._held.strip()
            and data.strip() == self._tags.open.encode()
        )

    def would_close(self, data: bytes) -> bool:
        """Whether these bytes are the tag that ends the thinking in which the model is."""
        return self._tags is not None and self.thinking and data.strip() == self._tags.close.encode()

    def feed(self, data: bytes) -> list[Part]:
        """Take the bytes of one token; return what is decided by now."""
        return self._advance(self._decoder.decode(data), last=False)

    def break_off(self) -> None:
        """What comes next is not the model's: a character that it has not finished is no text."""
        self._decoder.reset()

    def finish(self, *, cut: bool = False) -> list[Part]:
        """The stream is over: return what was held back; a character that was cut off is no text.

        Where the answer was `cut` short, what may have been going to be a tool call is no text either.
        """
        if cut and self._trigger and not self.thinking:
            self._held = self._held[: len(self._held) - _overlap(self._held, (self._trigger,))]
        return self._advance("", last=True)

    def _advance(self, more: str, *, last: bool) -> list[Part]:
        out: list[Part] = []
        if self.stopped:
            return out
        self._held += more
        if self._tags is not None:
            if self._may_open:
                self._try_to_open(self._tags, last=last)
            if self._may_open:
                return out
            if self.thinking:
                self._think(out, self._tags, last=last)
        if not self.thinking:
            self._answer(out, last=last)
        return out

    def _try_to_open(self, tags: Tags, *, last: bool) -> None:
        """Some models write the opening tag themselves, first thing; anywhere else it is text."""
        head = self._held.lstrip()
        if head.startswith(tags.open):
            self._held, self._head = head[len(tags.open) :], tags.head
            self.thinking = self._leading = True
            self._may_open = False
        elif last or not tags.open.startswith(head):
            self._may_open = False

    def _think(self, out: list[Part], tags: Tags, *, last: bool) -> None:
        if self._head:
            if not last and len(self._held) < len(self._head) and self._head.startswith(self._held):
                return
            self._held, self._head = self._held.removeprefix(self._head), ""
        before, tag, after = self._held.partition(tags.close)
        if tag:
            self._held = after
            self.thinking = False
        else:
            keep = 0 if last else _overlap(self._held, (tags.close,))
            before, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        self._emit(out, "reasoning", before)

    def _answer(self, out: list[Part], *, last: bool) -> None:
        if self._leading:
            self._held = self._held.lstrip()
            if not self._held:
                return
            self._leading = False
        if self._call_begins(out, last=last):
            return
        # The one that is complete first, and of several the longest: as if the text came by the character.
        # One within what may become a tool call waits for that: as in a call, where none is looked for.
        call = 0 if last or not self._trigger else _overlap(self._held, (self._trigger,))
        ends = len(self._held) - call
        found = [(at + len(word), at) for word in self._stop if 0 <= (at := self._held.find(word)) < ends]
        if found:
            self.stopped = True
            self._emit(out, "text", self._held[: min(found)[1]])
            self._held = ""
            return
        wanted = (*self._stop, self._trigger) if self._trigger else self._stop
        keep = 0 if last else _overlap(self._held, wanted)
        self._emit(out, "text", self._held[: len(self._held) - keep])
        self._held = self._held[len(self._held) - keep :]

    def _call_begins(self, out: list[Part], *, last: bool) -> bool:
        """Whether all that is held is taken care of: it is a call, or may become one."""
        if self.calling:
            self._call.append(self._held)
            self._held = ""
            return True
        if not self._trigger:
            return False
        if self._trigger_first:
            if not last and len(self._held) < len(self._trigger) and self._trigger.startswith(self._held):
                return True
            at = 0 if self._held.startswith(self._trigger) else -1
            if at < 0:
                self._trigger = ""
        else:
            at = self._held.find(self._trigger)
        if at < 0 or any(0 <= found < at for found in map(self._held.find, self._stop)):
            return False
        self.calling = True
        self._emit(out, "text", self._held[:at])
        self._call.append(self._held[at:])
        self._held = ""
        return True

    def _emit(self, out: list[Part], kind: Kind, text: str) -> None:
        if text:
            (self._text if kind == "text" else self._reasoning).append(text)
            out.append((kind, text))


def _overlap(text: str, wanted: tuple[str, ...]) -> int:
    """Length of the longest end of `text` that is a true beginning of one of `wanted`."""
    longest = 0
    for word in wanted:
        for size in range(min(len(word) - 1, len(text)), longest, -1):
            if text.endswith(word[:size]):
                longest = size
                break
    return longest
