"""The dates of certificates in files of PEM, for the metrics and `edged doctor`. Nothing raises."""

from __future__ import annotations

import re
import ssl
from pathlib import Path

from edged import small_file
from edged.core import certificate
from edged.core.checks.broker import Certificate

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def certificates(path: Path, *, authorities: bool = False) -> list[Certificate]:
    """What counts of the certificates in a PEM file.

    Of a chain, which holds no longer than its weakest, that is the one that ends first; of authorities the one that
    ends last: some of those in a system's bundle have always ended, and so has the old one after a change.
    """
    try:
        text = small_file.read(path, small_file.PEM_BYTES_MAX).decode("ascii", "replace")
    except OSError as error:
        return [Certificate(str(path), reason=error.strerror or "cannot be read")]
    found = []
    for pem in _PEM.findall(text):
        try:
            begins_s, ends_s = certificate.validity(ssl.PEM_cert_to_DER_cert(pem))
        except ValueError as error:
            return [Certificate(str(path), reason=str(error))]
        found.append(Certificate(str(path), begins_s, ends_s))
    if not found:
        return [Certificate(str(path), reason="no certificate in it (PEM)")]
    return [(max if authorities else min)(found, key=lambda one: one.ends_s)]
