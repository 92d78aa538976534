"""The section of the HTTP face: where it listens, who may ask, how many at once.

No file is read here but the key, on demand. The docstring under a field is its one description.
"""

import ipaddress
from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

from ..errors import SettingsError
from .network import secret
from .scalars import Flag, Host, Place, Port, Section, refuse

KEY_CHARACTERS_MIN, KEY_CHARACTERS_MAX = 16, 512


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class HttpTls(Section):
    """Encryption of the HTTP face; the section's presence switches it on."""

    cert: Place
    """This board's certificate (PEM), with those between it and its authority. Both: bare names as `key_file`'s."""
    key: Place
    """The certificate's private key (PEM), without a passphrase."""


class Http(Section):
    """The OpenAI- and Ollama-compatible face."""

    enabled: Flag = False
    """Answer over HTTP as well; needs the extra `edged[http]`."""
    host: Host = "127.0.0.1"
    """Address to listen on; one that other machines reach needs a `key_file`."""
    port: Port = 8080
    """Port to listen on; Ollama's own is 11434."""
    key_file: Place | None = None
    """File with the key that clients send as bearer token; a bare name is looked for in systemd's credentials
    first."""
    tls: HttpTls | None = None
    """Encryption; plain HTTP without it."""
    connections: Annotated[int, Field(strict=True, ge=1, le=1024)] = 32
    """Connections at the same time; one more is turned away with status 503, beyond twice as many unheard."""

    @field_validator("key_file")
    @classmethod
    def _guarded(cls, value: Place | None, info: ValidationInfo) -> Place | None:
        if value is None and info.data.get("enabled") and not is_loopback(info.data.get("host", "127.0.0.1")):
            raise refuse(
                f"whoever reaches http.host {info.data['host']} could ask; a file with a key is accepted, or a "
                "loopback address as http.host"
            )
        return value

    def key(self) -> str | None:
        """The key in `key_file`, less white space around it; None where no file is set.

        Raises:
            SettingsError: the file cannot be read, or holds no key.
        """
        if self.key_file is None:
            return None
        text = secret("http.key_file", self.key_file).strip()
        if (
            not KEY_CHARACTERS_MIN <= len(text) <= KEY_CHARACTERS_MAX
            or not text.isascii()
            or not text.isprintable()
        ):
            raise SettingsError(
                f"http.key_file: {str(self.key_file)!r}: no key; accepted: {KEY_CHARACTERS_MIN} to "
                f"{KEY_CHARACTERS_MAX} printable ASCII characters, such as `openssl rand -hex 32` makes"
            )
        return text
