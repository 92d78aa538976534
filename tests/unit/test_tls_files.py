"""A pipe in the place of a PEM file: one line that names the key, where OpenSSL would wait for ever."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import shlex
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from desk_rig import TOPICS, Line

from edged.adapters.certificate_files import certificates
from edged.adapters.http import Listening, Node, Server
from edged.adapters.mqtt import Tls
from edged.adapters.mqtt.link import tls_context
from edged.adapters.upstream import Link, Upstream
from edged.errors import SettingsError
from edged.node.exchange import Exchange


def ignore(_event: object) -> None:
    """Nobody wants to know."""


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    """One that nobody writes to."""
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


@pytest.fixture
def pem(tmp_path: Path) -> Path:
    """A file that OpenSSL would look into."""
    (tmp_path / "pem").write_text("no certificate\n")
    return tmp_path / "pem"


def test_to_the_broker(pipe: Path, pem: Path) -> None:
    """Each of the three, the first one that is none is named."""
    cases = {
        "ca": Tls(pipe, pem, pem),
        "cert": Tls(pem, pipe, pem),
        "key": Tls(pem, pem, pipe),
    }
    for key, tls in cases.items():
        with pytest.raises(
            SettingsError, match=rf"^mqtt\.tls\.{key}: {pipe}: no regular file; accepted: PEM"
        ):
            tls_context(tls)
    with pytest.raises(SettingsError, match=rf"^mqtt\.tls\.key: {pem}-: No such file or directory; "):
        tls_context(Tls(pem, pem, pem.with_name("pem-")))
    with pem.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(SettingsError, match=rf"^mqtt\.tls\.ca: {pem}: longer than \d+ bytes; "):
        tls_context(Tls(pem))


def test_of_the_http_face(pipe: Path, pem: Path) -> None:
    """The same of its two."""
    line = Line()
    node = Node(TOPICS, Exchange(line, TOPICS.is_inside, ignore), ignore, dict, dict, str, lambda: 1, "0")
    for key, cert_and_key in {"cert": (pipe, pem), "key": (pem, pipe)}.items():
        with pytest.raises(
            SettingsError, match=rf"^http\.tls\.{key}: {pipe}: no regular file; accepted: PEM"
        ):
            Server(Listening("", 0, 1, *cert_and_key), node, None, ignore)


def test_a_key_with_a_passphrase_is_not_asked_for_it(tmp_path: Path) -> None:
    """The one of the HTTP face: OpenSSL asked on the terminal, and `edged run` stood there."""
    cert, key = tmp_path / "cert", tmp_path / "key"
    made = f"openssl req -x509 -newkey rsa:2048 -passout pass:secret -subj /CN=n1 -keyout {key} -out {cert}"
    subprocess.run(shlex.split(made), check=True, capture_output=True)
    master, terminal = pty.openpty()
    program = "import sys; from pathlib import Path as P; from edged.adapters.http.server import tls_context"
    started = [
        sys.executable,
        "-c",
        f"{program}; tls_context(P(sys.argv[1]), P(sys.argv[2]))",
        str(cert),
        str(key),
    ]
    done = subprocess.run(
        started,
        stdin=terminal,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY),
    )
    assert f"http.tls: {cert} and {key}: " in done.stderr
    assert not select.select([master], [], [], 0)[0], "nothing was asked"
    os.close(terminal)
    os.close(master)


def test_of_the_larger_server(pipe: Path) -> None:
    """And of its authorities'."""
    with pytest.raises(SettingsError, match=rf"^upstream\.ca: {pipe}: no regular file; accepted: a PEM file"):
        Upstream(Link("https://h/v1", None, pipe, 1.0, 1.0, 1), ignore)


def test_that_the_doctor_reads(pipe: Path) -> None:
    """It does not wait either."""
    (found,) = certificates(pipe)
    assert found.reason == "no regular file"
