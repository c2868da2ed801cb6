"""Programs for the emulated NPUs: what is one, what is not and why, and what a real quantiser writes."""

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from fsd_models import STORED, Model, Tensor, random_weights
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper

from firmware_shims.fsd.interface import Code, FsdError
from firmware_shims.fsd.reading import read_program

Array = npt.NDArray[Any]


def frame_of(model: Model, *shape: int) -> Tensor:
    return model.input("x", shape or (4, 8, 8), **STORED)


def softmax(model: Model) -> Tensor:
    return model.apply("Softmax", [frame_of(model)], **STORED)


def float_weights(model: Model) -> Tensor:
    weights = model.raw(np.ones((2, 4, 1, 1), np.float32))
    return model.apply("Conv", [frame_of(model), weights], **STORED)


def three_axes(model: Model) -> Tensor:
    weights = model.constant(random_weights((2, 4, 1, 1, 1)), 0.01)
    return model.apply("Conv", [frame_of(model, 4, 8, 8, 8), weights], **STORED)


def float_bias(model: Model) -> Tensor:
    weights = model.constant(random_weights((2, 4, 1, 1)), 0.01)
    return model.apply("Conv", [frame_of(model), weights, model.raw(np.ones(2, np.float32))], **STORED)


def bias_of_another_scale(model: Model) -> Tensor:
    weights = model.constant(random_weights((2, 4, 1, 1)), 0.01)
    bias = model.constant(np.ones(2, np.int32), 0.1)
    return model.apply("Conv", [frame_of(model), weights, bias], **STORED)


def overflowing(model: Model) -> Tensor:
    weights = model.constant(np.full((70_000, 1), 127, np.int8), 0.01)
    return model.apply("MatMul", [frame_of(model, 70_000), weights], **STORED)


def attention_of_long_rows(model: Model) -> Tensor:
    left, right = model.input("x", (1, 40_000), **STORED), model.input("z", (40_000, 1), **STORED)
    return model.apply("MatMul", [left, right], **STORED)


def gated(model: Model) -> Tensor:
    return model.apply("Mul", [frame_of(model), model.input("z", (4, 1, 1), **STORED)], **STORED)


def joined_rows(model: Model) -> Tensor:
    frame = frame_of(model)
    return model.apply("Concat", [frame, frame], **STORED, axis=0)


def rows_folded_away(model: Model) -> Tensor:
    return model.apply("Reshape", [frame_of(model), model.raw(np.array([4, 64]))], **STORED)


def transposed(model: Model) -> Tensor:
    return model.apply("Transpose", [frame_of(model)], **STORED, perm=[0, 2, 3, 1])


def wide_padding(model: Model) -> Tensor:
    return model.apply("MaxPool", [frame_of(model)], **STORED, kernel_shape=[2, 2], pads=[1, 1, 2, 2])


def open_padding(model: Model) -> Tensor:
    weights = model.constant(random_weights((4, 2, 2, 2)), 0.01)
    return model.apply("ConvTranspose", [frame_of(model), weights], **STORED, auto_pad="SAME_UPPER")


def scaled_product(model: Model) -> Tensor:
    weights = model.constant(random_weights((8, 3)), 0.01)
    return model.apply("Gemm", [frame_of(model, 8), weights], **STORED, alpha=0.5)


def dilated_average(model: Model) -> Tensor:
    return model.apply("AveragePool", [frame_of(model)], **STORED, kernel_shape=[2, 2], dilations=[2, 2])


def far_scales(model: Model) -> Tensor:
    frame = frame_of(model)
    return model.apply("Add", [frame, frame], 1e-9, 0)


def zero_points_by_channel(model: Model) -> Tensor:
    weights = model.constant(random_weights((2, 4, 1, 1)), np.ones(2, np.float32), axis=0)
    result = model.apply("Conv", [frame_of(model), weights], **STORED)
    model.nodes[1].input[2] = model.raw(np.array([0, 1], np.int8))
    return result


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (softmax, "no such operator: run it on the host"),
        (float_weights, "input 2 is not quantised: quantise it to int8"),
        (three_axes, "has 3 spatial axes: the NPU works on one or two"),
        (float_bias, "quantise it with the product of the other two scales"),
        (bias_of_another_scale, "bias has another scale"),
        (overflowing, "beyond int32 .*split it"),
        (attention_of_long_rows, "40000 terms, which may overflow int32: at most 33025"),
        (gated, "multiplies two activations"),
        (joined_rows, r"shape \[2, 4, 8, 8\]: the first dimension is the row"),
        (rows_folded_away, r"shape \[4, 64\]: the first dimension is the row"),
        (transposed, "no such operator"),
        (wide_padding, "windows of 2 may lie wholly in its padding of 2"),
        (open_padding, "write `pads`"),
        (scaled_product, "multiply them into the weights"),
        (dilated_average, "averages without gaps"),
        (far_scales, "times the result's: at most 32768"),
        (zero_points_by_channel, "quantise weights symmetrically"),
    ],
)
def test_what_the_npu_cannot_compute_is_refused_with_the_node_and_a_way_out(
    build: Callable[[Model], Tensor], words: str
) -> None:
    model = Model()
    program = model.program(build(model))
    with pytest.raises(FsdError, match=words) as refused:
        read_program(program)
    assert refused.value.code is Code.UNSUPPORTED
    assert refused.value.text.startswith("node ")


def plain() -> ModelProto:
    model = Model()
    return model.finished(model.apply("Relu", [frame_of(model)], **STORED))


def old() -> ModelProto:
    model = plain()
    model.opset_import[0].version = 11
    return model


def elsewhere() -> ModelProto:
    model = plain()
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL
    return model


def open_shape() -> ModelProto:
    model = plain()
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    return model


def floats() -> ModelProto:
    model = plain()
    del model.graph.node[-1]
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("f0", TensorProto.FLOAT, [1, 4, 8, 8]))
    return model


def contradictory() -> ModelProto:
    model = plain()
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 5
    return model


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (old, "its opset is 11: convert it to 13 or later"),
        (elsewhere, "its weights lie in other files"),
        (open_shape, "the first dimension is the row"),
        (floats, "its result is read as floats"),
        (contradictory, "not a valid ONNX model"),
    ],
)
def test_what_is_no_program_is_refused_with_what_to_change(
    build: Callable[[], ModelProto], words: str
) -> None:
    with pytest.raises(FsdError, match=words):
        read_program(build().SerializeToString())


@given(st.binary(max_size=200))
def test_no_bytes_bring_the_reader_down(data: bytes) -> None:
    with pytest.raises(FsdError) as refused:
        read_program(data)
    assert refused.value.code is Code.BAD_PROGRAM


DAMAGED = plain().SerializeToString()


@given(st.lists(st.tuples(st.integers(0, len(DAMAGED) - 1), st.integers(0, 255)), max_size=3))
@settings(max_examples=300)
def test_a_damaged_program_is_read_or_refused_and_nothing_else(damage: list[tuple[int, int]]) -> None:
    program = bytearray(DAMAGED)
    for place, value in damage:
        program[place] = value
    with contextlib.suppress(FsdError):
        assert read_program(bytes(program)).layers
