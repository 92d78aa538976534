"""The dates of an X.509 certificate, and nothing else of it. Pure.

The standard library shows the dates of authorities and of the other end of a connection only, not of our own
certificate's file. RFC 5280, 4.1: a certificate is SEQUENCE { tbs SEQUENCE { [0] version, serial, signature,
issuer, validity SEQUENCE { notBefore, notAfter }, ... } ... } in DER (X.690).
"""

from __future__ import annotations

import calendar
import re

_SEQUENCE, _VERSION, _INTEGER, _UTC_TIME, _GENERALIZED_TIME = 0x30, 0xA0, 0x02, 0x17, 0x18
_BEFORE_VALIDITY = (_INTEGER, _SEQUENCE, _SEQUENCE)  # serial, signature, issuer
_LENGTH_BYTES_MAX = 4
_LONG_FORM = 0x80
_CENTURY_TURN = 50
_TIME = re.compile(rb"(\d{2}|\d{4})(\d{2})(\d{2})(\d{2})(\d{2})(\d{2})Z")


def validity(der: bytes) -> tuple[int, int]:
    """From when to when a certificate holds, in seconds since 1970.

    Raises:
        ValueError: the bytes are no certificate.
    """
    whole, _ = _element(der, 0, _SEQUENCE)
    tbs, _ = _element(whole, 0, _SEQUENCE)
    at = 0
    if tbs[:1] == bytes([_VERSION]):
        _, at = _element(tbs, at, _VERSION)
    for kind in _BEFORE_VALIDITY:
        _, at = _element(tbs, at, kind)
    dates, _ = _element(tbs, at, _SEQUENCE)
    begin, at = _time(dates, 0)
    end, _ = _time(dates, at)
    return begin, end


def _element(data: bytes, at: int, kind: int) -> tuple[bytes, int]:
    """The content of the element at `at`, and where the next one begins."""
    if len(data) < at + 2 or data[at] != kind:
        raise ValueError("this is no certificate")
    size, begin = data[at + 1], at + 2
    if size >= _LONG_FORM:
        count = size - _LONG_FORM
        if not 0 < count <= _LENGTH_BYTES_MAX:
            raise ValueError("this is no certificate")
        size, begin = int.from_bytes(data[begin : begin + count], "big"), begin + count
    if begin + size > len(data):
        raise ValueError("the certificate is cut short")
    return data[begin : begin + size], begin + size


def _time(data: bytes, at: int) -> tuple[int, int]:
    kind = data[at] if at < len(data) else 0
    if kind not in {_UTC_TIME, _GENERALIZED_TIME}:
        raise ValueError("the certificate has no dates")
    content, after = _element(data, at, kind)
    match = _TIME.fullmatch(content)
    if match is None:
        raise ValueError("the certificate has no dates")
    year, *rest = map(int, match.groups())
    if kind == _UTC_TIME:
        year += 2000 if year < _CENTURY_TURN else 1900  # RFC 5280, 4.1.2.5.1
    if not 1 <= rest[0] <= 12 or not 1 <= rest[1] <= 31:  # noqa: PLR2004 - months and days
        raise ValueError("the certificate has impossible dates")
    return calendar.timegm((year, *rest, 0, 0, 0)), after
