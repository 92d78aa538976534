"""A conversation that the node keeps for a client: what a question carries of it, and what it adds. Pure.

A session is its system prompt and its turns; a turn is what one question added: its messages and the answer,
without the thinking. Beside an answer stand the tokens that the model chose for it: the same text may also be
cut into other tokens, and only the very same ones continue what stands in the KV cache.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import dropwhile, takewhile

import msgspec

from edged.core.question import Message, Question
from edged.core.records import SessionTurn, StoredSession
from edged.errors import DECODE_ERRORS, Refusal


class Turn(msgspec.Struct, frozen=True, array_like=True):
    """What one question added to its session; `sampled` tells the tokens of the answers among `messages`."""

    messages: tuple[Message, ...]
    sampled: dict[int, tuple[int, ...]] = {}


@dataclass(frozen=True, slots=True)
class Kept:
    """A turn, with the number of its question and its size as stored."""

    number: int
    turn: Turn
    size_bytes: int


@dataclass(frozen=True, slots=True)
class History:
    """A session as it stands; `system` None stands for the node's own system prompt."""

    system: str | None = None
    turns: tuple[Kept, ...] = ()

    @property
    def size_bytes(self) -> int:
        """Bytes of all turns."""
        return sum(kept.size_bytes for kept in self.turns)

    @property
    def messages(self) -> int:
        """How many messages stand in it."""
        return sum(len(kept.turn.messages) for kept in self.turns)


@dataclass(frozen=True, slots=True)
class Conversation:
    """What goes to the engine: all messages, and the tokens of the earlier answers among them."""

    messages: tuple[Message, ...]
    sampled: dict[int, tuple[int, ...]]


_decoder = msgspec.msgpack.Decoder(Turn)


def read(stored: StoredSession) -> History:
    """A session as the journal has it; a turn that cannot be read ends what is remembered before it.

    Results at the beginning go: their calls are lost, or were forgotten while the question with the results ran,
    and a template that refuses these would refuse every question of the session from then on.
    """
    turns: list[Kept] = []
    for number, body in stored.turns:
        try:
            turns.append(Kept(number, _decoder.decode(body), len(body)))
        except DECODE_ERRORS:
            turns.clear()
    while turns and _goes_on(turns[0].turn.messages):
        del turns[0]
    return History(stored.system, tuple(turns))


def fitted(history: History, question: Question, limit_bytes: int) -> History:
    """The history as far as it may grow by this question.

    What is dropped begins with the oldest turn and ends before a user's question: no result of a tool is left
    without its call, and a question that brings results keeps what these are for.

    Args:
        history: before the question.
        question: `overflow` says what becomes of a history that is full.
        limit_bytes: bound of one session.

    Raises:
        Refusal: `too_large` with both numbers.
    """
    own = sum(len((message.content or "").encode()) for message in question.messages)
    size = history.size_bytes + own
    if size <= limit_bytes:
        return history
    trims = question.overflow != "error"
    if own > limit_bytes and not trims:  # what was said before does not matter
        words = f"this question alone has {own} bytes and a session may have {limit_bytes}; ask without one"
    else:
        words = f"session {question.session} has {history.size_bytes} bytes and may have {limit_bytes}; "
        words += "begin another session" + ("" if trims else ", or ask with overflow trim_history")
    refusal = Refusal("too_large", words, details={"bytes": size, "limit": limit_bytes})
    if not trims:
        raise refusal
    turns, left = list(history.turns), size
    while turns and left > limit_bytes:
        left -= turns.pop(0).size_bytes
        while turns and _goes_on(turns[0].turn.messages):
            left -= turns.pop(0).size_bytes
    if not turns and history.turns and _goes_on(_apart(question)[1]):
        raise refusal
    return replace(history, turns=tuple(turns))


def conversation(history: History, question: Question) -> Conversation:
    """History and question as one list of messages. A system prompt in the question replaces the session's.

    Raises:
        Refusal: `bad_request`; the question brings a result of a call that stands nowhere before it.
    """
    system, asked = _apart(question)
    if system is None:
        system = history.system
    messages: list[Message] = [] if system is None else [Message("system", system)]
    sampled: dict[int, tuple[int, ...]] = {}
    for kept in history.turns:
        sampled |= {len(messages) + at: tokens for at, tokens in kept.turn.sampled.items()}
        messages += kept.turn.messages
    called = {call["id"] for message in messages for call in message.tool_calls or ()}
    for message in asked:
        called |= {call["id"] for call in message.tool_calls or ()}
        if _is_result(message) and message.tool_call_id not in called:
            raise Refusal(
                "bad_request",
                f"session {question.session} knows no call {message.tool_call_id}; give the id of one of its "
                "calls, or ask the question again",
            )
    return Conversation((*messages, *asked), sampled)


def grown(
    history: History, number: int, question: Question, answer: Message, tokens: tuple[int, ...]
) -> History:
    """The history with one turn more.

    Args:
        history: what the question was answered with.
        number: the question's.
        question: what was asked.
        answer: what the model said, without its thinking.
        tokens: how it was said; empty where the text alone is to be read again.
    """
    system, asked = _apart(question)
    if not history.turns or not history.turns[-1].turn.messages[-1].tool_calls:
        asked = tuple(dropwhile(_is_result, asked))  # of calls that are forgotten
    turn = Turn((*asked, answer), {len(asked): tokens} if tokens else {})
    kept = Kept(number, turn, len(msgspec.msgpack.encode(turn)))
    return History(history.system if system is None else system, (*history.turns, kept))


def without_oldest(history: History, messages: int) -> History:
    """The history without the turns of which every message is among the `messages` oldest ones.

    A turn with calls stays until those that go on with its results can go too.
    """
    turns = list(history.turns)
    while turns:
        together = 1 + len(list(takewhile(lambda kept: _goes_on(kept.turn.messages), turns[1:])))
        messages -= sum(len(kept.turn.messages) for kept in turns[:together])
        if messages < 0:
            break
        del turns[:together]
    return replace(history, turns=tuple(turns))


def stored(client: str, name: str, history: History) -> SessionTurn:
    """What the journal needs to know of a history that has just grown."""
    newest = history.turns[-1]
    return SessionTurn(
        client, name, history.system, history.turns[0].number, msgspec.msgpack.encode(newest.turn)
    )


def _goes_on(messages: tuple[Message, ...]) -> bool:
    """Whether these answer the calls of the turn before."""
    return bool(messages) and _is_result(messages[0])


def _is_result(message: Message) -> bool:
    return message.role == "tool"


def _apart(question: Question) -> tuple[str | None, tuple[Message, ...]]:
    """The system prompt that a question brings, and its other messages."""
    first, *others = question.messages
    if first.role == "system":
        return first.content or "", tuple(others)
    return None, question.messages
