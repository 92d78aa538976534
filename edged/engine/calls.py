"""How one model writes a tool call: learnt from its chat template, or ours where the template knows no tools.

A template that supports tools also writes earlier calls of a conversation; what it puts around name and arguments
is what its model was trained to write. Belongs to the engine; pure.
"""

from __future__ import annotations

import json
import re
import secrets
import string
from collections.abc import Sequence
from dataclasses import dataclass

from edged.core.tools import Call

SAID = "edged-said"
NAMES = ("edged_first", "edged_second")
VALUES = ("edged-one", "edged-two")
IDS = ("edgedid01", "edgedid02")
"""Texts to look for in what a template makes of them."""
ID_CHARS = 9
"""Nine letters and digits: Mistral's templates refuse any other id."""
_TAG = re.compile(r"<[^<>\s]{1,40}>|\[[A-Z_]{1,40}\]")


@dataclass(frozen=True, slots=True)
class CallForm:
    """A call as the model writes it: opening, name, middle, arguments, closing.

    Attributes:
        opening, middle, closing: what stands around name and arguments.
        between: what stands between the arguments of one call and the name of the next; None where a reply
            has one call.
    """

    opening: str
    middle: str
    closing: str
    between: str | None = None

    @property
    def trigger(self) -> str:
        """What tells a call from other text: the tag in front where there is one, else all of the opening."""
        tag = _TAG.match(self.opening)
        return tag[0] if tag else self.opening

    def write(self, calls: Sequence[Call]) -> str:
        """Calls as text."""
        between = self.closing + "\n" + self.opening if self.between is None else self.between
        inner = between.join(f"{call.name}{self.middle}{call.arguments}" for call in calls)
        return f"{self.opening}{inner}{self.closing}"

    def read(self, text: str) -> tuple[Call, ...]:
        """The calls in a text that was held to this form.

        Raises:
            ValueError: it has another form.
        """
        calls: list[Call] = []
        lead, rest = self.opening, text
        decoder = json.JSONDecoder()
        while rest.startswith(lead):
            name, middle, rest = rest[len(lead) :].partition(self.middle)
            if not middle:
                break
            _, end = decoder.raw_decode(rest)
            calls.append(Call(new_id(), name, rest[:end]))
            rest = rest[end:]
            if rest.rstrip() == self.closing.rstrip():
                return tuple(calls)
            if self.between is None:
                break
            lead = self.between
        raise ValueError(f"no call ends after {len(calls)} calls")


OURS = CallForm(
    opening='<tool_call>\n{"name": "',
    middle='", "arguments": ',
    closing="}\n</tool_call>",
    between='}\n</tool_call>\n<tool_call>\n{"name": "',
)
"""Hermes' and Qwen's way: the best known to models that were trained on no other."""


def learn(plain: str, one: str, two: str | None) -> CallForm | None:
    """The form that a template shows.

    Args:
        plain: a conversation that ends with an assistant's turn that says `SAID`.
        one: the same with a call of `NAMES[0]` with `arguments(0)` in its place.
        two: the same with both calls; None where the template refuses that.

    Returns:
        None where name and arguments do not stand there as they are, one after the other.
    """
    head, said, tail = plain.partition(SAID)
    if not said or not one.startswith(head) or not one.endswith(tail):
        return None
    opening, middle, closing = _around(one[len(head) : len(one) - len(tail)]) or ("", "", "")
    parts = opening + middle + closing
    if not opening.strip() or not middle or any(name in parts for name in IDS):
        return None
    between = None
    if two is not None and two.startswith(head + opening) and two.endswith(closing + tail):
        written = _written(two)
        _, _, rest = two.partition(written)
        between, _, second = rest.partition(NAMES[1])
        same = second.startswith(middle)  # Kimi's counts them
        if not (written and between and same) or any(name in between for name in IDS):
            between = None
    # White space in front is no part of it: behind a thinking all of that is dropped.
    return CallForm(opening.lstrip(), middle, closing, between)


def arguments(index: int) -> dict[str, str]:
    """Arguments of a call for a template to write."""
    return {"edged_key": VALUES[index]}


def _written(text: str) -> str:
    """The first call's arguments as they stand in a text; empty where they do not."""
    ways = (json.dumps(arguments(0)), json.dumps(arguments(0), separators=(",", ":")))
    return next((way for way in ways if way in text), "")


def _around(text: str) -> tuple[str, str, str] | None:
    """What stands before the first call's name, between name and arguments, and after them."""
    opening, name, rest = text.partition(NAMES[0])
    written = _written(rest)
    if not name or not written:
        return None
    middle, _, closing = rest.partition(written)
    return opening, middle, closing


def new_id() -> str:
    """A name for a call."""
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(ID_CHARS))
