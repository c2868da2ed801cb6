"""Signed messages: a detached JWS in a line of its own, over every byte that follows that line.

RFC 7515 appendix F (detached), RFC 7797 (unencoded payload), RFC 9864 (`Ed25519`). The signature is
verified before anything of the body is parsed. Only libsodium's binding is imported: the agent has no
use for a whole cryptography library.
"""

import base64
import binascii
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Final, Literal

import msgspec
from nacl import bindings, exceptions

from agent.protocol import strict_json
from agent.protocol.messages import Id
from agent.protocol.reasons import Reason, Refused

if TYPE_CHECKING:
    from nacl.signing import SigningKey

LINE_MAX_BYTES: Final = 512
"""Twice the longest line that is legal: 170 bytes of header with a kid of 64 characters, 86 of signature."""


class SignatureRefused(Refused):
    """A message that is not signed, in the contract's way, by a key that is trusted here."""


class _Header(msgspec.Struct, forbid_unknown_fields=True):
    """The protected header: exactly these members with exactly these values."""

    alg: Literal["Ed25519"]
    kid: Id
    b64: Literal[False]
    crit: tuple[Literal["b64"]]


_HEADER = msgspec.json.Decoder(_Header)


def sign(body: bytes, key: "SigningKey", kid: str) -> bytes:
    """`body` with its signature line in front; `kid` names the key to the other side."""
    header = _base64url(msgspec.json.encode(_Header("Ed25519", kid, False, ("b64",))))
    signature = key.sign(header + b"." + body).signature
    return b"%b..%b\n%b" % (header, _base64url(signature), body)


def split(payload: bytes) -> tuple[bytes | None, bytes]:
    """The signature line, None for an unsigned payload, and the exact bytes that it covers."""
    if payload.startswith(b"{"):
        return None, payload
    line, _, body = payload.partition(b"\n")
    return line, body


class Verifier:
    """Verifies signatures against the Ed25519 public keys (32 bytes) that are trusted here, by key id.

    A key id in `revoked` is never trusted.
    """

    def __init__(self, public_keys: Mapping[str, bytes], revoked: Collection[str] = ()) -> None:
        for kid, key in public_keys.items():
            if len(key) != bindings.crypto_sign_PUBLICKEYBYTES:
                raise ValueError(f"public key {kid!r} has {len(key)} bytes: an Ed25519 key has 32")
        self._public_keys = dict(public_keys)
        self._revoked = frozenset(revoked)

    def verify(self, signature_line: bytes, body: bytes) -> str:
        """The id of the key that signed `body`; raises `SignatureRefused` (120, 121)."""
        header, signature = _segments(signature_line)
        kid = _key_id(header)
        if kid in self._revoked:
            raise SignatureRefused(Reason.UNKNOWN_KEY, f"key {kid!r} is revoked")
        public_key = self._public_keys.get(kid)
        if public_key is None:
            raise SignatureRefused(Reason.UNKNOWN_KEY, f"key {kid!r} is not among the trusted keys")
        try:
            bindings.crypto_sign_open(signature + header + b"." + body, public_key)
        except exceptions.BadSignatureError:
            raise _bad(f"the signature is not one of key {kid!r} over this body") from None
        return kid


def _segments(line: bytes) -> tuple[bytes, bytes]:
    """The header as it was signed, and the 64 bytes of the signature."""
    segments = line.split(b".") if len(line) <= LINE_MAX_BYTES else []
    if len(segments) != 3 or segments[1]:
        raise _bad(
            "the first line is no detached JWS: a signed message starts with `header..signature`, "
            "an unsigned one with `{`"
        )
    signature = _from_base64url(segments[2])
    if len(signature) != bindings.crypto_sign_BYTES:
        raise _bad(f"the signature has {len(signature)} bytes: Ed25519 has {bindings.crypto_sign_BYTES}")
    return segments[0], signature


def _key_id(header: bytes) -> str:
    text = _from_base64url(header)
    try:
        return strict_json.decode(_HEADER, text).kid
    except Refused as refused:
        raise _bad(f"protected header: {refused.text}") from None


def _bad(text: str) -> SignatureRefused:
    return SignatureRefused(Reason.BAD_SIGNATURE, text)


def _base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _from_base64url(text: bytes) -> bytes:
    """The bytes; raises `SignatureRefused` unless `text` is the one way to write them (RFC 7515 section 2)."""
    try:
        data = base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4))
    except binascii.Error:
        data = b""
    if _base64url(data) != text:
        raise _bad("a part of the signature line is not base64url without padding")
    return data
