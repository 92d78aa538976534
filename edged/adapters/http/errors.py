"""What went wrong, as a status and headers, the same for both shapes. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from edged.errors import Refusal

STATUS = {
    "bad_request": 400,
    "too_large": 413,
    "too_long": 400,
    "unsupported": 400,
    "busy": 429,
    "hot": 503,
    "expired": 504,
    "loading": 503,
    "draining": 503,
    "poison": 422,
    "interrupted": 503,
    "internal": 500,
}
"""The contract's codes as HTTP statuses: clients try 429 and those from 500 on again by themselves."""


class HttpError(Exception):
    """A request that gets no answer.

    Attributes:
        status: of HTTP.
        code: the contract's, or `unauthorized`, `not_found`, `model_not_found`.
        retry_after_ms: when asking again may help.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        retry_after_ms: int | None = None,
        param: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.retry_after_ms, self.param = retry_after_ms, param

    @property
    def headers(self) -> dict[str, str]:
        """`Retry-After` in whole seconds, and the same to the millisecond, which OpenAI's client reads first."""
        told: dict[str, str] = {}
        if self.retry_after_ms is not None:
            told["retry-after"] = str(max(1, math.ceil(self.retry_after_ms / 1000)))
            told["retry-after-ms"] = str(self.retry_after_ms)
        if self.status == 401:  # noqa: PLR2004 - RFC 9110, 15.5.2
            told["www-authenticate"] = "Bearer"
        return told


def of_refusal(refusal: Refusal) -> HttpError:
    """A refusal made here, before the node was asked."""
    return HttpError(
        STATUS[refusal.code], refusal.code, refusal.message, retry_after_ms=refusal.retry_after_ms
    )


def of_reply(reply: Mapping[str, Any]) -> HttpError:
    """The contract's `error` or `cancelled`."""
    if reply["type"] == "cancelled":
        return HttpError(503, "interrupted", "the question was cancelled at the node; ask again")
    code = reply["code"]
    # Which of its own fields the request has to mend, where one is to blame: no prompt is too long then.
    param = next((name for name in ("max_tokens", "stop") if name in reply.get("details", {})), None)
    return HttpError(
        STATUS.get(code, 500),
        code,
        reply["message"],
        retry_after_ms=reply.get("retry_after_ms"),
        param=param,
    )


def crowded() -> HttpError:
    """There is no place for one more connection; 503, for the node itself may have nothing to do."""
    return HttpError(
        503, "busy", "as many connections as http.connections are open; ask again soon", retry_after_ms=1000
    )


def diverged() -> HttpError:
    """The engine broke in mid-answer and its second answer is another one."""
    return HttpError(
        503, "interrupted", "the engine broke in mid-answer and began anew; what came is void: ask again"
    )
