"""Control messages of a device about its own questions, and the reply that tells where one stands. Pure."""

from __future__ import annotations

from typing import Literal

import msgspec

from edged.core.reply import Reply
from edged.core.topics import is_job_id
from edged.errors import Refusal

PAYLOAD_BYTES_MAX = 4096
StateWord = Literal["waiting", "running", "finished", "unknown"]


class Control(msgspec.Struct, frozen=True):
    """What a device sends to `.../control/{client}`.

    Attributes:
        op: `cancel`, `resume`, `end_reasoning` or `status`.
        id: the question it is about.
        from_seq: for `resume`: the first reply that the device misses.
    """

    op: Literal["cancel", "resume", "end_reasoning", "status"]
    id: str
    from_seq: int = 0


class Status(Reply, frozen=True, tag="status", kw_only=True):
    """Where a question stands. `seq` is the number of the last reply that was sent, -1 left out for none.

    Attributes:
        state: `waiting`, `running`, `finished`, or `unknown` to this node.
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
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal(
            "bad_request",
            'a control message is {"op": "cancel" | "resume" | "end_reasoning" | "status", "id": "..."}: '
            f"{str(error)[:120]}",
        ) from None
    if not is_job_id(control.id):
        raise Refusal("bad_request", "id must be 1 to 128 characters A-Z a-z 0-9 _ . : -")
    return control
