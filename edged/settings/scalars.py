"""What settings share: the types of names, ports, topic prefixes, core lists; the manners of a section.

No setting, file or environment here. Bounds that only one setting has stand at that setting.
"""

import operator
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
)
from pydantic_core import PydanticCustomError

from .leaves import Accepts

KIB = 1024
MIB = 1024 * KIB

Flag = Annotated[bool, Field(strict=True)]
Name = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$"), Accepts("1 to 64 of A-Z a-z 0-9 _ . -")
]
TopicPrefix = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*$", min_length=1, max_length=64),
    Accepts("1 to 64 of A-Z a-z 0-9 _ . - and / between levels"),
]
Port = Annotated[int, Field(strict=True, ge=1, le=65535)]
Threads = Annotated[int, Field(strict=True, ge=1, le=256)]
Tokens = Annotated[int, Field(strict=True, ge=256, le=131072)]
Seconds = Annotated[int, Field(strict=True, ge=1, le=31_536_000)]
Cores = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9]{1,4}(-[0-9]{1,4})?(,[0-9]{1,4}(-[0-9]{1,4})?)*$"),
    Accepts('core numbers and rising ranges, as in "4-7" or "0,2"'),
]


def _resolvable(value: str) -> str:
    try:
        value.encode("idna")  # as `socket` does, which raises no OSError of it
    except UnicodeError:
        raise refuse("a host name with 1 to 63 characters between its dots is accepted") from None
    return value


Host = Annotated[
    str,
    # A colon stands in addresses of IPv6 alone, where there are two and more; behind % the interface's name.
    StringConstraints(
        pattern=r"^([^\s\x00-\x1f\x7f:/\[\]]{1,253}"
        r"|[0-9A-Fa-f]{0,4}:[0-9A-Fa-f]{0,4}:[0-9A-Fa-f:.]{0,39}(%[^\s\x00-\x1f\x7f:/\[\]]{1,15})?)$"
    ),
    AfterValidator(_resolvable),
    Accepts("host name or address alone: no mqtt://, port, brackets or spaces"),
]
UserName = Annotated[
    str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]{1,256}$"), Accepts("1 to 256 printable characters")
]
ModelName = Annotated[
    str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]{1,128}$"), Accepts("1 to 128 printable characters")
]
Sha256 = Annotated[
    str, StringConstraints(pattern=r"^[0-9A-Fa-f]{64}$", to_lower=True), Accepts("64 hexadecimal digits")
]


def refuse(text: str) -> PydanticCustomError:
    """A validator's complaint in our own words: what is accepted, without a full stop."""
    return PydanticCustomError("edged", "{text}", {"text": text})


def at_most(key: str) -> AfterValidator:
    """Holds a number to that of another setting, which stands above it in the same section."""
    return _held_to(key, "at most", operator.le)


def at_least(key: str) -> AfterValidator:
    """The same the other way round."""
    return _held_to(key, "at least", operator.ge)


def _held_to(key: str, words: str, fits: Callable[[int, int], bool]) -> AfterValidator:
    name = key.rpartition(".")[2]

    def check(value: int, info: ValidationInfo) -> int:
        if not fits(value, info.data.get(name, value)):  # it is not there where it was wrong itself
            raise refuse(f"{words} {key} ({info.data[name]}) is accepted")
        return value

    return AfterValidator(check)


def _place(value: object) -> object:
    if isinstance(value, str) and (not value or "\x00" in value):
        raise refuse("the name of a file or folder, not empty and without NUL, is accepted")
    # Only shells expand it: a folder named ~ would be made.
    if isinstance(value, str) and value.startswith("~"):
        raise refuse("~ is not expanded here: the whole path, from / on, is accepted")
    return value


Place = Annotated[Path, BeforeValidator(_place), Accepts("path")]


class Section(BaseModel):
    """What all sections share: frozen, no unknown keys, defaults checked like given values."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, use_attribute_docstrings=True, allow_inf_nan=False
    )
