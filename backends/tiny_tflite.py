"""TFLite files of one operator, written by hand, so that checking a backend needs no package to build models.

A flatbuffer (flatbuffers.dev, "Internals") of tables whose slots are those of TFLite's schema.fbs, version 3.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from backends.tflite_file import IDENTIFIER

TENSOR_TYPES: Final = {
    "FP32": 0,
    "FP16": 1,
    "INT32": 2,
    "UINT8": 3,
    "INT64": 4,
    "BYTES": 5,  # strings: no datatype of fixed size, so a backend refuses them
    "BOOL": 6,
    "INT16": 7,
    "INT8": 9,
    "FP64": 10,
}
ADD: Final = 0
DEQUANTIZE: Final = 6
SOFTMAX: Final = 25
CUSTOM: Final = 32
OPTIONS_TYPES: Final = {ADD: 11, DEQUANTIZE: 26, SOFTMAX: 9}
"""BuiltinOperator, and which table of the BuiltinOptions union its options are."""


@dataclass(frozen=True, slots=True)
class TinyTensor:
    """A tensor with its row dimension; -1 is any size. `scale` and `zero_point` make it a quantised one."""

    name: str
    datatype: str
    dimensions: tuple[int, ...]
    scale: float | None = None
    zero_point: int = 0


@dataclass(frozen=True, slots=True)
class _Table:
    """A flatbuffer table: what stands in each slot."""

    slots: "dict[int, _Value]"


_Value = _Table | bytes | str | list["_Table"] | tuple[str, Sequence[float]]
"""A table, a scalar as its bytes, a string, a vector of tables, or a vector of scalars with its struct code."""


def one_operator(
    operator: int, inputs: Sequence[TinyTensor], output: TinyTensor, custom_code: str = ""
) -> bytes:
    """A model that applies a builtin operator to its inputs, or the custom operator `custom_code`."""
    tensors = [*inputs, output]
    code: dict[int, _Value] = {
        0: struct.pack("<b", operator),
        2: struct.pack("<i", 1),
        3: struct.pack("<i", operator),
    }
    if custom_code:
        code[1] = custom_code
    node: dict[int, _Value] = {
        0: struct.pack("<I", 0),
        1: ("i", range(len(inputs))),
        2: ("i", [len(inputs)]),
    }
    if operator in OPTIONS_TYPES:
        node[3] = struct.pack("<B", OPTIONS_TYPES[operator])
        node[4] = _Table({0: struct.pack("<f", 1.0)} if operator == SOFTMAX else {})  # beta
    graph = _Table(
        {
            0: [_tensor(tensor) for tensor in tensors],
            1: ("i", range(len(inputs))),
            2: ("i", [len(inputs)]),
            3: [_Table(node)],
        }
    )
    buffers = [_Table({}) for _ in range(len(tensors) + 1)]
    return _written(_Table({0: struct.pack("<I", 3), 1: [_Table(code)], 2: [graph], 4: buffers}))


def _tensor(tensor: TinyTensor) -> _Table:
    slots: dict[int, _Value] = {
        0: ("i", [1 if size < 0 else size for size in tensor.dimensions]),
        1: struct.pack("<b", TENSOR_TYPES[tensor.datatype]),
        2: struct.pack("<I", 0),  # buffer 0 is the empty one: nothing here is constant
        3: tensor.name,
        7: ("i", tensor.dimensions),
    }
    if tensor.scale is not None:
        slots[4] = _Table({2: ("f", [tensor.scale]), 3: ("q", [tensor.zero_point])})
    return _Table(slots)


def _written(root: _Table) -> bytes:
    data = bytearray(4) + IDENTIFIER
    _point(data, 0, _write_table(data, root))
    return bytes(data)


def _write_table(data: bytearray, table: _Table) -> int:
    """Append a table behind its vtable, then what its slots point at; where it begins."""
    sizes = {slot: len(value) if isinstance(value, bytes) else 4 for slot, value in table.slots.items()}
    ends_at = 4
    offsets: dict[int, int] = {}
    for slot, size in sizes.items():
        offsets[slot] = -(-ends_at // size) * size
        ends_at = offsets[slot] + size
    count = max(sizes, default=-1) + 1
    vtable = struct.pack(
        f"<{2 + count}H", 4 + 2 * count, ends_at, *(offsets.get(slot, 0) for slot in range(count))
    )
    _align(data, 8, len(vtable))
    data += vtable
    begin = len(data)
    data += struct.pack("<i", len(vtable)) + bytes(ends_at - 4)
    for slot, value in table.slots.items():
        place = begin + offsets[slot]
        if isinstance(value, bytes):
            data[place : place + len(value)] = value
        else:
            _point(data, place, _write(data, value))
    return begin


def _write(data: bytearray, value: "_Table | str | list[_Table] | tuple[str, Sequence[float]]") -> int:
    if isinstance(value, _Table):
        return _write_table(data, value)
    if isinstance(value, str):
        text = value.encode()
        return _write_vector(data, len(text), text + b"\0", 1)
    if isinstance(value, tuple):
        code, numbers = value
        return _write_vector(
            data, len(numbers), struct.pack(f"<{len(numbers)}{code}", *numbers), struct.calcsize(code)
        )
    begin = _write_vector(data, len(value), bytes(4 * len(value)), 4)
    for index, table in enumerate(value):
        _point(data, begin + 4 + 4 * index, _write_table(data, table))
    return begin


def _write_vector(data: bytearray, count: int, content: bytes, item_bytes: int) -> int:
    _align(data, max(4, item_bytes), 4)
    data += struct.pack("<I", count) + content
    return len(data) - len(content) - 4


def _align(data: bytearray, boundary_bytes: int, ahead_bytes: int) -> None:
    """Pad so that what stands `ahead_bytes` further begins on a boundary."""
    data += bytes(-(len(data) + ahead_bytes) % boundary_bytes)


def _point(data: bytearray, place: int, target: int) -> None:
    struct.pack_into("<I", data, place, target - place)
