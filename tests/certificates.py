"""Certificates for tests: an authority that signs, lets expire and takes back, by the openssl command."""

from __future__ import annotations

import shlex
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

CONFIG = """\
[ca]
default_ca = own
[own]
database = {folder}/index.txt
new_certs_dir = {folder}
rand_serial = yes
default_md = sha256
default_crl_days = 1
policy = any
unique_subject = no
[any]
commonName = supplied
"""
EXTENSIONS = """\
basicConstraints=critical,CA:FALSE
keyUsage=critical,digitalSignature
subjectKeyIdentifier=hash
authorityKeyIdentifier=keyid
extendedKeyUsage={usage}
{names}
"""
DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its private key, both PEM files."""

    cert: Path
    key: Path


class Authority:
    """A certificate authority with a folder of its own.

    Args:
        folder: existing and empty.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._config = folder / "ca.cnf"
        self._config.write_text(CONFIG.format(folder=folder))
        (folder / "index.txt").touch()
        self.pem = folder / "ca.pem"
        self._key = self._new_key("ca")
        usage = "-addext keyUsage=critical,keyCertSign,cRLSign"
        _openssl(
            f"req -x509 -new -key {self._key} -subj /CN=test-{folder.name} -days 2 -out {self.pem} {usage}"
        )

    def server(self, names: str = "DNS:localhost,IP:127.0.0.1", *, expired: bool = False) -> Pair:
        """A broker's certificate for these names (subjectAltName); `expired` yesterday."""
        return self._issue("broker", "serverAuth", f"subjectAltName={names}", expired=expired)

    def client(self, name: str, *, expired: bool = False) -> Pair:
        """A board's or device's certificate for the common name `name`."""
        return self._issue(name, "clientAuth", "", expired=expired)

    def revoke(self, pair: Pair) -> None:
        """Take a certificate back: it stands in the next list."""
        _openssl(f"ca -config {self._config} -cert {self.pem} -keyfile {self._key} -revoke {pair.cert}")

    def crl(self) -> Path:
        """The list of what was taken back, as of now."""
        path = self._folder / "crl.pem"
        _openssl(f"ca -config {self._config} -cert {self.pem} -keyfile {self._key} -gencrl -out {path}")
        return path

    def _issue(self, name: str, usage: str, names: str, *, expired: bool) -> Pair:
        file = f"{name}-{len(list(self._folder.iterdir()))}"
        key, cert = self._new_key(file), self._folder / f"{file}.pem"
        wanted = self._folder / f"{file}.ext"
        wanted.write_text(EXTENSIONS.format(usage=usage, names=names))
        now = datetime.now(UTC)
        begin, end = (now - 2 * DAY, now - DAY) if expired else (now - DAY, now + DAY)
        request = self._folder / f"{file}.csr"
        _openssl(f"req -new -key {key} -subj /CN={name} -out {request}")
        _openssl(
            f"ca -batch -notext -config {self._config} -cert {self.pem} -keyfile {self._key} -in {request}"
            f" -out {cert} -extfile {wanted} -startdate {_stamp(begin)} -enddate {_stamp(end)}"
        )
        return Pair(cert, key)

    def _new_key(self, name: str) -> Path:
        path = self._folder / f"{name}.key"
        _openssl(f"genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out {path}")
        return path


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y%m%d%H%M%SZ")


def _openssl(arguments: str) -> None:
    ended = subprocess.run(
        ["openssl", *shlex.split(arguments)], check=False, capture_output=True, text=True, timeout=30
    )
    assert ended.returncode == 0, f"openssl {arguments}\n{ended.stderr}"
