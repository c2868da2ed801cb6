"""Models that take everything, or lie: what the limits of a worker are for. Written by hand, field by field."""

import gzip
import io
import random
import zipfile
from collections.abc import Mapping, Sequence
from typing import Final

from backends.tiny_onnx import (
    Dimensions,
    _block,
    _number,
    _text,
    _value,
    constant,
    external_constant,
    one_node,
)

ROW: Final = ("FP32", ("rows", 4))
MANY: Final = 2**62
SIZES: Final = (2**31).to_bytes(8, "little") + (4).to_bytes(8, "little")
OPERATORS: Final = _block(8, _number(2, 13))


def node(
    operator: str, inputs: Sequence[str], outputs: Sequence[str], attributes: bytes = b"", domain: str = ""
) -> bytes:
    names = b"".join(_text(1, name) for name in inputs) + b"".join(_text(2, name) for name in outputs)
    return _block(1, names + _text(4, operator) + attributes + (_text(7, domain) if domain else b""))


def model(
    nodes: bytes,
    inputs: Mapping[str, tuple[str, Dimensions]],
    outputs: Mapping[str, tuple[str, Dimensions]],
    operators: bytes = OPERATORS,
) -> bytes:
    """`nodes` are encoded nodes and initializers."""
    graph = nodes + _text(2, "g")
    graph += b"".join(_block(11, _value(name, *spec)) for name, spec in inputs.items())
    graph += b"".join(_block(12, _value(name, *spec)) for name, spec in outputs.items())
    return _number(1, 8) + _block(7, graph) + operators


# What takes everything


def asks_for_32_gib() -> bytes:
    """Adds to each row a constant that is filled in when the model is loaded."""
    shape = constant("shape", "INT64", [2], SIZES)
    zeros = node("ConstantOfShape", ["shape"], ["zeros"])
    return one_node("Add", {"x": ROW}, ("FP32", ("rows", 4)), zeros + shape, ["zeros"])


def asks_for_32_gib_in_few_bytes() -> bytes:
    """The same without an addition: some 80 bytes."""
    size = _block(5, _number(1, 2) + _number(2, 7) + _text(8, "s") + _block(9, SIZES))
    graph = (
        node("ConstantOfShape", ["s"], ["y"])
        + size
        + _block(11, _value("x", *ROW))
        + _block(12, _text(1, "y"))
    )
    return _number(1, 8) + _block(7, graph + _text(2, "g")) + OPERATORS


def loops_for_ever() -> bytes:
    """Counts to 2**62 in the first run, which is the warm-up."""
    turns = constant("turns", "INT64", [], MANY.to_bytes(8, "little"))
    return model(_loop() + turns + BEGIN, {"x": ROW}, {"y": ROW})


def loops_as_told() -> bytes:
    """Counts as far as the input `turns` says: it is quick when it is loaded, and then it is not."""
    return model(_loop() + BEGIN, {"x": ROW, "turns": ("INT64", (1,))}, {"y": ROW})


BEGIN: Final = constant("begin", "BOOL", [], b"\1")


def _loop() -> bytes:
    nothing = _text(2, "step")
    nothing += node("Identity", ["go_on"], ["still"]) + node("Identity", ["value"], ["same"])
    nothing += b"".join(
        _block(11, _value(name, *spec))
        for name, spec in {"turn": ("INT64", ()), "go_on": ("BOOL", ()), "value": ROW}.items()
    )
    nothing += _block(12, _value("still", "BOOL", ())) + _block(12, _value("same", *ROW))
    body = _block(5, _text(1, "body") + _block(6, nothing) + _number(20, 5))
    return node("Loop", ["turns", "begin", "x"], ["y"], body)


# What lies about itself


def data_from(location: str) -> bytes:
    """Adds to each row a constant whose values lie in another file."""
    other = external_constant("w", "FP32", [4], location)
    return one_node("Add", {"x": ROW}, ROW, other, ["w"])


def of_another_domain() -> bytes:
    """Its operator is one that somebody else's library would have to bring along."""
    operators = OPERATORS + _block(8, _text(1, "com.example") + _number(2, 1))
    return model(node("Exec", ["x"], ["y"], domain="com.example"), {"x": ROW}, {"y": ROW}, operators)


def of_two_gigabytes_that_are_not_there() -> bytes:
    return one_node("Add", {"x": ROW}, ROW, constant("w", "FP32", [2**29, 4], b""), ["w"])


def of_overflowing_size() -> bytes:
    return one_node("Add", {"x": ROW}, ROW, constant("w", "FP32", [2**62, 4], b""), ["w"])


def with_an_output_that_nothing_makes() -> bytes:
    return model(node("Identity", ["x"], ["y"]), {"x": ROW}, {"y": ROW, "more": ROW})


def with_fewer_outputs_than_it_makes() -> bytes:
    """Two nodes that both claim to make `y`."""
    twice = node("Identity", ["x"], ["y"]) * 2
    return model(twice, {"x": ROW}, {"y": ROW})


def in_a_circle() -> bytes:
    nodes = node("Add", ["x", "z"], ["y"]) + node("Identity", ["y"], ["z"])
    return model(nodes, {"x": ROW}, {"y": ROW})


def in_itself(depth: int) -> bytes:
    """Graphs in graphs: an If in an If."""
    inner = leaf = node("Identity", ["x"], ["y"]) + _text(2, "g") + _block(12, _value("y", *ROW))
    for _ in range(depth):
        branches = {"then_branch": inner, "else_branch": leaf}
        attributes = b"".join(
            _block(5, _text(1, name) + _block(6, graph) + _number(20, 5)) for name, graph in branches.items()
        )
        inner = node("If", ["begin"], ["y"], attributes) + _text(2, "g") + _block(12, _value("y", *ROW))
    return _number(1, 8) + _block(7, BEGIN + _block(11, _value("x", *ROW)) + inner) + OPERATORS


def with_escapes_in_its_names() -> bytes:
    return one_node("\x1b[2J\x1b]0;owned\x07\n", {"x": ROW}, ROW)


def divides_zero_by_zero() -> bytes:
    """NaN for rows of zeros."""
    return model(node("Div", ["x", "x"], ["y"]), {"x": ROW}, {"y": ROW})


def of_the_shape_that_it_is_told() -> bytes:
    """An output of another shape than the one that it had for zeros."""
    inputs = {"x": ROW, "to": ("INT64", (2,))}
    return model(node("Reshape", ["x", "to"], ["y"]), inputs, {"y": ("FP32", ("a", "b"))})


# What is no model


def noise(size: int) -> bytes:
    return random.Random(6).randbytes(size)  # noqa: S311 - the same noise in every run


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("model.onnx", one_node("Softmax", {"x": ROW}, ROW))
    return file.getvalue()


def gzipped() -> bytes:
    return gzip.compress(one_node("Softmax", {"x": ROW}, ROW))
