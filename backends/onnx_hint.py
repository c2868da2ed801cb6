"""The named dimensions of an ONNX file's inputs, read from its bytes: what to bind before a session says so.

A session that is opened only to ask for them takes as long as half of the load. What is read here is a hint and no
more: the session that will run is asked again, and what it says counts. So nothing here judges a file.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final

from backends.kernel import Model, Tensor

# onnx.proto, field numbers
MODEL_GRAPH: Final = 7
GRAPH_INPUT: Final = 11
VALUE_NAME, VALUE_TYPE = 1, 2
TYPE_TENSOR: Final = 1
TENSOR_SHAPE: Final = 2
SHAPE_DIMENSION: Final = 1
DIMENSION_NAME: Final = 2

NAMELESS: Final = frozenset({"", "?"})
"""Some exporters write "?" for every free dimension: each is free by itself."""
MOST_FIELDS: Final = 100_000
"""Of a graph: more would take longer to walk over than a session to open."""


def hinted_sizes(data: bytes, model: Model) -> dict[str, int]:
    """Sizes of the named dimensions as the task's inputs have them, the rows' own left out; empty without a hint."""
    try:
        names = dict(_inputs(memoryview(data)))
    except (ValueError, IndexError):
        return {}
    fitting = [
        (tensor, names[tensor.name])
        for tensor in model.inputs
        if len(names.get(tensor.name, ())) == len(tensor.row_shape) + (not tensor.shared)
    ]
    of_rows = {dimensions[0] for tensor, dimensions in fitting if not tensor.shared}
    sizes: dict[str, int] = {}
    for name, size in _pairs(fitting):
        if name not in NAMELESS and name not in of_rows and sizes.setdefault(name, size) != size:
            return {}  # the session says what is wrong
    return sizes


def _pairs(fitting: Sequence[tuple[Tensor, Sequence[str]]]) -> Iterator[tuple[str, int]]:
    for tensor, dimensions in fitting:
        yield from zip(dimensions if tensor.shared else dimensions[1:], tensor.row_shape, strict=True)


def _inputs(model: memoryview) -> Iterator[tuple[str, list[str]]]:
    """Each input and its dimensions, by name; an empty one for a dimension that has none."""
    for graph in _parts(model, MODEL_GRAPH):
        for value in _parts(graph, GRAPH_INPUT):
            name = b"".join(_parts(value, VALUE_NAME)).decode()
            shapes = [
                shape
                for type_ in _parts(value, VALUE_TYPE)
                for tensor in _parts(type_, TYPE_TENSOR)
                for shape in _parts(tensor, TENSOR_SHAPE)
            ]
            yield (
                name,
                [
                    b"".join(_parts(dimension, DIMENSION_NAME)).decode()
                    for shape in shapes
                    for dimension in _parts(shape, SHAPE_DIMENSION)
                ],
            )


def _parts(message: memoryview, number: int) -> Iterator[memoryview]:
    """The length-delimited fields of this number; ValueError or IndexError for bytes that are no message."""
    for found, part in islice(_fields(message), MOST_FIELDS):
        if found == number:
            yield part


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        begin = at
        match tag & 7:  # protocol buffers' wire type
            case 0:  # a number
                _, at = _varint(message, at)
            case 1:
                at += 8
            case 2:  # a length, and so many bytes
                size, begin = _varint(message, at)
                at = begin + size
            case 5:
                at += 4
            case other:
                raise ValueError(f"wire type {other}")
        yield tag >> 3, message[begin:at]


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """A number and where it ends."""
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than ten bytes")
