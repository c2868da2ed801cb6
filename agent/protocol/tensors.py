"""Tensors of the Open Inference Protocol as raw little-endian bytes. Works without numpy.

A tensor travels in the tail (`binary_data_size`) or as `data` in the JSON, nested or flat, row-major. The
first dimension is the row, except in `shared` tensors.
"""

import math
import struct
from collections.abc import Sequence
from itertools import chain
from typing import Any, Final

from agent.protocol.messages import Datatype, Task, Tensor
from agent.protocol.reasons import Reason, Refused

STRUCT_CODE: Final = {
    Datatype.BOOL: "?",
    Datatype.UINT8: "B",
    Datatype.UINT16: "H",
    Datatype.UINT32: "I",
    Datatype.UINT64: "Q",
    Datatype.INT8: "b",
    Datatype.INT16: "h",
    Datatype.INT32: "i",
    Datatype.INT64: "q",
    Datatype.FP16: "e",
    Datatype.FP32: "f",
    Datatype.FP64: "d",
}
"""The code of the standard library's `struct` for one item."""
ITEM_BYTES: Final = {datatype: struct.calcsize("<" + code) for datatype, code in STRUCT_CODE.items()}
PIECE_BYTES: Final = 65_536
FLOATS: Final = frozenset({Datatype.FP16, Datatype.FP32, Datatype.FP64})


def nbytes(tensor: Tensor) -> int:
    """Bytes of the whole tensor in binary form."""
    return math.prod(tensor.shape) * ITEM_BYTES[tensor.datatype]


def tail_nbytes(tensors: Sequence[Tensor]) -> int:
    """Bytes that these tensors have in the tail, or at `inputs_url`; raises `Refused` (102).

    Checks that each has exactly one form, and that its size is the one of its shape.
    """
    total = 0
    for tensor in tensors:
        size = tensor.parameters.binary_data_size
        if (size is None) == (tensor.data is None):
            raise _bad(tensor, "should have either `binary_data_size` or `data`")
        if size is None:
            continue
        if size != nbytes(tensor):
            raise _bad(
                tensor,
                f"binary_data_size {size} is not the {nbytes(tensor)} bytes of "
                f"{tensor.datatype.value} {tensor.shape}",
            )
        total += size
    return total


def row_count(tensors: Sequence[Tensor]) -> int:
    """Rows that these tensors have in common; raises `Refused` (102).

    Names are unique, at least one tensor is not shared, and all of those have the same first dimension.
    """
    names: set[str] = set()
    rows: int | None = None
    for tensor in tensors:
        if tensor.name in names:
            raise _bad(tensor, "stands in the message twice")
        names.add(tensor.name)
        if tensor.parameters.shared:
            continue
        if not tensor.shape:
            raise _bad(tensor, "has no dimension for the row: give it one, or mark it as shared")
        if rows is None:
            rows = tensor.shape[0]
        elif tensor.shape[0] != rows:
            raise _bad(tensor, f"has {tensor.shape[0]} rows where the tensors before it have {rows}")
    if rows is None:
        raise Refused(Reason.BAD_TENSOR, "every tensor is shared: at least one should have rows")
    return rows


def rows_of(task: Task) -> tuple[int, int, int]:
    """What is to be computed, `(from, to, total)`; raises `Refused` (102) unless 0 <= from < to <= total."""
    total = row_count(task.inputs)
    begin, end = task.rows or (0, total)
    if not begin < end <= total:
        raise Refused(
            Reason.BAD_TENSOR, f"rows [{begin}, {end}) are no part of the {total} rows of the inputs"
        )
    return begin, end, total


def unpack(tensors: Sequence[Tensor], tail: bytes | memoryview) -> list[memoryview]:
    """The raw bytes of each tensor, in order; raises `Refused` (102).

    Views of `tail` where a tensor is binary, no copies: keep `tail` as it is while they are in use.
    """
    if tensors:
        row_count(tensors)
    expected, view = tail_nbytes(tensors), memoryview(tail)
    if len(view) != expected:
        raise Refused(
            Reason.BAD_TENSOR, f"{len(view)} bytes follow the JSON where its tensors have {expected}"
        )
    raws: list[memoryview] = []
    begin = 0
    for tensor in tensors:
        size = tensor.parameters.binary_data_size
        if size is None:
            raws.append(memoryview(_pack(tensor)))
            continue
        raw = view[begin : begin + size]
        if tensor.datatype is Datatype.BOOL and not _all_bool(raw):
            raise _bad(tensor, "holds a byte other than 0 and 1, which is no BOOL")
        raws.append(raw)
        begin += size
    return raws


def to_json(datatype: Datatype, shape: Sequence[int], raw: bytes | memoryview) -> list[Any]:
    """The tensor as OIP `data`, nested as its shape is; raises `Refused` (102) for what JSON cannot say.

    That is FP16, which has no JSON form, and NaN and infinities: such outputs travel in binary form.
    """
    if datatype is Datatype.FP16:
        raise Refused(Reason.BAD_TENSOR, "FP16 has no JSON form: ask for it with binary_data true")
    values: list[Any] = list(struct.unpack(f"<{math.prod(shape)}{STRUCT_CODE[datatype]}", raw))
    if datatype in FLOATS and not all(map(math.isfinite, values)):
        index = next(index for index, value in enumerate(values) if not math.isfinite(value))
        raise Refused(
            Reason.BAD_TENSOR,
            f"item {index} is {values[index]}, which has no JSON form: ask for it with binary_data true",
        )
    for size in reversed(shape[1:]):
        values = [values[begin : begin + size] for begin in range(0, len(values), size)]
    return values


def _all_bool(raw: memoryview) -> bool:
    """Piece by piece: inputs from a URL are mapped files of any size."""
    pieces = (raw[begin : begin + PIECE_BYTES] for begin in range(0, len(raw), PIECE_BYTES))
    return not any(bytes(piece).strip(b"\0\1") for piece in pieces)


def _pack(tensor: Tensor) -> bytes:
    """The tensor's `data` in binary form; every item has the type and the range of the datatype."""
    if tensor.datatype is Datatype.FP16:
        raise _bad(tensor, "FP16 has no JSON form: send it in binary form")
    items = _flat(tensor)
    allowed: tuple[type, ...] = (int,)
    if tensor.datatype is Datatype.BOOL:
        allowed = (bool,)
    elif tensor.datatype in FLOATS:
        allowed = (float, int)
    for kind in set(map(type, items)) - set(allowed):
        index = next(index for index, item in enumerate(items) if type(item) is kind)
        raise _bad(tensor, f"item {index} is a {kind.__name__}, which is no {tensor.datatype.value}")
    code = STRUCT_CODE[tensor.datatype]
    try:
        return struct.pack(f"<{len(items)}{code}", *items)
    except (struct.error, OverflowError):
        index = next(index for index, item in enumerate(items) if not _fits(item, code))
        raise _bad(tensor, f"item {index} is out of the range of {tensor.datatype.value}") from None


def _fits(item: float, code: str) -> bool:
    try:
        struct.pack("<" + code, item)
    except (struct.error, OverflowError):
        return False
    return True


def _flat(tensor: Tensor) -> list[Any]:
    """The items in row-major order; nested lists have exactly the tensor's shape."""
    data = tensor.data or []
    if data and type(data[0]) is not list:
        if len(data) != math.prod(tensor.shape):
            raise _bad(tensor, f"has {len(data)} items where {tensor.shape} has {math.prod(tensor.shape)}")
        return data
    level: list[Any] = [data]
    for size in tensor.shape:
        if not all(type(part) is list and len(part) == size for part in level):
            raise _bad(tensor, f"`data` is not nested as {tensor.shape} is")
        level = list(chain.from_iterable(level))
    return level


def _bad(tensor: Tensor, text: str) -> Refused:
    return Refused(Reason.BAD_TENSOR, f"tensor {tensor.name!r}: {text}")
