"""The two packets that nearly all traffic consists of, PUBLISH with QoS 1 and its PUBACK, read and written.

For a message and its acknowledgement, there and back, paho takes 150 us, most of it for properties that nobody looks
at; these functions take 10. What is malformed is decided by paho all the same.
"""

import functools
from typing import Final, NamedTuple

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from agent.link.properties import varint

# MQTT 5 section 2.1: the first byte
TYPE_BITS: Final = 0xF0
PUBLISH_QOS_1: Final = 0x32
PUBLISH_FREE_BITS: Final = 0x09
"""DUP and RETAIN."""
RETAIN: Final = 0x01
PUBACK: Final = 0x40
SUCCESS: Final = 0x00

OFTEN_SEEN_BYTES: Final = 64
"""Nearly all messages have the same properties, and few: those are looked at once."""


class Publish(NamedTuple):
    """A PUBLISH with QoS 1."""

    topic: bytes
    packet_id: int
    payload: bytes


class Puback(NamedTuple):
    """A PUBACK; `name` is what the specification calls the reason code."""

    packet_id: int
    code: int
    name: str


def publish(topic: str, packet_id: int, packed: bytes, payload: bytes, *, retain: bool) -> bytes:
    """A PUBLISH with QoS 1 (section 3.3); `packed` are its properties with their length in front."""
    name = topic.encode()
    head = PUBLISH_QOS_1 | retain
    remaining = varint(2 + len(name) + 2 + len(packed) + len(payload))
    return b"".join(
        (bytes([head]), remaining, len(name).to_bytes(2), name, packet_id.to_bytes(2), packed, payload)
    )


def puback(packet_id: int) -> bytes:
    """A PUBACK with reason code 0 (section 3.4)."""
    return b"\x40\x02" + packet_id.to_bytes(2)


def read_publish(data: bytes, start: int) -> Publish:
    """The PUBLISH with QoS 1 whose body begins at `start`; what paho raises, or ValueError, where it is malformed."""
    topic_at = start + 2
    topic_end = topic_at + int.from_bytes(data[start:topic_at])
    properties_at = topic_end + 2
    payload_at = properties_at + _properties_size(data, properties_at)
    packed = data[properties_at:payload_at]
    (_refuse_malformed_once if len(packed) <= OFTEN_SEEN_BYTES else _refuse_malformed)(packed)
    return Publish(data[topic_at:topic_end], int.from_bytes(data[topic_end:properties_at]), data[payload_at:])


def _properties_size(data: bytes, at: int) -> int:
    """Bytes that the properties at `at` take, their length included; ValueError where it is none."""
    size = 0
    for place, byte in enumerate(data[at : at + 4]):
        size |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return place + 1 + size
    raise ValueError("properties without a length")


def _refuse_malformed(packed: bytes) -> None:
    """Raise what paho raises for the properties of a PUBLISH."""
    Properties(PacketTypes.PUBLISH).unpack(packed)  # type: ignore[no-untyped-call] # paho has no types here


_refuse_malformed_once = functools.lru_cache(maxsize=16)(_refuse_malformed)


def read_puback(data: bytes, start: int) -> Puback:
    """The PUBACK whose body begins at `start`; what paho raises, or ValueError, where it is malformed."""
    if len(data) < start + 2:
        raise ValueError("a PUBACK without a packet identifier")
    packet_id = int.from_bytes(data[start : start + 2])
    if len(data) == start + 2:
        return Puback(packet_id, SUCCESS, "Success")
    if len(data) > start + 3:
        Properties(PacketTypes.PUBACK).unpack(data[start + 3 :])  # type: ignore[no-untyped-call] # as above
    code = data[start + 2]
    return Puback(packet_id, code, _name_of(code))


@functools.cache
def _name_of(code: int) -> str:
    """What the specification calls a reason code of PUBACK; KeyError where it has none."""
    return ReasonCode(PacketTypes.PUBACK, identifier=code).getName()
