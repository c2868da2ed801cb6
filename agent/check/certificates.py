"""Until when the certificates of a file are valid. The standard library reads them only once they are trusted.

RFC 5280, section 4.1: TBSCertificate holds version, serial number, signature, issuer and then validity; section
4.1.2.5 says how its two times are written.
"""

import base64
import binascii
import datetime as dt
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PEM: Final = re.compile(rb"-----BEGIN CERTIFICATE-----(.+?)-----END CERTIFICATE-----", re.DOTALL)
SEQUENCE: Final = 0x30
VERSION: Final = 0xA0
UTC_TIME: Final = 0x17
LONG_LENGTH: Final = 0x80
FIELDS_BEFORE_VALIDITY: Final = 3
"""Serial number, signature and issuer."""


@dataclass(frozen=True, slots=True)
class Validity:
    """From when to when a certificate holds."""

    begins: dt.datetime
    ends: dt.datetime


def validities(path: Path) -> list[Validity]:
    """Of every certificate in a PEM file, in its order; raises ValueError for what is none, or OSError."""
    try:
        return [_validity(base64.b64decode(body)) for body in PEM.findall(path.read_bytes())]
    except (IndexError, binascii.Error) as error:
        raise ValueError("holds something that is no certificate") from error


def _validity(der: bytes) -> Validity:
    _, certificate, _ = _element(der)
    _, fields, _ = _element(certificate)
    tag, _, behind = _element(fields)
    if tag == VERSION:
        fields = behind
    for _ in range(FIELDS_BEFORE_VALIDITY):
        _, _, fields = _element(fields)
    tag, times, _ = _element(fields)
    if tag != SEQUENCE:
        raise ValueError("holds something that is no certificate")
    begin_tag, begins, rest = _element(times)
    end_tag, ends, _ = _element(rest)
    return Validity(_time(begin_tag, begins), _time(end_tag, ends))


def _element(der: bytes) -> tuple[int, bytes, bytes]:
    """Tag and content of the first element, and what follows it (X.690, section 8.1)."""
    tag, length, start = der[0], der[1], 2
    if length >= LONG_LENGTH:
        start += length - LONG_LENGTH
        length = int.from_bytes(der[2:start])
    return tag, der[start : start + length], der[start + length :]


def _time(tag: int, text: bytes) -> dt.datetime:
    """`YYMMDDHHMMSSZ`, where 50 and above are of the last century, or the same with four digits of the year."""
    digits = text.decode("ascii")
    if tag == UTC_TIME:
        digits = ("19" if int(digits[:2]) >= 50 else "20") + digits
    return dt.datetime.strptime(digits, "%Y%m%d%H%M%SZ").replace(tzinfo=dt.UTC)
