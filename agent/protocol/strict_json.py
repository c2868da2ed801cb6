"""JSON from the other side: decoded into a type, or refused. Nothing that is doubtful is guessed at."""

import json
from typing import Any, TypeVar

import msgspec

from agent.protocol.reasons import Reason, Refused

T = TypeVar("T")


def decode(decoder: msgspec.json.Decoder[T], text: bytes | memoryview) -> T:
    """What `text` says, as the decoder's type; raises `Refused` (100) for everything else.

    msgspec keeps the last of several members of one name, where others keep the first: a text that means
    one thing to a gateway and another to a car. A second pass refuses them; it takes 4 us for a task.
    """
    try:
        message = decoder.decode(text)
        _DUPLICATES.decode(str(text, "utf-8"))
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise Refused(Reason.MALFORMED, str(error)) from None
    return message


def _refuse_duplicates(members: list[tuple[str, Any]]) -> None:
    names = {name for name, _ in members}
    if len(names) < len(members):
        raise ValueError(f"{len(members) - len(names)} member(s) of an object stand in it more than once")


_DUPLICATES = json.JSONDecoder(object_pairs_hook=_refuse_duplicates, parse_int=len, parse_float=len)
