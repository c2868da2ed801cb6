"""What we read and write of MQTT ourselves means the same to paho, and is refused where paho refuses it."""

import contextlib

from fake_broker import string, user_property, varint
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt import _packet
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.exception import MalformedPacket

from agent.link import Hints, packets
from agent.link.properties import pack_hints

V5 = MQTTProtocolVersion.MQTTv5
PROPERTIES = st.lists(
    st.sampled_from(
        [
            b"\x02\0\0\0\x05",
            b"\x03" + string("application/json"),
            b"\x09\0\3abc",
            b"\x0b\x80\x01",
            b"\x23\0\0",  # a topic alias of 0 is none
            b"\x11\0\0\0\1",  # of a CONNECT
            user_property("key", "value"),
            user_property("key", "\0"),
            user_property("key", "value")[:-1],
        ]
    )
).map(b"".join)
BODIES = st.one_of(
    st.binary(max_size=40),
    st.tuples(st.binary(max_size=9), st.integers(0, 65_535), PROPERTIES, st.binary(max_size=20)).map(
        lambda it: len(it[0]).to_bytes(2) + it[0] + it[1].to_bytes(2) + varint(len(it[2])) + it[2] + it[3]
    ),
)
HEADER = b"\x32\0"


@given(BODIES)
def test_a_message_is_read_as_paho_reads_it(body: bytes) -> None:
    theirs = None
    with contextlib.suppress(MalformedPacket):
        theirs = _packet.decode_publish(HEADER[0], body, V5)
    try:
        ours = packets.read_publish(HEADER + body, len(HEADER))
    except Exception:  # noqa: BLE001 - whatever it is, it ends the connection
        return
    assert theirs is not None, "paho calls it malformed"
    assert ours == (theirs.topic, theirs.mid, theirs.payload)


@given(st.binary(max_size=8))
def test_an_acknowledgement_is_read_as_paho_reads_it(body: bytes) -> None:
    theirs = None
    with contextlib.suppress(MalformedPacket):
        theirs = _packet.decode_puback(packets.PUBACK, body, V5)
    try:
        ours = packets.read_puback(b"\x40\0" + body, 2)
    except Exception:  # noqa: BLE001 - as above
        assert theirs is None
        return
    assert theirs is not None, "paho calls it malformed"
    assert ours == (theirs.mid, theirs.reason.value, theirs.reason.getName())


@given(
    topic=st.text(st.characters(codec="utf-8", exclude_characters="+#\0"), min_size=1, max_size=70),
    payload=st.one_of(st.binary(max_size=300), st.integers(16_000, 17_000).map(bytes)),
    packet_id=st.integers(1, 65_535),
    retain=st.booleans(),
    hints=st.builds(
        Hints,
        content_type=st.none() | st.just("application/json"),
        expiry_s=st.none() | st.integers(0, 2**32 - 1),
        correlation=st.none() | st.binary(max_size=20),
    ),
)
def test_a_message_is_written_as_paho_writes_it(
    topic: str, payload: bytes, packet_id: int, retain: bool, hints: Hints
) -> None:
    packed = pack_hints(hints)
    client = Client(CallbackAPIVersion.VERSION2, protocol=V5)
    remaining = 2 + len(topic.encode()) + 2 + len(packed) + len(payload)
    theirs = client._pack_remaining_length(bytearray([0x32 | retain]), remaining)
    client._pack_str16(theirs, topic)
    theirs += packet_id.to_bytes(2) + packed + payload
    assert packets.publish(topic, packet_id, packed, payload, retain=retain) == theirs


def test_an_acknowledgement_is_four_bytes() -> None:
    assert packets.puback(0x1234) == b"\x40\x02\x12\x34"
