"""Control messages of a device about its own questions, and the reply that tells where one stands. Pure."""

from __future__ import annotations

from typing import Literal

import msgspec

from edged.core.reply import Reply
from edged.core.topics import is_job_id
from edged.errors import DECODE_ERRORS, Refusal

PAYLOAD_BYTES_MAX = 4096
StateWord = Literal["waiting", "running", "finished", "forgotten", "unknown"]


class Control(msgspec.Struct, frozen=True):
    """What a device sends to `.../control/{client}`.

    Attributes:
        op: `cancel`, `resume`, `end_reasoning`, `status`, or `forget` for a session.
        id: the question it is about; of `forget` a name for the order, under which its answer comes.
        from_seq: for `resume`: the first reply that the device misses.
        session: for `forget`: the conversation that is to be forgotten.
    """

    op: Literal["cancel", "resume", "end_reasoning", "status", "forget"]
    id: str
    from_seq: int = 0
    session: str | None = None


class Status(Reply, frozen=True, tag="status", kw_only=True):
    """Where a question stands. `seq` is the number of the last reply that was sent, -1 left out for none.

    Attributes:
        state: `waiting`, `running`, `finished`, or `unknown` to this node. Of a session that was to be forgotten:
            `forgotten`, `unknown`, or `running` while a question of it is not over: then nothing was forgotten.
        attempt: runs begun.
    """

    state: StateWord
    node: str
    attempt: int | None = None


_decoder = msgspec.json.Decoder(Control)


def parse(payload: bytes) -> Control:
    """Read a control message.

    Raises:
        Refusal: `bad_request`, or `too_large`.
    """
    if len(payload) > PAYLOAD_BYTES_MAX:
        raise Refusal("too_large", f"a control message has at most {PAYLOAD_BYTES_MAX} bytes")
    try:
        control = _decoder.decode(payload)
    except DECODE_ERRORS as error:
        raise Refusal(
            "bad_request",
            'a control message is {"op": "cancel", "resume", "end_reasoning", "status" or "forget", "id": "..."}: '
            f"{str(error)[:120]}",
        ) from None
    if not is_job_id(control.id):
        raise Refusal("bad_request", "id must be 1 to 128 characters A-Z a-z 0-9 _ . : -")
    if control.op == "forget" and not (control.session and is_job_id(control.session)):
        raise Refusal("bad_request", "forget needs session, 1 to 128 characters A-Z a-z 0-9 _ . : -")
    return control
