"""The section of a larger server that helps this board. Off while no `url` is set: then no question leaves it."""

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, StringConstraints, ValidationInfo, field_validator

from ..errors import SettingsError
from .http import is_loopback
from .leaves import Accepts
from .network import secret
from .scalars import ModelName, Place, Section, refuse

Url = Annotated[
    str,
    StringConstraints(pattern=r"^https?://[^\s/@?#]+(/[^\s?#]*)?$", max_length=512),
    Accepts("http:// or https:// address with its path, as in https://gpu.example:8000/v1"),
]


class Upstream(Section):
    """A server that speaks as OpenAI's does: vLLM, Ollama, llama-server, another edged."""

    url: Url | None = None
    """The larger server, path included, as in `https://gpu.example:8000/v1`; without it no question leaves this
    board."""
    model: ModelName | None = None
    """Name of the model there; needed with `url`."""
    key_file: Place | None = None
    """File with the key for it; a bare name is looked for in systemd's credentials first."""
    ca: Place | None = None
    """File with the certificates (PEM) that may sign the server's; the system's without it."""
    when: tuple[Literal["context", "asked", "hot"], ...] = ("context", "asked", "hot")
    """Which questions are sent on: too long for the board; `model` names the larger one; the board is hot."""
    connect_timeout_s: Annotated[float, Field(strict=True, ge=0.1, le=60)] = 5.0
    """Longest time for a connection to it."""
    silence_timeout_s: Annotated[float, Field(strict=True, ge=1, le=3600)] = 60.0
    """Longest time without a byte from it."""
    jobs: Annotated[int, Field(strict=True, ge=1, le=256)] = 4
    """Questions there at the same time; more wait."""

    @field_validator("url")
    @classmethod
    def _has_host(cls, value: str | None) -> str | None:
        try:
            parts = urlsplit(value or "http://none")
            usable = parts.hostname and (parts.port is None or parts.port > 0)
        except ValueError:  # a bracket without its other half, a port that is none
            usable = False
        if not usable:
            raise refuse(
                "an address with a host (of IPv6 in brackets), its port, if any, from 1 to 65535, is accepted"
            )
        return value

    @field_validator("model")
    @classmethod
    def _named(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None and info.data.get("url") is not None:
            raise refuse("the name of a model at upstream.url is accepted")
        return value

    @property
    def host(self) -> str:
        """Name and port in `url`."""
        return "" if self.url is None else self.url.partition("://")[2].split("/")[0]

    @property
    def in_clear(self) -> bool:
        """Whether what is sent there can be read on the way: no TLS, and not this machine."""
        host = urlsplit(self.url or "").hostname or ""
        return self.url is not None and self.url.startswith("http:") and not is_loopback(host)

    def key(self) -> str | None:
        """The key in `key_file`, less white space around it; None where no file is set.

        Raises:
            SettingsError: the file cannot be read, or holds no key.
        """
        if self.key_file is None:
            return None
        text = secret("upstream.key_file", self.key_file).strip()
        if not text or not text.isascii() or not text.isprintable():
            path = Path(self.key_file)
            raise SettingsError(
                f"upstream.key_file: {str(path)!r}: no key; accepted: printable ASCII characters"
            )
        return text
