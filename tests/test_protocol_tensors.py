"""What a tensor says about itself is checked before a byte of it reaches a model. numpy is the oracle."""

import struct
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from agent.protocol import examples, tensors
from agent.protocol.messages import Datatype, Task, Tensor, TensorParameters
from agent.protocol.reasons import Reason, Refused

NUMPY = {
    Datatype.BOOL: "?",
    Datatype.UINT8: "<u1",
    Datatype.UINT16: "<u2",
    Datatype.UINT32: "<u4",
    Datatype.UINT64: "<u8",
    Datatype.INT8: "<i1",
    Datatype.INT16: "<i2",
    Datatype.INT32: "<i4",
    Datatype.INT64: "<i8",
    Datatype.FP16: "<f2",
    Datatype.FP32: "<f4",
    Datatype.FP64: "<f8",
}
IN_JSON = sorted(set(Datatype) - {Datatype.FP16}, key=lambda datatype: datatype.value)
INTEGERS = [datatype for datatype in IN_JSON if "INT" in datatype.value]


def binary(name: str, datatype: Datatype, shape: list[int], size: int, shared: bool = False) -> Tensor:
    return Tensor(name, datatype, shape, TensorParameters(size, shared))


def in_json(datatype: Datatype, shape: list[int], data: list[Any]) -> Tensor:
    return Tensor("x", datatype, shape, data=data)


def shared(tensor: Tensor) -> Tensor:
    return Tensor(tensor.name, tensor.datatype, tensor.shape, TensorParameters(shared=True), tensor.data)


def task_of(inputs: list[Tensor], rows: tuple[int, int] | None = None) -> Task:
    good = examples.TASK
    return Task(
        good.id,
        good.attempt,
        good.audience,
        good.issued_at,
        good.expires_at,
        good.lease_s,
        good.model,
        inputs,
        rows=rows,
    )


def refusal(inputs: list[Tensor], tail: bytes = b"") -> str:
    with pytest.raises(Refused) as refused:
        tensors.unpack(inputs, tail)
    assert refused.value.reason is Reason.BAD_TENSOR
    return refused.value.text


@pytest.mark.parametrize("datatype", Datatype)
def test_item_sizes_are_those_of_numpy(datatype: Datatype) -> None:
    assert np.dtype(NUMPY[datatype]).itemsize == tensors.ITEM_BYTES[datatype]
    assert tensors.nbytes(binary("x", datatype, [3, 5], 0)) == 15 * tensors.ITEM_BYTES[datatype]


def test_binary_tensors_are_views_of_the_tail_in_the_order_of_the_message() -> None:
    tail = bytes(range(20))
    first, second = tensors.unpack(
        [binary("a", Datatype.INT32, [2, 2], 16), binary("b", Datatype.UINT8, [2, 2], 4)], tail
    )
    assert first == tail[:16]
    assert second == tail[16:]
    assert first.obj is tail
    assert second.obj is tail


def test_binary_and_json_tensors_may_stand_side_by_side() -> None:
    raws = tensors.unpack(
        [binary("a", Datatype.UINT8, [2], 2), in_json(Datatype.INT16, [2], [1, -2])], b"\x07\x08"
    )
    assert raws == [b"\x07\x08", b"\x01\x00\xfe\xff"]


@pytest.mark.parametrize("size", [0, 15, 17, 2**53])
def test_a_size_that_is_not_the_one_of_the_shape_is_refused(size: int) -> None:
    told = refusal([binary("bytes", Datatype.INT32, [2, 2], size)], bytes(16))
    assert "'bytes'" in told
    assert f"{size} is not the 16 bytes of INT32 [2, 2]" in told


def test_a_product_that_overflows_64_bits_is_no_small_size() -> None:
    told = refusal([binary("x", Datatype.INT32, [2**31] * 8, 0)])
    assert str(4 * 2**248) in told


@pytest.mark.parametrize("tail", [b"", bytes(15), bytes(17)])
def test_the_tail_has_exactly_the_bytes_of_its_tensors(tail: bytes) -> None:
    assert f"{len(tail)} bytes" in refusal([binary("x", Datatype.INT32, [4], 16)], tail)


def test_bytes_after_a_message_in_json_only_are_refused() -> None:
    assert "1 bytes" in refusal([in_json(Datatype.UINT8, [1], [1])], b"\n")


def test_a_tensor_has_one_form() -> None:
    neither = Tensor("x", Datatype.UINT8, [1])
    both = Tensor("x", Datatype.UINT8, [1], TensorParameters(1), [1])
    assert "either" in refusal([neither])
    assert "either" in refusal([both], b"\x01")


def test_a_name_stands_once() -> None:
    x = in_json(Datatype.UINT8, [1], [1])
    assert "'x': stands in the message twice" in refusal([x, x])


def test_a_byte_that_is_neither_true_nor_false_is_refused() -> None:
    flags = binary("flags", Datatype.BOOL, [3], 3)
    assert tensors.unpack([flags], b"\0\1\0") == [b"\0\1\0"]
    assert "'flags'" in refusal([flags], b"\0\2\1")


def test_every_input_has_the_same_rows_but_the_shared_ones() -> None:
    eight = binary("a", Datatype.UINT8, [8, 4], 32)
    table = binary("table", Datatype.UINT8, [100], 100, shared=True)
    assert tensors.row_count([table, eight]) == 8
    assert len(tensors.unpack([table, eight], bytes(132))) == 2
    assert "'b': has 7 rows" in refusal([eight, binary("b", Datatype.UINT8, [7], 7)], bytes(39))
    assert "at least one" in refusal([table], bytes(100))


def test_a_scalar_has_no_rows_unless_it_is_shared() -> None:
    one = in_json(Datatype.FP32, [], [0.5])
    assert "no dimension for the row" in refusal([one])
    raws = tensors.unpack([shared(one), binary("a", Datatype.UINT8, [1], 1)], b"\1")
    assert raws[0] == struct.pack("<f", 0.5)


@pytest.mark.parametrize(("rows", "wanted"), [(None, (0, 8, 8)), ((0, 8), (0, 8, 8)), ((3, 4), (3, 4, 8))])
def test_the_rows_of_a_task_are_all_or_those_that_it_asks_for(
    rows: tuple[int, int] | None, wanted: tuple[int, int, int]
) -> None:
    assert tensors.rows_of(task_of([binary("a", Datatype.UINT8, [8], 8)], rows)) == wanted


@pytest.mark.parametrize("rows", [(0, 0), (3, 3), (4, 3), (0, 9), (8, 9)])
def test_rows_that_are_none_of_the_inputs_are_refused(rows: tuple[int, int]) -> None:
    with pytest.raises(Refused, match="8 rows") as refused:
        tensors.rows_of(task_of([binary("a", Datatype.UINT8, [8], 8)], rows))
    assert refused.value.reason is Reason.BAD_TENSOR


def test_the_bytes_at_a_url_are_known_before_they_are_fetched() -> None:
    inputs = [binary("a", Datatype.INT32, [8, 2048], 65536), binary("b", Datatype.UINT8, [8], 8)]
    assert tensors.tail_nbytes(inputs) == 65544


@pytest.mark.parametrize("datatype", INTEGERS)
def test_integers_in_json_keep_their_range(datatype: Datatype) -> None:
    limits = np.iinfo(np.dtype(NUMPY[datatype]))
    low, high = int(limits.min), int(limits.max)
    (raw,) = tensors.unpack([in_json(datatype, [2], [low, high])], b"")
    assert np.frombuffer(raw, NUMPY[datatype]).tolist() == [low, high]
    for beyond in (low - 1, high + 1, 10**400):
        told = refusal([in_json(datatype, [2], [0, beyond])])
        assert told == f"tensor 'x': item 1 is out of the range of {datatype.value}"


@pytest.mark.parametrize(
    ("datatype", "item"),
    [
        (Datatype.INT32, True),
        (Datatype.INT32, "5"),
        (Datatype.INT32, 5.0),
        (Datatype.INT32, None),
        (Datatype.INT32, {}),
        (Datatype.INT32, [5]),
        (Datatype.BOOL, 1),
        (Datatype.BOOL, "true"),
        (Datatype.FP32, True),
        (Datatype.FP32, "nan"),
        (Datatype.FP64, None),
    ],
)
def test_an_item_of_another_type_is_refused_and_its_place_named(datatype: Datatype, item: object) -> None:
    good: list[object] = [False if datatype is Datatype.BOOL else 0]
    assert f"'x': item 1 is a {type(item).__name__}" in refusal([in_json(datatype, [2], [*good, item])])


def test_a_float_tensor_takes_whole_numbers_and_refuses_what_it_cannot_hold() -> None:
    (raw,) = tensors.unpack([in_json(Datatype.FP32, [2], [1, 0.5])], b"")
    assert raw == struct.pack("<2f", 1, 0.5)
    assert "out of the range of FP32" in refusal([in_json(Datatype.FP32, [1], [1e39])])
    assert "out of the range of FP64" in refusal([in_json(Datatype.FP64, [1], [10**400])])


def test_fp16_has_no_json_form() -> None:
    assert "FP16" in refusal([in_json(Datatype.FP16, [1], [0.5])])
    with pytest.raises(Refused, match="FP16"):
        tensors.to_json(Datatype.FP16, [1], b"\0\0")


@pytest.mark.parametrize(
    "data",
    [
        [],
        [1, 2, 3, 4, 5],
        [1, 2, 3, 4, 5, 6, 7],
        [[1, 2, 3]],
        [[1, 2], [3, 4], [5, 6]],
        [[1, 2, 3], [4, 5]],
        [[1, 2, 3], 4],
        [[[1, 2, 3], [4, 5, 6]]],
        [[[1], [2], [3]], [[4], [5], [6]]],
        [1, [2], 3, 4, 5, 6],
        [[], []],
    ],
    ids=str,
)
def test_json_data_has_the_shape_that_it_claims(data: list[Any]) -> None:
    assert "'x'" in refusal([in_json(Datatype.INT32, [2, 3], data)])


def test_a_huge_shape_over_little_data_is_refused_at_once() -> None:
    assert "'x'" in refusal([in_json(Datatype.INT32, [2**31] * 8, [1])])
    assert "'x'" in refusal([in_json(Datatype.INT32, [2**31] * 8, [[1]])])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("datatype", [Datatype.FP32, Datatype.FP64])
def test_an_output_that_json_cannot_say_is_never_sent_as_null(datatype: Datatype, value: float) -> None:
    raw = struct.pack("<2" + tensors.STRUCT_CODE[datatype], 0.5, value)
    with pytest.raises(Refused, match=r"item 1 is .* binary_data true") as refused:
        tensors.to_json(datatype, [2], raw)
    assert refused.value.reason is Reason.BAD_TENSOR


@st.composite
def arrays(draw: st.DrawFn) -> tuple[Datatype, npt.NDArray[Any]]:
    datatype = draw(st.sampled_from(IN_JSON))
    dtype = np.dtype(NUMPY[datatype])
    elements = (
        {"allow_nan": False, "allow_infinity": False} if datatype in tensors.FLOATS else None
    )  # JSON has neither
    shape = npst.array_shapes(min_dims=1, max_dims=4, max_side=4)
    return datatype, draw(npst.arrays(dtype, shape, elements=elements))


@given(array=arrays())
def test_every_tensor_survives_json_nested_and_flat(array: tuple[Datatype, npt.NDArray[Any]]) -> None:
    datatype, values = array
    raw, shape = values.tobytes(), list(values.shape)
    nested = tensors.to_json(datatype, shape, raw)
    assert nested == values.tolist()
    assert tensors.unpack([in_json(datatype, shape, nested)], b"") == [raw]
    assert tensors.unpack([in_json(datatype, shape, values.ravel().tolist())], b"") == [raw]


ITEMS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda part: st.lists(part, max_size=4) | st.dictionaries(st.text(max_size=2), part, max_size=2),
    max_leaves=8,
)
SHAPES = st.lists(st.integers(1, 4) | st.integers(1, 2**31), max_size=8)
HOSTILE = st.builds(
    Tensor,
    name=st.sampled_from("abc"),
    datatype=st.sampled_from(Datatype),
    shape=SHAPES,
    parameters=st.builds(TensorParameters, st.none() | st.integers(0, 2**53), st.booleans()),
    data=st.none() | st.lists(ITEMS, max_size=8),
)


@given(inputs=st.lists(HOSTILE, min_size=1, max_size=3), tail=st.binary(max_size=40))
def test_hostile_tensors_are_refused_or_have_exactly_their_bytes(inputs: list[Tensor], tail: bytes) -> None:
    try:
        raws = tensors.unpack(inputs, tail)
    except Refused:
        return
    assert [len(raw) for raw in raws] == [tensors.nbytes(tensor) for tensor in inputs]
