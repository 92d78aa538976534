"""The sections that face the network: this board's name and topics, the broker and the way to it.

No file is read here but the broker's password, on demand. As in `tree`, the docstring under a field is its
one description.
"""

import os
import re
import socket
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

from ..errors import SettingsError
from ..small_file import SECRET_BYTES_MAX, read
from .leaves import DefaultWords
from .scalars import Host, Name, Place, Port, Section, TopicPrefix, UserName, refuse


def host_id() -> str:
    """This machine's host name reduced to what a topic level may hold; `edged` where nothing is left."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", socket.gethostname())[:64].strip("-.") or "edged"


CREDSTORE = Path("/etc/credstore")
"""Where the unit's credentials come from, each as `edged.NAME`; root's alone."""


def credential(name: Path, folder: Path, store: Path = CREDSTORE) -> Path:
    """Where a secret's file lies: an absolute name itself, else in `$CREDENTIALS_DIRECTORY`, else `folder`.

    systemd.exec(5), LoadCredential=: the variable names the folder that holds a service's credentials. Outside
    of the service it is not set: root's commands on the board (`edged doctor`) find in `store` what is not in
    `folder`.
    """
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    # os.access, which raises nothing: a key that stands here in place of its file's name is too long for one.
    if directory and not name.is_absolute() and os.access(Path(directory) / name, os.F_OK):
        return Path(directory) / name
    beside, stored = folder / name, store / f"edged.{name}"
    if not name.is_absolute() and not os.access(beside, os.F_OK) and os.access(stored, os.R_OK):
        return stored
    return beside


def hidden(path: Path, store: Path = CREDSTORE) -> bool:
    """Whether a file that is not there may be one of the service's credentials, which this account may not see."""
    return store.is_dir() and not os.access(store, os.X_OK) and not os.access(path, os.F_OK)


def secret(key: str, name: Path) -> str:
    """The content of a secret's file.

    Raises:
        SettingsError: it cannot be read or is not UTF-8; names the key and the file.
    """
    path = credential(name, Path())
    try:
        return read(path, SECRET_BYTES_MAX).decode("utf-8-sig")
    except OSError as error:
        reason = error.strerror or "cannot be read"
        raise SettingsError(
            f"{key}: {str(path)!r}: {reason}; accepted: a readable file with the secret alone"
        ) from None
    except (UnicodeDecodeError, ValueError):
        raise SettingsError(
            f"{key}: {str(path)!r}: not UTF-8; accepted: the secret alone, in UTF-8"
        ) from None


class Node(Section):
    """Who this board is on the broker."""

    id: Annotated[Name, DefaultWords("the host name")] = Field(default_factory=host_id)
    """Name of this board in every topic; also the start of its MQTT client id."""
    prefix: TopicPrefix = "edged"
    """First level or levels of every topic."""
    pools: tuple[Name, ...] = ()
    """Pools of boards whose questions this board shares."""


class Tls(Section):
    """Encryption towards the broker; the section's presence switches it on."""

    ca: Place
    """File with the certificates (PEM) that may sign the broker's. All three: bare names as `password_file`'s."""
    cert: Place | None = None
    """This board's certificate (PEM), where the broker asks for one; together with `key`."""
    key: Place | None = None
    """The certificate's private key (PEM), without a passphrase."""

    @field_validator("key")
    @classmethod
    def _key_and_cert(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if "cert" in info.data and (value is None) != (info.data["cert"] is None):
            raise refuse("cert and key are given together or not at all")
        return value


class Mqtt(Section):
    """The broker and how to reach it."""

    host: Host = "127.0.0.1"
    """Name or address of the broker."""
    port: Port = 1883
    """Port of the broker; 8883 is usual with TLS."""
    username: UserName | None = None
    """User name at the broker."""
    password_file: Place | None = None
    """File whose content is the password; a bare name is looked for in systemd's credentials first."""
    tls: Tls | None = None
    """Encryption; plain TCP without it."""
    keepalive_s: Annotated[int, Field(strict=True, ge=5, le=3600)] = 30
    """Longest silence on the connection before either side takes the other for dead."""
    session_expiry_s: Annotated[int, Field(strict=True, ge=60, le=4_294_967_294)] = 604_800
    """How long the broker keeps questions for this board while it is away."""
    reply_prefixes: tuple[TopicPrefix, ...] = ()
    """Further topic prefixes, beside the client's own, under which a question's `reply_to` may lie."""

    def password(self) -> str | None:
        """The password in `password_file`, less one final newline; None where no file is set.

        Raises:
            SettingsError: the file cannot be read or is not UTF-8; names the key and the file.
        """
        if self.password_file is None:
            return None
        text = secret("mqtt.password_file", self.password_file)
        return text.removesuffix("\n").removesuffix("\r")
