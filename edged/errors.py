"""Everything edged raises on purpose.

Two families: a `SettingsError` is the operator's to mend and ends the process with exit code 78 (`os.EX_CONFIG`,
which the unit file does not restart); a `Refusal` is the asking device's to mend and becomes an
`error` reply. Everything else that escapes is a defect.
"""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any, Literal, Self, get_args

import msgspec

DECODE_ERRORS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What msgspec raises of bytes that are not what they should be: another form, no UTF-8, nested too deep."""

Code = Literal[
    "bad_request",
    "too_large",
    "too_long",
    "unsupported",
    "busy",
    "hot",
    "expired",
    "loading",
    "draining",
    "poison",
    "interrupted",
    "internal",
]
"""The error codes of the wire contract."""

CODES: frozenset[str] = frozenset(get_args(Code))


class EdgedError(Exception):
    """Root of the errors that edged raises on purpose."""


class SettingsError(EdgedError):
    """A file, key or value of the configuration is wrong; the text names all three and what is accepted."""


class NotNowError(EdgedError):
    """What is needed for a start, or a measurement, is not to be had just now: exit code 75 (`os.EX_TEMPFAIL`)."""


class DiedError(EdgedError):
    """A part of the daemon ended though nobody told it to, or must not be started; the process must start again."""


class Refusal(EdgedError):  # noqa: N818 - the contract's word; it is a reply, not a fault
    """A question that will not be answered, with the sentence that tells its device what to change.

    Attributes:
        code: one of the contract's codes.
        message: one sentence that says what to change; whatever it quotes, it is one line of printable characters.
        retry_after_ms: when asking again may help; None where waiting does not help.
        details: figures behind the sentence (`prompt_tokens`, `context`, ...).
    """

    def __init__(
        self,
        code: Code,
        message: str,
        *,
        retry_after_ms: int | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        if not message.isprintable():
            message = "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in message)
        super().__init__(f"{code}: {message}")
        self.code: Code = code
        self.message = message
        self.retry_after_ms = retry_after_ms
        self.details = details or {}


class ModelError(EdgedError):
    """The model file cannot be used; the text says which file, why, and what to do."""

    @classmethod
    def unread(cls, path: Path, error: OSError) -> Self:
        """It cannot be opened. Where it is there and closed to us, putting it there again would not help."""
        mend = "put the model there or correct model.path"
        if isinstance(error, PermissionError):
            mend = (
                "let the account of edged read the file and enter the folders above it; as a service it sees "
                "nothing below /home and /root"
            )
        return cls(f"{path}: {error.strerror}; {mend}")


class LibraryError(EdgedError):
    """llama.cpp itself cannot be loaded; the text says what it lacks and what to install."""


class EngineError(EdgedError):
    """The engine process broke: it ended, hung, or spoke nonsense."""


class OutgrownError(EdgedError):
    """An answer cannot go on: what its schema allows is nothing, or too large to compute. The text says what."""


def place(defect: BaseException) -> str:
    """Where a defect was raised, and its kind: for a log that may not hold its text, which may quote a prompt."""
    at = traceback.extract_tb(defect.__traceback__)[-1]
    return f"{type(defect).__name__} in {at.name}, {Path(at.filename).name}:{at.lineno}"


def own_defect() -> Refusal:
    """What a device is told whose question this node itself failed over."""
    return Refusal("internal", "this node met a defect of its own with this question")
