"""What an operator may order of a node, and the answers: values and how they are read. Pure.

Orders come over MQTT (`P/v1/node/{node}/admin/{op}`) or over the local socket, as the same JSON object.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import msgspec

from edged.errors import DECODE_ERRORS, Refusal

Op = Literal["drain", "undrain", "config", "model", "cache_clear", "restart", "status"]
"""`status` changes nothing; over MQTT the retained topics tell as much."""
OPS: frozenset[str] = frozenset(get_args(Op))
PAYLOAD_BYTES_MAX = 16 * 1024
TRANSACTION_CHARS_MAX = 128
CHANGES_MAX = 64

Value = bool | int | float | str | list[str] | None


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An order.

    Attributes:
        transaction: echoed in the answer, so that the operator knows what it answers.
        op: the operation; over MQTT the topic names it.
        set: for `config`: settings to change, by key; none only shows them.
        path: for `model`: the file's name within `admin.models`.
        sha256: for `model`: what the file must be, checked before it is loaded.
    """

    transaction: str
    op: Op = "status"
    set: dict[str, Value] = {}
    path: str | None = None
    sha256: str | None = None


class Result(msgspec.Struct, frozen=True):
    """The answer to an order; `error` is one sentence that says what to change."""

    transaction: str
    status: Literal["ok", "error"]
    data: dict[str, Any] = {}
    error: str | None = None


_decoder = msgspec.json.Decoder(Order)
_KEYS = {"config": {"set"}, "model": {"path", "sha256"}}


def parse(payload: bytes, op: str | None = None) -> Order:
    """Read an order.

    Args:
        payload: the JSON object.
        op: what the topic names; None where the object does.

    Raises:
        Refusal: `bad_request` or `too_large`.
    """
    if len(payload) > PAYLOAD_BYTES_MAX:
        raise Refusal("too_large", f"an order has at most {PAYLOAD_BYTES_MAX} bytes")
    try:
        order = _decoder.decode(payload)
    except DECODE_ERRORS as error:
        raise Refusal(
            "bad_request", f'an order is {{"transaction": "...", ...}}: {str(error)[:160]}'
        ) from None
    if op is not None:
        if op not in OPS:
            raise Refusal("bad_request", f"{op[:32]} is no operation; there are {', '.join(sorted(OPS))}")
        order = msgspec.structs.replace(order, op=op)
    if not 0 < len(order.transaction) <= TRANSACTION_CHARS_MAX or not order.transaction.isprintable():
        raise Refusal("bad_request", f"transaction is 1 to {TRANSACTION_CHARS_MAX} printable characters")
    given = {key for key in ("set", "path", "sha256") if getattr(order, key)}
    if foreign := given - _KEYS.get(order.op, set()):
        raise Refusal("bad_request", f"{order.op} takes no {', '.join(sorted(foreign))}")
    if len(order.set) > CHANGES_MAX:
        raise Refusal("bad_request", f"at most {CHANGES_MAX} settings are changed at once")
    if order.op == "model":
        _check_model(order)
    return order


def _check_model(order: Order) -> None:
    path, sha256 = order.path, order.sha256
    if not path or not path.isprintable() or path.startswith("/") or ".." in path.split("/"):
        raise Refusal("bad_request", "model needs path, the name of a file within admin.models")
    if sha256 is not None and (len(sha256) != 64 or not set(sha256.lower()) <= set("0123456789abcdef")):  # noqa: PLR2004 - SHA-256 in hex
        raise Refusal("bad_request", "sha256 is 64 hexadecimal digits")


def ok(order: Order, **data: Any) -> Result:  # noqa: ANN401 - JSON values
    """It was done."""
    return Result(order.transaction, "ok", data)


def failed(transaction: str, why: str) -> Result:
    """It was not done."""
    return Result(transaction, "error", error=why)
