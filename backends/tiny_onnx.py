"""ONNX files of a node or a chain of them, written by hand, so that checking a backend needs no package to build models.

Field numbers are those of onnx.proto3 (ONNX IR version 8, operator set 13).
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Final

Dimensions = Sequence[int | str]

ELEMENT_TYPES: Final = {
    "FP32": 1,
    "UINT8": 2,
    "INT8": 3,
    "UINT16": 4,
    "INT16": 5,
    "INT32": 6,
    "INT64": 7,
    "STRING": 8,  # no Open Inference Protocol datatype of fixed size: a backend refuses it
    "BOOL": 9,
    "FP16": 10,
    "FP64": 11,
    "UINT32": 12,
    "UINT64": 13,
}
"""TensorProto.DataType."""


def one_node(
    operator: str,
    inputs: Mapping[str, tuple[str, Dimensions]],
    output: tuple[str, Dimensions],
    constants: bytes = b"",
    constant_names: Sequence[str] = (),
) -> bytes:
    """A model that applies `operator` to its inputs, then its constants, and calls the result `y`.

    A dimension is a size or a symbol; `constants` are encoded initializers (`constant`, `external_constant`).
    """
    return _model(_node(operator, (*inputs, *constant_names), "y") + constants, inputs, output)


def chain(operator: str, length: int, datatype: str, dimensions: Dimensions) -> bytes:
    """A model that applies `operator` so many times, one node after the other, from `x` to `y` of the same shape."""
    names = ["x", *(f"step{number}" for number in range(1, length)), "y"]
    nodes = b"".join(_node(operator, [begin], end) for begin, end in itertools.pairwise(names))
    return _model(nodes, {"x": (datatype, dimensions)}, (datatype, dimensions))


def constant(name: str, datatype: str, dimensions: Sequence[int], values: bytes) -> bytes:
    """An initializer whose values, row-major and little-endian, lie in the file itself."""
    tensor = b"".join(_number(1, size) for size in dimensions)
    tensor += _number(2, ELEMENT_TYPES[datatype]) + _text(8, name) + _block(9, values)
    return _block(5, tensor)


def external_constant(name: str, datatype: str, dimensions: Sequence[int], location: str) -> bytes:
    """An initializer whose values lie in another file: what a backend has to refuse."""
    tensor = b"".join(_number(1, size) for size in dimensions)
    tensor += _number(2, ELEMENT_TYPES[datatype]) + _text(8, name)
    tensor += _block(13, _text(1, "location") + _text(2, location)) + _number(14, 1)
    return _block(5, tensor)


def _model(
    content: bytes, inputs: Mapping[str, tuple[str, Dimensions]], output: tuple[str, Dimensions]
) -> bytes:
    graph = content + _text(2, "graph")
    graph += b"".join(_block(11, _value(name, *spec)) for name, spec in inputs.items())
    graph += _block(12, _value("y", *output))
    return _number(1, 8) + _block(7, graph) + _block(8, _number(2, 13))


def _node(operator: str, inputs: Sequence[str], output: str) -> bytes:
    return _block(1, b"".join(_text(1, name) for name in inputs) + _text(2, output) + _text(4, operator))


def _value(name: str, datatype: str, dimensions: Dimensions) -> bytes:
    sizes = b"".join(
        _block(1, _text(2, size) if isinstance(size, str) else _number(1, size)) for size in dimensions
    )
    return _text(1, name) + _block(2, _block(1, _number(1, ELEMENT_TYPES[datatype]) + _block(2, sizes)))


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _block(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _text(field: int, text: str) -> bytes:
    return _block(field, text.encode())
