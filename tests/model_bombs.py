"""Models that are small and take everything: what the limits of a worker are for. Written by hand, field by field."""

from backends.tiny_onnx import ELEMENT_TYPES, _block, _number, _text, _value, one_node

ROW = ("FP32", ("rows", 4))
MANY = 2**62


def constant(name: str, datatype: str, dimensions: list[int], data: bytes) -> bytes:
    sizes = b"".join(_number(1, size) for size in dimensions)
    return _block(5, sizes + _number(2, ELEMENT_TYPES[datatype]) + _text(8, name) + _block(9, data))


def asks_for_32_gib() -> bytes:
    """Adds to each row a constant that is filled in when the model is loaded."""
    shape = constant("shape", "INT64", [2], (2**31).to_bytes(8, "little") + (4).to_bytes(8, "little"))
    zeros = _block(1, _text(1, "shape") + _text(2, "zeros") + _text(4, "ConstantOfShape"))
    return one_node("Add", {"x": ROW}, ("FP32", ("rows", 4)), zeros + shape, ["zeros"])


def loops_for_ever() -> bytes:
    """Counts to 2**62 in the first run, which is the warm-up."""
    nothing = _text(2, "step")
    nothing += b"".join(
        _block(1, _text(1, begin) + _text(2, end) + _text(4, "Identity"))
        for begin, end in (("go_on", "still"), ("value", "same"))
    )
    nothing += b"".join(
        _block(11, _value(name, *spec))
        for name, spec in {"turn": ("INT64", ()), "go_on": ("BOOL", ()), "value": ROW}.items()
    )
    nothing += _block(12, _value("still", "BOOL", ())) + _block(12, _value("same", *ROW))
    body = _block(5, _text(1, "body") + _block(6, nothing) + _number(20, 5))
    turns = constant("turns", "INT64", [], MANY.to_bytes(8, "little"))
    begin = constant("begin", "BOOL", [], b"\1")
    loop = _text(1, "turns") + _text(1, "begin") + _text(1, "x") + _text(2, "y") + _text(4, "Loop") + body
    graph = _block(1, loop) + _text(2, "loop") + turns + begin
    graph += _block(11, _value("x", *ROW)) + _block(12, _value("y", *ROW))
    return _number(1, 8) + _block(7, graph) + _block(8, _number(2, 13))
