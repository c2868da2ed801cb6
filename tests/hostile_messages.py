"""What a hostile, broken or forged sender can put on a car's topics, and what each message is refused with.

Every message is made by a `Forge` under an id of its own, so that a refusal can be told from all others.
"""

import enum
import gzip
import itertools
import re
from dataclasses import dataclass, field
from typing import Any, Final

from forge import (
    INPUT,
    TAIL,
    Forge,
    Make,
    ago,
    b64,
    from_url,
    header,
    jwk,
    mac,
    malleated,
    noise,
    of_another_message,
    of_model,
    pem,
    zipped,
)

from agent.protocol import jws
from agent.protocol.reasons import Reason

MAX_PAYLOAD_BYTES: Final = 950_000
"""`mqtt.max_payload_bytes` of the car: 10,000 inputs fit into a message."""
OWNERS: Final = "../../owner"
"""A folder of the car's owner, from the agent's own: a car that fell for it would harm the test's files, no others."""
HUGE: Final = b"9" * 100_000
DEEP: Final = 100_000
BOMB: Final = bytes(20_000_000)


class Ends(enum.Enum):
    """What becomes of a message."""

    DROPPED = "counted and logged; nobody can be told, because nobody is known or believed"
    REJECTED = "counted and logged, and the fleet is told"
    FAILED = "taken as a task that then fails, and the fleet is told"
    ANSWERED = "harmless: a task like any other"


@dataclass(frozen=True, slots=True)
class Case:
    """One message, or with `after` several; `item` is the kind of hostility that it stands for."""

    item: str
    name: str
    make: Make
    ends: Ends
    reason: Reason | None = None
    topic: str = "task"
    sealed: bool = True
    """Signed with the trusted key: what comes from the fleet itself, or from whoever stole its key."""
    after: tuple[Make, ...] = ()
    """Harmless messages that are sent before it, signed with the trusted key."""
    qos: int = 1
    retain: bool = False
    properties: dict[str, Any] = field(default_factory=dict)
    """Properties of the MQTT packet, as paho names them."""

    @property
    def id(self) -> str:
        return re.sub(r"[^A-Za-z0-9]+", "-", f"{self.item} {self.name}")[:64].strip("-")

    def payloads(self, forge: Forge) -> list[bytes]:
        made = self.make(forge)
        return [
            *(forge.signed(make(forge)) for make in self.after),
            forge.signed(made) if self.sealed else made,
        ]


def dropped(item: str, name: str, make: Make, reason: Reason = Reason.MALFORMED, **terms: Any) -> Case:
    return Case(item, name, make, Ends.DROPPED, reason, **terms)


def rejected(item: str, name: str, make: Make, reason: Reason = Reason.MALFORMED, **terms: Any) -> Case:
    return Case(item, name, make, Ends.REJECTED, reason, **terms)


def answered(item: str, name: str, make: Make, **terms: Any) -> Case:
    return Case(item, name, make, Ends.ANSWERED, **terms)


def forged(item: str, name: str, make: Make, reason: Reason = Reason.BAD_SIGNATURE) -> Case:
    return Case(item, name, make, Ends.DROPPED, reason, sealed=False)


BYTES = (
    forged("empty", "payload", lambda _: b""),
    forged("empty", "lines", lambda _: b"\n\n"),
    dropped("empty", "body", lambda _: b""),
    dropped("empty", "line of JSON", lambda _: b"\n" + TAIL),
    forged("random", "payload", lambda _: noise(1000)),
    dropped("random", "body", lambda _: noise(1000)),
    dropped("random", "body on control", lambda _: noise(1000), topic="control"),
    forged("truncated", "signature", lambda f: f.signed(f.task())[:60]),
    forged("truncated", "signed bytes", lambda f: f.signed(f.task())[:-1]),
    dropped("truncated", "JSON", lambda f: f.line()[:-30]),
    rejected("truncated", "tensors", lambda f: f.task(TAIL[:-3]), Reason.BAD_TENSOR),
    rejected("truncated", "before the tensors", lambda f: f.line(), Reason.BAD_TENSOR),
    forged("trailing bytes", "behind the signed ones", lambda f: f.signed(f.task()) + b"\n"),
    rejected("trailing bytes", "behind the tensors", lambda f: f.task(TAIL + b"!"), Reason.BAD_TENSOR),
    dropped("trailing bytes", "on the line", lambda f: f.line() + b"{}\n" + TAIL),
    dropped("trailing bytes", "control", lambda f: f.control() + b"\n" + f.control(), topic="control"),
    forged("BOM", "payload", lambda f: b"\xef\xbb\xbf" + f.task()),
    dropped("BOM", "body", lambda f: b"\xef\xbb\xbf" + f.task()),
    dropped("BOM", "UTF-16", lambda f: f.line().decode().encode("utf-16")),
    dropped("invalid UTF-8", "id", lambda f: f.task().replace(f.id.encode(), b"\xff\xfe")),
    rejected("invalid UTF-8", "ignored member", lambda f: f.with_member("note", b'"\xc3\x28"')),
    rejected("invalid UTF-8", "overlong", lambda f: f.with_member("note", b'"\xc0\xaf"')),
    dropped("NUL", "body", lambda _: bytes(1000)),
    dropped("NUL", "before the JSON", lambda f: b"\0" + f.task()),
    dropped("NUL", "id", lambda f: f.task(id="a\0b")),
    rejected("NUL", "model name", lambda f: f.task(model=f.fields()["model"] | {"name": "m\0"})),
    dropped("NUL", "raw", lambda f: f.with_member("note", b'"\0"')),
    answered("NUL", "ignored member", lambda f: f.task(note="\0")),
    dropped("compressed bombs", "gzip", lambda _: gzip.compress(BOMB)),
    forged("compressed bombs", "gzip unsigned", lambda _: gzip.compress(BOMB)),
    dropped("compressed bombs", "zip", lambda _: zipped(BOMB)),
    rejected(
        "compressed bombs",
        "tensor",
        lambda f: f.task(gzip.compress(BOMB), content_encoding="gzip"),
        Reason.BAD_TENSOR,
    ),
)

TEXTS = (
    dropped("surrogates", "id", lambda f: f.task(id="\ud800")),
    dropped("surrogates", "model name", lambda f: f.task(model=f.fields()["model"] | {"name": "\udfff"})),
    dropped("surrogates", "ignored member", lambda f: f.task(note="\ud800\ud800")),
    dropped("100,000-deep nesting", "bare", lambda _: b"[" * DEEP),
    dropped("100,000-deep nesting", "objects", lambda _: b'{"a":' * DEEP),
    dropped("100,000-deep nesting", "on control", lambda _: b"[" * DEEP + b"]" * DEEP, topic="control"),
    dropped(
        "100,000-deep nesting", "ignored member", lambda f: f.with_member("note", b"[" * DEEP + b"]" * DEEP)
    ),
    dropped(
        "100,000-deep nesting",
        "parameters",
        lambda f: f.with_member("parameters", b'{"a":' * DEEP + b"0" + b"}" * DEEP),
    ),
    dropped("huge integers", "attempt", lambda f: f.task().replace(b'"attempt": 1', b'"attempt": ' + HUGE)),
    dropped("huge integers", "attempt of 2 to the 64", lambda f: f.task(attempt=2**64)),
    rejected("huge integers", "priority", lambda f: f.task(priority=-(2**70))),
    rejected("huge integers", "lease", lambda f: f.task(lease_s=10**300)),
    rejected("huge integers", "exponent", lambda f: f.with_member("limits", b'{"runtime_s":1e999}')),
    answered("huge integers", "ignored member", lambda f: f.with_member("note", HUGE)),
    dropped("NaN", "lease", lambda f: f.task(lease_s=float("nan"))),
    dropped("NaN", "limit", lambda f: f.task(limits={"runtime_s": float("inf")})),
    dropped("NaN", "data", lambda f: f.tensor(datatype="FP32", parameters=None, data=[float("nan")] * 8)),
    dropped("NaN", "ignored member", lambda f: f.task(note=float("-inf"))),
    rejected("duplicate keys", "id", lambda f: b'{"id":"other",' + f.task()[1:]),
    rejected("duplicate keys", "escaped", lambda f: b'{"\\u0061ttempt":9,' + f.task()[1:]),
    rejected("duplicate keys", "model", lambda f: b'{"model":{"sha256":"","sha256":""},' + f.task()[1:]),
    rejected("duplicate keys", "ignored", lambda f: f.with_member("note", b'[{"a":1,"a":1}]')),
    dropped("wrong types", "array", lambda f: b"[" + f.line() + b"]"),
    dropped("wrong types", "null", lambda _: b"null"),
    dropped("wrong types", "id", lambda f: f.task(id=7)),
    dropped("wrong types", "attempt is text", lambda f: f.task(attempt="1")),
    dropped("wrong types", "attempt is true", lambda f: f.task(attempt=True)),
    rejected("wrong types", "model", lambda f: f.task(model="null")),
    rejected("wrong types", "inputs", lambda f: f.task(inputs={"x": INPUT})),
    rejected("wrong types", "shape", lambda f: f.tensor(TAIL, shape="24")),
    rejected("wrong types", "rows", lambda f: f.task(rows=[0.5, 1])),
    rejected("wrong types", "time", lambda f: f.task(issued_at=0)),
    rejected("wrong types", "a control on the task topic", lambda f: f.control()),
    dropped("wrong types", "a task on the control topic", lambda f: f.line(), topic="control"),
    dropped("wrong types", "unknown control", lambda f: f.control("reboot"), topic="control"),
    dropped(
        "wrong types", "settled", lambda f: f.control("settled", results=[[f.id, 1, -1, 2]]), topic="control"
    ),
)

TENSORS = (
    rejected("10,000 inputs", "listed", lambda f: f.task(b"", inputs=[INPUT] * 10_000)),
    rejected(
        "10,000 inputs",
        "65",
        lambda f: f.task(bytes(65), inputs=[INPUT | {"name": f"x{i}"} for i in range(65)]),
    ),
    rejected(
        "overflowing shapes",
        "2 to the 64",
        lambda f: f.tensor(b"", shape=[2**31, 2**31, 4], parameters={"binary_data_size": 0}),
        Reason.BAD_TENSOR,
    ),
    rejected(
        "overflowing shapes", "2 to the 248", lambda f: f.tensor(TAIL, shape=[2**31] * 8), Reason.BAD_TENSOR
    ),
    rejected("overflowing shapes", "dimension", lambda f: f.tensor(TAIL, shape=[2**63])),
    rejected("overflowing shapes", "nine dimensions", lambda f: f.tensor(TAIL, shape=[1] * 9)),
    rejected(
        "overflowing shapes",
        "data",
        lambda f: f.tensor(shape=[1, 2**31, 2**31], parameters=None, data=[1]),
        Reason.BAD_TENSOR,
    ),
    rejected("overflowing shapes", "size", lambda f: f.tensor(TAIL, parameters={"binary_data_size": 2**60})),
    rejected("overflowing shapes", "rows", lambda f: f.task(rows=[0, 2**31]), Reason.BAD_TENSOR),
    rejected("negative shapes", "dimension", lambda f: f.tensor(TAIL, shape=[-2, -4])),
    rejected("negative shapes", "none at all", lambda f: f.tensor(TAIL, shape=[0, 4])),
    rejected("negative shapes", "size", lambda f: f.tensor(TAIL, parameters={"binary_data_size": -8})),
    rejected("negative shapes", "rows", lambda f: f.task(rows=[-1, 1])),
    rejected("negative shapes", "backwards", lambda f: f.task(rows=[1, 0]), Reason.BAD_TENSOR),
    rejected("dtype and size mismatch", "FP64", lambda f: f.tensor(TAIL, datatype="FP64"), Reason.BAD_TENSOR),
    rejected("dtype and size mismatch", "BYTES", lambda f: f.tensor(TAIL, datatype="BYTES")),
    rejected("dtype and size mismatch", "shape", lambda f: f.tensor(TAIL, shape=[2, 5]), Reason.BAD_TENSOR),
    rejected(
        "dtype and size mismatch",
        "BOOL",
        lambda f: f.tensor(b"\0\1\2\0\0\0\0\0", datatype="BOOL"),
        Reason.BAD_TENSOR,
    ),
    rejected(
        "dtype and size mismatch", "both forms", lambda f: f.tensor(TAIL, data=[0] * 8), Reason.BAD_TENSOR
    ),
    rejected("dtype and size mismatch", "no form", lambda f: f.tensor(parameters=None), Reason.BAD_TENSOR),
    rejected(
        "dtype and size mismatch",
        "text",
        lambda f: f.tensor(parameters=None, data=["0"] * 8),
        Reason.BAD_TENSOR,
    ),
    rejected(
        "dtype and size mismatch",
        "range",
        lambda f: f.tensor(parameters=None, data=[256] * 8),
        Reason.BAD_TENSOR,
    ),
    rejected(
        "dtype and size mismatch",
        "ragged",
        lambda f: f.tensor(parameters=None, data=[[0] * 5, [0] * 3]),
        Reason.BAD_TENSOR,
    ),
    rejected(
        "dtype and size mismatch",
        "rows differ",
        lambda f: f.task(TAIL * 2, inputs=[INPUT, INPUT | {"name": "y", "shape": [4, 2]}]),
        Reason.BAD_TENSOR,
    ),
    rejected(
        "dtype and size mismatch",
        "name twice",
        lambda f: f.task(TAIL * 2, inputs=[INPUT] * 2),
        Reason.BAD_TENSOR,
    ),
    rejected(
        "dtype and size mismatch",
        "only shared",
        lambda f: f.tensor(TAIL, parameters={"binary_data_size": 8, "shared": True}),
        Reason.BAD_TENSOR,
    ),
    rejected(
        "dtype and size mismatch",
        "body over the limit",
        lambda f: f.tensor(bytes(MAX_PAYLOAD_BYTES), shape=[1, MAX_PAYLOAD_BYTES]),
        Reason.TOO_LARGE,
    ),
)


CLEAR: Final = "\x1b[2J\x1b]0;owned\x07"
NAMES = (
    dropped("ANSI escapes in ids", "id", lambda f: f.task(id=CLEAR)),
    dropped("ANSI escapes in ids", "C1", lambda f: f.task(id="\x9b2J")),
    dropped("ANSI escapes in ids", "line end", lambda f: f.task(id=f"{f.id}\n")),
    rejected("ANSI escapes in ids", "audience", lambda f: f.task(audience=CLEAR)),
    rejected("ANSI escapes in ids", "model name", of_model(name=CLEAR)),
    rejected("ANSI escapes in ids", "model format", of_model(format=CLEAR * 100)),
    rejected("ANSI escapes in ids", "backend", lambda f: f.task(backend=CLEAR)),
    rejected("ANSI escapes in ids", "input name", lambda f: f.tensor(TAIL, name=f"x{CLEAR}")),
    rejected("ANSI escapes in ids", "output name", lambda f: f.task(outputs=[{"name": CLEAR}])),
    dropped("ANSI escapes in ids", "control", lambda f: f.control(CLEAR), topic="control"),
    answered("ANSI escapes in ids", "right to left", of_model(name="m\u202egpj.exe")),
    dropped("path traversal in every name", "id", lambda f: f.task(id=f"{OWNERS}/secret")),
    dropped("path traversal in every name", "id with wildcards", lambda f: f.task(id="+/#")),
    rejected("path traversal in every name", "audience", lambda f: f.task(audience="../veh-1")),
    rejected("path traversal in every name", "model hash", of_model(sha256=f"{OWNERS}/secret")),
    rejected("path traversal in every name", "absolute model hash", of_model(sha256="/nowhere/at/all")),
    answered("path traversal in every name", "model name", of_model(name=f"{OWNERS}/secret")),
    answered("path traversal in every name", "model version", of_model(version=f"{OWNERS}/new")),
    rejected("path traversal in every name", "model format", of_model(format="../onnx")),
    rejected("path traversal in every name", "residency", lambda f: f.task(residency=["../BR"])),
    rejected(
        "path traversal in every name",
        "backend",
        lambda f: f.task(backend=f"{OWNERS}/secret"),
        Reason.BACKEND_UNUSABLE,
    ),
    rejected(
        "path traversal in every name",
        "backend from a module",
        lambda f: f.task(backend="hostile_backends:Hostile"),
        Reason.BACKEND_UNUSABLE,
    ),
    answered("path traversal in every name", "input name", lambda f: f.tensor(TAIL, name=f"{OWNERS}/new")),
    Case(
        "path traversal in every name",
        "output name",
        lambda f: f.task(outputs=[{"name": f"{OWNERS}/new"}]),
        Ends.FAILED,
        Reason.MODEL_UNSUPPORTED,
    ),
)

CLAIMS = (
    rejected("wrong audience", "task", lambda f: f.task(audience="veh-2"), Reason.WRONG_AUDIENCE),
    rejected("wrong audience", "all", lambda f: f.task(audience="ALL"), Reason.WRONG_AUDIENCE),
    dropped(
        "wrong audience",
        "cancel",
        lambda f: f.control(audience="veh-2"),
        Reason.WRONG_AUDIENCE,
        topic="control",
    ),
    dropped(
        "wrong audience",
        "drain",
        lambda f: f.control("drain", audience="veh-2"),
        Reason.WRONG_AUDIENCE,
        topic="control",
    ),
    rejected("expired", "a second ago", lambda f: f.task(expires_at=ago(seconds=1)), Reason.EXPIRED),
    rejected(
        "expired",
        "in the year 1",
        lambda f: f.task(issued_at="0001-01-01T00:00:00Z", expires_at="0001-01-01T00:00:01Z"),
        Reason.EXPIRED,
    ),
    rejected(
        "from the future",
        "a month ahead",
        lambda f: f.task(issued_at=ago(days=-30), expires_at=ago(days=-31)),
        Reason.UNKNOWN_SIGNAL,
    ),
    rejected(
        "from the future",
        "the last moment of all",
        lambda f: f.task(issued_at="9999-12-31T23:59:59.999999Z", expires_at="9999-12-31T23:59:59.999999Z"),
        Reason.UNKNOWN_SIGNAL,
    ),
    rejected(
        "replays",
        "an old task",
        lambda f: f.task(issued_at=ago(hours=2), expires_at=ago(hours=1)),
        Reason.EXPIRED,
    ),
    dropped(
        "from the future",
        "a drain that no resume can follow",
        lambda f: f.control("drain", issued_at="9999-12-31T23:59:59Z"),
        Reason.UNKNOWN_SIGNAL,
        topic="control",
    ),
    answered("replays", "a true repeat", Forge.task, after=(Forge.task,)),
    rejected(
        "replays",
        "an older attempt",
        lambda f: f.task(),
        Reason.STALE_ATTEMPT,
        after=(lambda f: f.task(attempt=2),),
    ),
    rejected(
        "same id with another body",
        "other rows",
        lambda f: f.task(rows=[0, 1]),
        Reason.REPLAYED,
        after=(Forge.task,),
    ),
    rejected(
        "same id with another body",
        "other tensors",
        lambda f: f.task(b"\1" * 8),
        Reason.REPLAYED,
        after=(Forge.task,),
    ),
    rejected(
        "same id with another body",
        "a space",
        lambda f: f.task().replace(b": ", b":  "),
        Reason.REPLAYED,
        after=(Forge.task,),
    ),
)


SIGNATURES = (
    forged("no signature", "task", Forge.task),
    Case(
        "no signature", "control", Forge.control, Ends.DROPPED, Reason.BAD_SIGNATURE, "control", sealed=False
    ),
    forged("no signature", "of another message", of_another_message),
    forged("no signature", "malleated", malleated),
    forged("no signature", "long", lambda f: b"A" * 10_000 + f.signed(f.task())),
    forged("no signature", "attached", lambda f: b"a." + b64(f.task()) + b".b\n" + f.task()),
    forged("no signature", "padded", lambda f: f.signed(f.task()).replace(b"\n", b"==\n", 1)),
    forged("no signature", "CR LF", lambda f: f.signed(f.task()).replace(b"\n", b"\r\n", 1)),
    dropped("no signature", "twice", lambda f: f.signed(f.task())),
    forged("alg none", "empty", lambda f: f.under(header(alg="none"), lambda _: b"")),
    forged("alg none", "signed", lambda f: f.under(header(alg="none"))),
    forged("alg none", "missing", lambda f: f.under(header(alg=None))),
    forged("HS256", "public key", lambda f: f.under(header(alg="HS256"), mac(bytes(f.fleet.verify_key)))),
    forged("HS256", "key file", lambda f: f.under(header(alg="HS256"), mac(pem(f.fleet)))),
    forged("HS256", "old name", lambda f: f.under(header(alg="EdDSA"))),
    forged("unknown crit", "exp", lambda f: f.under(header(crit=["b64", "exp"]))),
    forged("unknown crit", "empty", lambda f: f.under(header(crit=[]))),
    forged("unknown crit", "missing", lambda f: f.under(header(crit=None))),
    forged("unknown crit", "encoded payload", lambda f: f.under(header(b64=True))),
    forged("unknown crit", "more members", lambda f: f.under(header(typ="JOSE"))),
    forged("unknown crit", "kid twice", lambda f: f.under(header().replace("{", '{"kid":"x",'))),
    forged(
        "unknown key", "stranger", lambda f: jws.sign(f.task(), f.stranger, "stranger"), Reason.UNKNOWN_KEY
    ),
    forged("unknown key", "under the fleet's name", lambda f: jws.sign(f.task(), f.stranger, "fleet")),
    forged(
        "unknown key",
        "that the message brings along",
        lambda f: f.under(header(jwk=jwk(f.stranger)), lambda message: f.stranger.sign(message).signature),
    ),
    forged("unknown key", "at an address", lambda f: f.under(header(jku="https://example.org/keys"))),
    forged("unknown key", "by path", lambda f: f.under(header(kid=f"{OWNERS}/stranger"))),
    forged("unknown key", "by escape", lambda f: f.under(header(kid=CLEAR))),
    forged(
        "revoked key", "by a file", lambda f: jws.sign(f.task(), f.revoked, "revoked"), Reason.UNKNOWN_KEY
    ),
    forged(
        "revoked key", "by removal", lambda f: jws.sign(f.task(), f.revoked, "removed"), Reason.UNKNOWN_KEY
    ),
)

METADATA: Final = (
    "http://169.254.169.254/latest/meta-data/",
    "https://169.254.169.254/latest/meta-data/",
    "https://169.254.169.254.:443/",
    "https://[::ffff:169.254.169.254]/",
    "https://[fd00:ec2::254]/latest/",
    "https://2852039166/",
    "https://0xa9fea9fe/",
    "https://metadata.google.internal/computeMetadata/v1/",
    "https://169.254.169.254@example.org/",
    "https://example.org\\@169.254.169.254/",
    "https://127.0.0.1:1883/",
    "https://localhost/",
    "file:///proc/self/environ",
    f"file://{OWNERS}/secret",
    "gopher://169.254.169.254/",
    "//169.254.169.254/",
    "https://exa\tmple.org/",
    "https://[::1",
    "https://\u202e\x1b[2J/",
)


ADDRESSES = tuple(
    rejected("URLs to metadata addresses", f"{number}", from_url(url), Reason.INPUT_FETCH)
    for number, url in enumerate(METADATA)
)

ELSEWHERE: Final = {
    "ResponseTopic": "fleet/v1/br/veh-2/control",
    "CorrelationData": bytes(10_000),
    "ContentType": "application/gzip",
    "UserProperty": [("content-encoding", "gzip"), ("reply-to", "$SYS/#"), ("\ufeffkey", "\ufeff")],
    "PayloadFormatIndicator": 1,
}
DELIVERY = (
    dropped("retained tasks", "signed", Forge.task, retain=True),
    dropped("retained tasks", "control", lambda f: f.control("drain"), topic="control", retain=True),
    dropped("QoS 0 and 2", "0", Forge.task, qos=0),
    dropped("QoS 0 and 2", "control with 0", lambda f: f.control("drain"), topic="control", qos=0),
    answered("QoS 0 and 2", "2 comes as 1", Forge.task, qos=2),
    answered("response topics that point elsewhere", "task", Forge.task, properties=ELSEWHERE),
    rejected(
        "response topics that point elsewhere",
        "refusal",
        lambda f: f.task(priority=999),
        properties=ELSEWHERE,
    ),
)

CASES: Final[dict[str, tuple[Case, ...]]] = {
    "bytes": BYTES,
    "texts": TEXTS,
    "tensors": TENSORS,
    "names": NAMES,
    "claims": CLAIMS,
    "signatures": SIGNATURES,
    "addresses": ADDRESSES,
    "delivery": DELIVERY,
}
ALL: Final = tuple(itertools.chain.from_iterable(CASES.values()))
