"""What is read from a TFLite file before a runtime sees it: that it is one, and which operators it has.

Reads as little of the flatbuffer as that takes, with every offset checked (flatbuffers.dev, "Internals";
the slots are those of TFLite's schema.fbs, version 3).
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from backends.kernel import MODEL_INVALID, MODEL_NOT_FOUND, KernelError

IDENTIFIER: Final = b"TFL3"
OPERATOR_CODES: Final = 1  # slot of Model
DEPRECATED_BUILTIN_CODE: Final = 0  # slots of OperatorCode: the older one is a byte and holds up to 127
BUILTIN_CODE: Final = 3
STATEFUL: Final = {129: "CALL_ONCE", 142: "VAR_HANDLE", 143: "READ_VARIABLE", 144: "ASSIGN_VARIABLE"}
"""Operators on resource variables, which an interpreter keeps from run to run and cannot set back."""
MOST_OPERATOR_CODES: Final = 10_000  # there are some 210 builtin ones


def read(path: Path) -> bytes:
    """The file's bytes; `KernelError` 130 when there is no such file, 133 when it is no TFLite file."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise KernelError(MODEL_NOT_FOUND, f"the model's file cannot be read: {error}") from error
    if data[4:8] != IDENTIFIER:
        raise KernelError(
            MODEL_INVALID, f"no TFLite file: bytes 4 to 8 are {data[4:8]!r}, a TFLite file has {IDENTIFIER!r}"
        )
    return data


def keeps_state(data: bytes) -> bool:
    """Whether a model has variables that outlive a run; `KernelError` 133 for a file that is cut or garbled."""
    try:
        return any(code in STATEFUL for code in _operators(data))
    except (struct.error, ValueError) as error:
        raise KernelError(MODEL_INVALID, f"no TFLite file: its operators cannot be read: {error}") from error


def _operators(data: bytes) -> Iterator[int]:
    model = _unsigned(data, 0)
    place = _slot(data, model, OPERATOR_CODES)
    if place is None:
        raise ValueError("there are none")
    vector = place + _unsigned(data, place)
    count = _unsigned(data, vector)
    if count > MOST_OPERATOR_CODES:
        raise ValueError(f"there would be {count}")
    for item in range(vector + 4, vector + 4 + 4 * count, 4):
        table = item + _unsigned(data, item)
        old, new = _slot(data, table, DEPRECATED_BUILTIN_CODE), _slot(data, table, BUILTIN_CODE)
        yield max(
            struct.unpack_from("<b", data, old)[0] if old is not None else 0,
            struct.unpack_from("<i", data, new)[0] if new is not None else 0,
        )


def _slot(data: bytes, table: int, slot: int) -> int | None:
    """Where a table holds what belongs to `slot`; None when it has the default."""
    vtable = table - struct.unpack_from("<i", data, table)[0]
    if vtable < 0:
        raise ValueError(f"the table at {table} has no vtable")
    (vtable_bytes,) = struct.unpack_from("<H", data, vtable)
    entry = 4 + 2 * slot
    if entry + 2 > vtable_bytes:
        return None
    (offset,) = struct.unpack_from("<H", data, vtable + entry)
    return table + offset if offset else None


def _unsigned(data: bytes, place: int) -> int:
    (number,) = struct.unpack_from("<I", data, place)
    return int(number)
