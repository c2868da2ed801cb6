"""Nobody without a trusted key gets a word into the car. joserfc is the independent other side."""

import base64
import json
import subprocess
import sys
from typing import Any

import joserfc.errors
import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws as oracle
from joserfc.jwk import OctKey, OKPKey
from nacl.signing import SigningKey

from agent.protocol import jws
from agent.protocol.reasons import Reason

KEY = SigningKey(bytes(range(32)))
PUBLIC_KEY = bytes(KEY.verify_key)
KID = "fleet-2026"
BODY = b'{"id":"01JD","attempt":1}\n\x00\x01\xfe\xff{\n'
HEADER: dict[str, Any] = {"alg": "Ed25519", "kid": KID, "b64": False, "crit": ["b64"]}


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


ORACLE_KEY = OKPKey.import_key(
    {"kty": "OKP", "crv": "Ed25519", "x": b64(PUBLIC_KEY), "d": b64(bytes(KEY)), "kid": KID}
)


@pytest.fixture
def car() -> jws.Verifier:
    return jws.Verifier({KID: PUBLIC_KEY, "another": bytes(SigningKey.generate().verify_key)})


def line_with(header: str, body: bytes = BODY) -> bytes:
    """A signature line that is right in everything but what `header` says."""
    segment = b64(header.encode()).encode()
    return segment + b".." + b64(KEY.sign(segment + b"." + body).signature).encode()


def refusal(car: jws.Verifier, line: bytes, body: bytes = BODY) -> Reason:
    with pytest.raises(jws.SignatureRefused) as refused:
        car.verify(line, body)
    assert refused.value.text
    return refused.value.reason


def test_what_the_fleet_signs_the_car_takes_with_every_byte_unchanged(car: jws.Verifier) -> None:
    line, body = jws.split(jws.sign(BODY, KEY, KID))
    assert line is not None
    assert body == BODY
    assert car.verify(line, body) == KID


def test_joserfc_takes_what_we_sign() -> None:
    line, body = jws.split(jws.sign(BODY, KEY, KID))
    assert line is not None
    taken = oracle.deserialize_compact(line, ORACLE_KEY, algorithms=["Ed25519"], payload=body)
    assert taken.protected == HEADER


def test_the_car_takes_what_joserfc_signs(car: jws.Verifier) -> None:
    body = b'{"id":"01JD"}'
    line = oracle.serialize_compact(HEADER, body, ORACLE_KEY, algorithms=["Ed25519"])
    assert car.verify(line.encode(), body) == KID


def test_a_body_that_starts_with_a_brace_is_unsigned() -> None:
    assert jws.split(BODY) == (None, BODY)


@pytest.mark.parametrize("payload", [b"", b"\n", b" {}", b"\xef\xbb\xbf{}", b"[]", b"\x00" * 2000, b"a..b"])
def test_anything_else_counts_as_signed_and_is_refused(car: jws.Verifier, payload: bytes) -> None:
    line, body = jws.split(payload)
    assert line is not None
    assert refusal(car, line, body) is Reason.BAD_SIGNATURE


def test_no_byte_of_a_signed_message_can_be_changed(car: jws.Verifier) -> None:
    payload = jws.sign(BODY, KEY, KID)
    for position in range(len(payload)):
        for bit in range(8):
            forged = bytearray(payload)
            forged[position] ^= 1 << bit
            line, body = jws.split(bytes(forged))
            assert line is not None
            with pytest.raises(jws.SignatureRefused):
                car.verify(line, body)


@pytest.mark.parametrize("tail", [b"\n", b"\x00", b" ", b"}"])
def test_no_byte_can_be_added_or_taken_at_the_end(car: jws.Verifier, tail: bytes) -> None:
    line, body = jws.split(jws.sign(BODY, KEY, KID))
    assert line is not None
    assert refusal(car, line, body + tail) is Reason.BAD_SIGNATURE
    assert refusal(car, line, body[:-1]) is Reason.BAD_SIGNATURE


@pytest.mark.parametrize(
    "change",
    [
        {"alg": "none"},
        {"alg": "HS256"},
        {"alg": "EdDSA"},
        {"alg": "ed25519"},
        {"b64": True},
        {"b64": 0},
        {"b64": None},
        {"crit": []},
        {"crit": ["b64", "exp"]},
        {"crit": ["b64", "b64"]},
        {"crit": ["exp"]},
        {"crit": "b64"},
        {"kid": 7},
        {"kid": None},
        {"kid": ""},
        {"kid": "../fleet"},
        {"kid": f"{KID}\n"},
        {"typ": "JWT"},
        {"jku": "https://example.org/keys"},
        {"jwk": {"kty": "OKP", "crv": "Ed25519", "x": b64(PUBLIC_KEY)}},
        {"exp": 1},
    ],
    ids=str,
)
def test_a_header_with_another_member_or_value_is_refused_though_its_signature_is_right(
    car: jws.Verifier, change: dict[str, Any]
) -> None:
    assert car.verify(line_with(json.dumps(HEADER)), BODY) == KID
    assert refusal(car, line_with(json.dumps({**HEADER, **change})), BODY) is Reason.BAD_SIGNATURE


@pytest.mark.parametrize("member", list(HEADER))
def test_a_header_without_one_of_its_members_is_refused(car: jws.Verifier, member: str) -> None:
    header = {name: value for name, value in HEADER.items() if name != member}
    assert refusal(car, line_with(json.dumps(header))) is Reason.BAD_SIGNATURE


@pytest.mark.parametrize(
    "header",
    [
        '{"alg":"none","alg":"Ed25519","kid":"fleet-2026","b64":false,"crit":["b64"]}',
        '{"alg":"Ed25519","kid":"another","kid":"fleet-2026","b64":false,"crit":["b64"]}',
        '{"alg":"Ed25519","kid":"fleet-2026","b64":false,"crit":["b64"]} x',
        '["alg","Ed25519"]',
        "null",
        "",
        "[" * 350,
        '{"alg":"Ed25519","kid":"fleet-2026","b64":false,"crit":["b64"],"x":NaN}',
    ],
)
def test_a_header_that_is_not_one_plain_object_is_refused(car: jws.Verifier, header: str) -> None:
    assert refusal(car, line_with(header)) is Reason.BAD_SIGNATURE


def test_the_public_key_used_as_a_shared_secret_signs_nothing(car: jws.Verifier) -> None:
    header = {**HEADER, "alg": "HS256"}
    secret = OctKey.import_key(PUBLIC_KEY)
    body = b'{"id":"01JD"}'
    line = oracle.serialize_compact(header, body, secret, algorithms=["HS256"])
    assert refusal(car, line.encode(), body) is Reason.BAD_SIGNATURE


def test_the_oracle_refuses_a_foreign_key_as_the_car_does(car: jws.Verifier) -> None:
    line, body = jws.split(jws.sign(BODY, SigningKey.generate(), KID))
    assert line is not None
    assert refusal(car, line, body) is Reason.BAD_SIGNATURE
    with pytest.raises(joserfc.errors.BadSignatureError):
        oracle.deserialize_compact(line, ORACLE_KEY, algorithms=["Ed25519"], payload=body)


def test_a_key_that_is_not_trusted_here_is_named(car: jws.Verifier) -> None:
    line, body = jws.split(jws.sign(BODY, KEY, "revoked-2025"))
    assert line is not None
    with pytest.raises(jws.SignatureRefused, match="revoked-2025") as refused:
        car.verify(line, body)
    assert refused.value.reason is Reason.UNKNOWN_KEY


def test_one_trusted_key_cannot_speak_for_another(car: jws.Verifier) -> None:
    line, body = jws.split(jws.sign(BODY, KEY, "another"))
    assert line is not None
    assert refusal(car, line, body) is Reason.BAD_SIGNATURE


def test_an_attached_payload_is_refused(car: jws.Verifier) -> None:
    header, signature = jws.sign(BODY, KEY, KID).split(b"\n", 1)[0].split(b"..")
    for payload in (b64(BODY).encode(), b"x"):
        assert refusal(car, header + b"." + payload + b"." + signature) is Reason.BAD_SIGNATURE
    assert refusal(car, header + b"..." + signature) is Reason.BAD_SIGNATURE
    assert refusal(car, header + b".." + signature + b".") is Reason.BAD_SIGNATURE


@pytest.mark.parametrize("noise", [b"=", b"==", b" ", b"\r", b"\t", b"A", b"AAAA", b"+"])
def test_base64_has_one_spelling(car: jws.Verifier, noise: bytes) -> None:
    header, signature = jws.sign(BODY, KEY, KID).split(b"\n", 1)[0].split(b"..")
    assert refusal(car, header + b".." + signature + noise) is Reason.BAD_SIGNATURE
    assert refusal(car, header + b".." + noise + signature) is Reason.BAD_SIGNATURE
    assert refusal(car, header + noise + b".." + signature) is Reason.BAD_SIGNATURE


def test_the_unused_bits_of_the_last_character_are_not_a_second_spelling(car: jws.Verifier) -> None:
    header, signature = jws.sign(BODY, KEY, KID).split(b"\n", 1)[0].split(b"..")
    decoded = base64.urlsafe_b64decode(signature + b"==")
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    twins = [signature[:-1] + bytes([last]) for last in alphabet if last != signature[-1]]
    same_bytes = [twin for twin in twins if base64.urlsafe_b64decode(twin + b"==") == decoded]
    assert len(same_bytes) == 15
    for twin in same_bytes:
        assert refusal(car, header + b".." + twin) is Reason.BAD_SIGNATURE


def test_a_public_key_of_the_wrong_length_is_refused_before_libsodium_reads_beyond_it() -> None:
    with pytest.raises(ValueError, match="31 bytes"):
        jws.Verifier({KID: bytes(31)})


@given(payload=st.binary(max_size=600))
def test_random_bytes_are_refused_and_nothing_else_happens(payload: bytes) -> None:
    line, body = jws.split(payload)
    if line is not None:
        with pytest.raises(jws.SignatureRefused):
            jws.Verifier({KID: PUBLIC_KEY}).verify(line, body)


@given(
    header=st.one_of(
        st.binary(max_size=80),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.just(KID),
            lambda part: (
                st.lists(part, max_size=3)
                | st.dictionaries(st.sampled_from([*HEADER, "x"]), part, max_size=5)
            ),
        ).map(lambda value: json.dumps(value).encode()),
    ),
    signature=st.binary(min_size=63, max_size=65),
)
def test_hostile_headers_are_refused_and_nothing_else_happens(header: bytes, signature: bytes) -> None:
    line = f"{b64(header)}..{b64(signature)}".encode()
    with pytest.raises(jws.SignatureRefused):
        jws.Verifier({KID: PUBLIC_KEY}).verify(line, BODY)


@given(body=st.binary(max_size=300).map(lambda tail: b"{}\n" + tail))
def test_every_body_survives_signing(body: bytes) -> None:
    line, same = jws.split(jws.sign(body, KEY, KID))
    assert line is not None
    assert same == body
    assert jws.Verifier({KID: PUBLIC_KEY}).verify(line, same) == KID


def test_the_car_verifies_without_the_libraries_that_only_a_fleet_needs() -> None:
    script = (
        "import sys, agent.protocol.jws, agent.protocol.keys, agent.protocol.framing, agent.protocol.tensors;"
        "print([name for name in ('nacl.signing', 'joserfc', 'cryptography', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
