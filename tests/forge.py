"""Makes messages as the fleet makes them, with whatever a test wants to be wrong, and forged signatures."""

import base64
import datetime as dt
import hashlib
import hmac
import io
import json
import random
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from nacl.signing import SigningKey
from wire_fleet import now, task

from agent.protocol import framing, jws

TAIL: Final = bytes(8)
INPUT: Final = {"name": "x", "datatype": "UINT8", "shape": [2, 4], "parameters": {"binary_data_size": 8}}
ORDER: Final = 2**252 + 27742317777372353535851937790883648493
"""Of Ed25519's group (RFC 8032 section 5.1)."""


def b64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def header(**changes: Any) -> str:
    """A protected header of the contract with members replaced; None takes one away."""
    whole = {"alg": "Ed25519", "kid": "fleet", "b64": False, "crit": ["b64"]} | changes
    return json.dumps(
        {name: value for name, value in whole.items() if value is not None}, separators=(",", ":")
    )


@dataclass(frozen=True, slots=True)
class Forge:
    """Makes messages under one id, the same bytes each time. The car trusts `fleet`, not or no more the other keys."""

    id: str
    at: dt.datetime
    fleet: SigningKey
    revoked: SigningKey
    stranger: SigningKey

    def fields(self, **changes: Any) -> dict[str, Any]:
        """A task that would be taken and answered, with members replaced."""
        later = self.at + dt.timedelta(minutes=5)
        good, _ = task(self.id, inputs=[], issued_at=self.at, expires_at=later)
        fields: dict[str, Any] = json.loads(framing.encode(good))
        return fields | {"inputs": [INPUT]} | changes

    def line(self, **changes: Any) -> bytes:
        return json.dumps(self.fields(**changes)).encode()

    def task(self, tail: bytes = TAIL, **changes: Any) -> bytes:
        return self.line(**changes) + b"\n" + tail

    def with_member(self, name: str, text: bytes) -> bytes:
        """A task with one more member, whose value is `text` as it is."""
        return b'%b,"%b":%b}\n%b' % (self.line()[:-1], name.encode(), text, TAIL)

    def tensor(self, tail: bytes = b"", **changes: Any) -> bytes:
        """A task whose one input has members replaced; None takes one away."""
        changed = {name: value for name, value in (INPUT | changes).items() if value is not None}
        return self.task(tail, inputs=[changed])

    def control(self, kind: str = "cancel", **changes: Any) -> bytes:
        message = {
            "type": kind,
            "audience": "veh-1",
            "issued_at": self.at.isoformat(),
            "id": self.id,
            "attempt": 1,
        }
        return json.dumps(message | changes).encode()

    def signed(self, body: bytes) -> bytes:
        return jws.sign(body, self.fleet, "fleet")

    def under(self, header: str, sign: Callable[[bytes], bytes] | None = None) -> bytes:
        """A good task under a signature line with this header; the fleet's own signature by default."""
        body, segment = self.task(), b64(header.encode())
        signature = (sign or self._sign)(segment + b"." + body)
        return segment + b".." + b64(signature) + b"\n" + body

    def _sign(self, message: bytes) -> bytes:
        return self.fleet.sign(message).signature


Make = Callable[[Forge], bytes]


def of_model(**changes: str) -> Make:
    return lambda f: f.task(model=f.fields()["model"] | changes)


def from_url(url: str) -> Make:
    return lambda f: f.line(inputs_url=url, inputs_sha256=hashlib.sha256(TAIL).hexdigest())


def mac(key: bytes) -> Callable[[bytes], bytes]:
    """An HMAC where the signature belongs, as long as one: its secret is what everybody knows, a public key."""
    return lambda message: hmac.digest(key, message, "sha512")


def pem(key: SigningKey) -> bytes:
    spki = bytes.fromhex("302a300506032b6570032100") + bytes(key.verify_key)
    return b"-----BEGIN PUBLIC KEY-----\n%b\n-----END PUBLIC KEY-----\n" % base64.b64encode(spki)


def jwk(key: SigningKey) -> dict[str, str]:
    return {"kty": "OKP", "crv": "Ed25519", "x": b64(bytes(key.verify_key)).decode()}


def malleated(f: Forge) -> bytes:
    """A second signature of the fleet's own key, which anybody can make of the first: S + L for S."""

    def sign(message: bytes) -> bytes:
        signature = f.fleet.sign(message).signature
        scalar = int.from_bytes(signature[32:], "little") + ORDER
        return signature[:32] + scalar.to_bytes(32, "little")

    return f.under(header(), sign)


def of_another_message(f: Forge) -> bytes:
    line, _ = jws.split(f.signed(f.task(priority=1)))
    assert line is not None
    return line + b"\n" + f.task()


def noise(size: int) -> bytes:
    return random.Random(6).randbytes(size)  # noqa: S311 - the same noise in every run


def zipped(data: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("task.json", data)
    return file.getvalue()


def ago(**span: float) -> str:
    return (now() - dt.timedelta(**span)).isoformat()
