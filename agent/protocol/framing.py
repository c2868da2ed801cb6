"""A body: one line of JSON, then, after a newline, the raw little-endian bytes of the binary tensors."""

from collections.abc import Sequence
from typing import Final

import msgspec

from agent.protocol import strict_json
from agent.protocol.messages import Control, Event, Offline, Result, State, Task
from agent.protocol.reasons import Reason, Refused

CONTENT_TYPE: Final = "application/vnd.parkwatt"
"""The MQTT content type, a hint for people and tools: no meaning rests on it."""


class _Presence(msgspec.Struct):
    """What tells a state from a good-bye."""

    online: bool = False


_ENCODER = msgspec.json.Encoder()
_TASK = msgspec.json.Decoder(Task)
_CONTROL: msgspec.json.Decoder[Control] = msgspec.json.Decoder(Control)
_EVENT = msgspec.json.Decoder(Event)
_RESULT = msgspec.json.Decoder(Result)
_PRESENCE = msgspec.json.Decoder(_Presence)
_STATE = msgspec.json.Decoder(State)
_OFFLINE = msgspec.json.Decoder(Offline)


def encode(message: msgspec.Struct, tails: Sequence[bytes | memoryview] = ()) -> bytes:
    """The body of `message`, with its binary tensors in the order in which the message lists them."""
    line = _ENCODER.encode(message)
    return b"".join((line, b"\n", *tails)) if tails else line


def decode_task(body: bytes) -> tuple[Task, memoryview]:
    """A task and the bytes of its binary inputs, for `tensors.unpack`; raises `Refused` (100)."""
    line, tail = _split(body)
    return strict_json.decode(_TASK, line), tail


def decode_result(body: bytes) -> tuple[Result, memoryview]:
    """A result and the bytes of its binary outputs, for `tensors.unpack`; raises `Refused` (100)."""
    line, tail = _split(body)
    return strict_json.decode(_RESULT, line), tail


def decode_control(body: bytes) -> Control:
    """A control message; raises `Refused` (100)."""
    return strict_json.decode(_CONTROL, _whole(body))


def decode_event(body: bytes) -> Event:
    """An event; raises `Refused` (100)."""
    return strict_json.decode(_EVENT, _whole(body))


def decode_state(body: bytes) -> State | Offline:
    """A vehicle's state, or its good-bye; raises `Refused` (100)."""
    line = _whole(body)
    if strict_json.decode(_PRESENCE, line).online:
        return strict_json.decode(_STATE, line)
    return strict_json.decode(_OFFLINE, line)


def _split(body: bytes) -> tuple[memoryview, memoryview]:
    """The line of JSON and a view of what follows its newline; an empty view where nothing does."""
    view = memoryview(body)
    end = body.find(b"\n")
    if end < 0:
        return view, view[:0]
    if body[:end].strip() == b"{":
        raise Refused(Reason.MALFORMED, "the JSON should stand on one line: binary tensors begin on the next")
    return view[:end], view[end + 1 :]


def _whole(body: bytes) -> memoryview:
    """The line of JSON of a message that has no tensors."""
    line, tail = _split(body)
    if tail:
        raise Refused(Reason.MALFORMED, f"{len(tail)} bytes follow the JSON of a message without tensors")
    return line
