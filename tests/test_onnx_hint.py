"""What the cpu backend reads of an ONNX file by itself is what onnx reads; where it cannot, the session says it."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaged_models import SENTENCES
from packaged_models import stored as stored_model

from backends.cpu import Cpu, CpuOptions
from backends.kernel import Model, Tensor
from backends.onnx_hint import MOST_FIELDS, hinted_sizes
from backends.tiny_onnx import one_node

pytest.importorskip("onnxruntime")

IMAGE = Tensor("x", "FP32", (2, 3))
UNKNOWN_NUMBER = b"\x98\x06\x01"
"""A field that ONNX does not have, as a newer version of it would."""
GRAPH = b"\x3a"


def file_of(folder: Path, data: bytes, *inputs: Tensor) -> Model:
    path = folder / "model"
    path.write_bytes(data)
    return Model(path, "0" * 64, "onnx", inputs)


def softmax(*dimensions: int | str) -> bytes:
    return one_node("Softmax", {"x": ("FP32", dimensions)}, ("FP32", dimensions))


def hint(data: bytes, *inputs: Tensor) -> dict[str, int]:
    return hinted_sizes(data, Model(Path("/no/file"), "0" * 64, "onnx", inputs))


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


@pytest.mark.parametrize(
    ("dimensions", "row_shape", "sizes"),
    [
        (("n", "c", "l"), (2, 3), {"c": 2, "l": 3}),
        (("n", 2, "l"), (2, 3), {"l": 3}),
        (("n", "l", "l"), (3, 3), {"l": 3}),
        (("n", "l", "l"), (2, 3), {}),  # one name and two sizes
        (("n", "n", "l"), (2, 3), {"l": 3}),  # the rows' own name
        (("n", "?", "?"), (3, 3), {}),
        (("n", 2, 3), (2, 3), {}),
        (("n", "c"), (2, 3), {}),  # another rank
    ],
)
def test_named_dimensions_have_the_sizes_of_the_task(
    dimensions: tuple[int | str, ...], row_shape: tuple[int, ...], sizes: dict[str, int]
) -> None:
    assert hint(softmax(*dimensions), Tensor("x", "FP32", row_shape)) == sizes


def test_a_shared_input_is_bound_whole() -> None:
    add = one_node("Add", {"x": ("FP32", ("n", "l")), "y0": ("FP32", ("m", "l"))}, ("FP32", ("n", "l")))
    inputs = Tensor("x", "FP32", (4,)), Tensor("y0", "FP32", (1, 4), shared=True)
    assert hint(add, *inputs) == {"m": 1, "l": 4}


def test_a_real_model_is_read_as_onnx_reads_it(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    path = stored_model(SENTENCES, "model.onnx", tmp_path).path
    names = {
        value.name: [dimension.dim_param for dimension in value.type.tensor_type.shape.dim]
        for value in onnx.load(str(path)).graph.input
    }
    inputs = [Tensor(name, "INT64", tuple(range(16, 15 + len(dims)))) for name, dims in names.items()]
    asked = {name for dims in names.values() for name in dims[1:] if name}
    assert asked
    assert set(hint(path.read_bytes(), *inputs)) == asked


@given(
    data=st.one_of(
        st.binary(max_size=200),
        st.tuples(st.integers(0, 120), st.binary(min_size=1, max_size=4)).map(
            lambda it: softmax("n", "c", "l")[: it[0]] + it[1] + softmax("n", "c", "l")[it[0] + len(it[1]) :]
        ),
        st.integers(0, 120).map(lambda end: softmax("n", "c", "l")[:end]),
    )
)
def test_bytes_of_any_kind_give_a_hint_or_none(data: bytes) -> None:
    assert set(hint(data, IMAGE).values()) <= {2, 3}


def test_where_the_hint_is_missing_the_session_is_asked_and_opened_again(tmp_path: Path) -> None:
    plain = softmax("n", "c", "l")
    at = plain.index(GRAPH)
    size = plain[at + 1]
    assert size < 0x80
    assert at + 2 + size <= len(plain)
    graph = UNKNOWN_NUMBER * (MOST_FIELDS + 1) + plain[at + 2 : at + 2 + size]
    data = plain[:at] + GRAPH + varint(len(graph)) + graph + plain[at + 2 + size :]
    assert hint(plain, IMAGE) == {"c": 2, "l": 3}
    assert hint(data, IMAGE) == {}
    for content in (plain, data):
        program = Cpu(CpuOptions()).load(file_of(tmp_path, content, IMAGE), "cpu")
        assert program._runs.session.get_inputs()[0].shape == ["n", 2, 3]
        assert program.outputs[0].row_shape == (2, 3)
        assert program.max_batch is None
        program.close()
