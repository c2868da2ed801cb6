"""The emulated NPU's arithmetic against onnxruntime's integer operators, bit for bit, over generated layers."""

import platform
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from firmware_shims.fsd import arithmetic, runtime
from firmware_shims.fsd.layers import (
    AveragePool,
    Constant,
    Convolution,
    Quantised,
    TransposedConvolution,
    Window,
)

Array = npt.NDArray[Any]
ONNXRUNTIME = runtime.imported()
# without VNNI, onnxruntime saturates sums of pairs of int8 by int8, and has no remedy as for uint8 by int8
SIGNED = [] if runtime.saturates(ONNXRUNTIME) else ["INT8"]
ON_X86_64 = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="onnxruntime rounds sums differently on other processors"
)

scales = st.floats(2**-12, 2.0, width=32)
seeds = st.integers(0, 2**32 - 1)


def tensors(shape: tuple[int, ...] = ()) -> st.SearchStrategy[Quantised]:
    def of(datatype: Any) -> st.SearchStrategy[Quantised]:
        limits = (-128, 127) if datatype == "INT8" else (0, 255)
        return st.builds(
            Quantised, st.just("x"), st.just(datatype), st.just(shape), scales, st.integers(*limits)
        )

    return st.sampled_from(["UINT8", *SIGNED]).flatmap(of)


def like(datatype: str) -> st.SearchStrategy[Quantised]:
    return tensors().filter(lambda tensor: tensor.datatype == datatype)


def values(source: Quantised, shape: Sequence[int], seed: int) -> Array:
    random = np.random.default_rng(seed).integers(source.lowest, source.highest + 1, shape)
    return random.astype(arithmetic.DTYPES[source.datatype])


def parameters(tensor: Quantised) -> list[Any]:
    return [np.float32(tensor.scale), np.asarray(tensor.zero_point, arithmetic.DTYPES[tensor.datatype])]


def by_onnxruntime(
    operator: str, data: Sequence[Array], constants: Sequence[Any], order: str, **attributes: Any
) -> Array:
    """One node. `order` says for each input whether it is data (d) or the next constant (c)."""
    names = {"d": iter(f"d{number}" for number in range(9)), "c": iter(f"c{number}" for number in range(99))}
    taken = [next(names[kind]) for kind in order]
    domain = "" if operator in {"QLinearConv", "QLinearMatMul"} else "com.microsoft"
    node = helper.make_node(operator, taken, ["y"], domain=domain, **attributes)
    kind = helper.np_dtype_to_tensor_dtype(data[0].dtype)
    inputs = [
        helper.make_tensor_value_info(f"d{number}", helper.np_dtype_to_tensor_dtype(item.dtype), item.shape)
        for number, item in enumerate(data)
    ]
    held = [numpy_helper.from_array(np.asarray(item), f"c{number}") for number, item in enumerate(constants)]
    graph = helper.make_graph([node], "g", inputs, [helper.make_tensor_value_info("y", kind, None)], held)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    session = runtime.session(ONNXRUNTIME, model, 1)
    found = session.run(None, {f"d{number}": item for number, item in enumerate(data)})
    return np.asarray(found[0])


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[Quantised, Quantised, Array, Convolution]:
    source = draw(tensors())
    target = draw(like(source.datatype))
    groups, per_group, outputs = draw(st.tuples(*[st.integers(1, 4)] * 3))
    kernel = draw(st.tuples(*[st.integers(1, 3)] * draw(st.integers(1, 2))))
    strides, dilations = (draw(st.tuples(*[st.integers(1, 2)] * len(kernel))) for _ in range(2))
    pads = [draw(st.tuples(*[st.integers(0, size - 1) for size in kernel])) for _ in range(2)]
    spatial = [
        draw(st.integers((size - 1) * gap + 1, 9)) for size, gap in zip(kernel, dilations, strict=True)
    ]
    signed = source.datatype == "INT8" or draw(st.booleans())
    zero = draw(st.integers(-128, 127) if signed else st.integers(0, 255))
    rng = np.random.default_rng(draw(seeds))
    edge = draw(st.booleans())  # at both ends of int8, where sums are largest
    low, high = (-128, 127) if signed else (0, 255)
    shape = (groups * outputs, per_group, *kernel)
    stored = rng.choice([low, high], shape) if edge else rng.integers(low, high + 1, shape)
    channels = len(stored) if draw(st.booleans()) else 1
    weights = Constant(
        stored.astype(np.int8 if signed else np.uint8),
        rng.uniform(1e-3, 0.1, channels).astype(np.float32),
        zero,
    )
    bias = rng.integers(-20_000, 20_000, len(stored)).astype(np.int32) if draw(st.booleans()) else None
    frame = values(source, (draw(st.integers(1, 2)), groups * per_group, *spatial), draw(seeds))
    window = Window(kernel, strides, dilations, pads[0], pads[1])
    return source, target, frame, Convolution(weights, bias, groups, window)


@given(convolutions())
@settings(max_examples=300)
def test_a_convolution_is_onnxruntimes(case: tuple[Quantised, Quantised, Array, Convolution]) -> None:
    source, target, frame, work = case
    sums = arithmetic.convolution_sums(frame, source.zero_point, work)
    factor = arithmetic.multiplier(source, work.weights.scales, target)
    results = arithmetic.requantised(sums, factor.reshape(1, -1, *[1] * (sums.ndim - 2)), target)
    weights, window = work.weights, work.window
    held = [
        weights.values,
        weights.scales,
        np.full(weights.scales.shape, weights.zero_point, weights.values.dtype),
    ]
    constants = [*parameters(source), *held, *parameters(target), *([] if work.bias is None else [work.bias])]
    expected = by_onnxruntime(
        "QLinearConv",
        [frame],
        constants,
        "d" + "c" * len(constants),
        group=work.groups,
        strides=window.strides,
        dilations=window.dilations,
        pads=[*window.before, *window.after],
    )
    np.testing.assert_array_equal(results, expected)


@given(tensors(), seeds, st.data())
@settings(max_examples=200)
def test_a_matrix_product_is_onnxruntimes(source: Quantised, seed: int, data: st.DataObject) -> None:
    target = data.draw(like(source.datatype))
    rows, k, n = (data.draw(st.integers(1, size)) for size in (3, 80, 20))
    rng = np.random.default_rng(seed)
    left = values(source, (rows, 3, k), seed)
    right = rng.integers(-128, 128, (k, n)).astype(np.int8)
    zero = data.draw(st.integers(-128, 127))
    by_column = rng.uniform(1e-3, 0.1, n if data.draw(st.booleans()) else 1).astype(np.float32)
    sums = arithmetic.product_sums(left, source.zero_point, right, zero, None)
    results = arithmetic.requantised(sums, arithmetic.multiplier(source, by_column, target), target)
    zeros = np.full(by_column.shape, zero, np.int8)
    constants = [*parameters(source), right, by_column, zeros, *parameters(target)]
    np.testing.assert_array_equal(results, by_onnxruntime("QLinearMatMul", [left], constants, "dccccccc"))


@ON_X86_64
@given(tensors(), seeds, st.sampled_from([(2, 5, 33), (5, 33), (33,), (5, 1), (1,)]), st.data())
@settings(max_examples=200)
def test_a_sum_is_onnxruntimes(
    first: Quantised, seed: int, shape: tuple[int, ...], data: st.DataObject
) -> None:
    second, target = data.draw(like(first.datatype)), data.draw(like(first.datatype))
    left, right = values(first, (2, 5, 33), seed), values(second, shape, seed + 1)
    results = arithmetic.added(left, first, right, second, target)
    constants = [*parameters(first), *parameters(second), *parameters(target)]
    np.testing.assert_array_equal(results, by_onnxruntime("QLinearAdd", [left, right], constants, "dccdcccc"))


@ON_X86_64
@pytest.mark.parametrize("seed", range(12))
def test_a_sum_near_a_tie_is_rounded_as_onnxruntime_rounds_it(seed: int) -> None:
    """All pairs of values, with scales of which many sums lie in the middle: one rounding more or less shows."""
    rng = np.random.default_rng(seed)
    coarse = [float(np.float32(2.0**-power * step)) for power in (3, 4, 5) for step in (1, 1.1, 3)]
    first, second, target = (
        Quantised("x", "UINT8", (), float(rng.choice(coarse)), int(rng.integers(0, 256))) for _ in range(3)
    )
    left, right = (pairs.astype(np.uint8) for pairs in np.meshgrid(np.arange(256), np.arange(256)))
    results = arithmetic.added(left, first, right, second, target)
    constants = [*parameters(first), *parameters(second), *parameters(target)]
    np.testing.assert_array_equal(results, by_onnxruntime("QLinearAdd", [left, right], constants, "dccdcccc"))


@given(tensors(), seeds, st.data())
@settings(max_examples=100)
def test_a_scaling_is_onnxruntimes(first: Quantised, seed: int, data: st.DataObject) -> None:
    second, target = data.draw(like(first.datatype)), data.draw(like(first.datatype))
    left, right = values(first, (2, 5, 33), seed), values(second, (5, 1), seed + 1)
    results = arithmetic.multiplied(left, first, right, second, target)
    constants = [*parameters(first), *parameters(second), *parameters(target)]
    np.testing.assert_array_equal(results, by_onnxruntime("QLinearMul", [left, right], constants, "dccdcccc"))


@given(tensors(), seeds, st.booleans(), st.data())
@settings(max_examples=150)
def test_an_average_is_onnxruntimes(source: Quantised, seed: int, counts: bool, data: st.DataObject) -> None:
    target = data.draw(like(source.datatype))
    kernel = data.draw(st.tuples(*[st.integers(1, 4)] * 2))
    before, after = (data.draw(st.tuples(*[st.integers(0, size - 1) for size in kernel])) for _ in range(2))
    window = Window(kernel, data.draw(st.tuples(*[st.integers(1, 3)] * 2)), (1, 1), before, after)
    frame = values(source, (2, 3, 8, 6), seed)
    results = arithmetic.average_pooled(frame, source, target, AveragePool(window, counts))
    expected = by_onnxruntime(
        "QLinearAveragePool",
        [frame],
        [*parameters(source), *parameters(target)],
        "dcccc",
        kernel_shape=kernel,
        strides=window.strides,
        pads=[*before, *after],
        count_include_pad=int(counts),
    )
    np.testing.assert_array_equal(results, expected)


@given(tensors(), seeds, st.data())
@settings(max_examples=100)
def test_a_global_average_is_onnxruntimes(source: Quantised, seed: int, data: st.DataObject) -> None:
    target = data.draw(like(source.datatype))
    frame = values(source, (2, 9, 7, 5), seed)
    constants = [*parameters(source), *parameters(target)]
    expected = by_onnxruntime("QLinearGlobalAveragePool", [frame], constants, "dcccc")
    np.testing.assert_array_equal(arithmetic.globally_pooled(frame, source, target), expected)


@given(tensors(), seeds, st.data())
@settings(max_examples=100)
def test_a_change_of_scale_is_onnxruntimes(source: Quantised, seed: int, data: st.DataObject) -> None:
    target = data.draw(like(source.datatype))
    frame = values(source, (2, 200), seed)
    constants = [*parameters(target), *parameters(source)]
    expected = by_onnxruntime("QLinearConcat", [frame], constants, "ccdcc", axis=1)
    np.testing.assert_array_equal(arithmetic.rescaled(frame, source, target), expected)


@given(
    seeds,
    st.tuples(*[st.integers(1, 3)] * 3),
    st.tuples(*[st.integers(1, 3)] * 2),
    st.tuples(*[st.integers(1, 3)] * 2),
    st.tuples(*[st.integers(1, 2)] * 2),
)
@settings(max_examples=100)
def test_a_transposed_convolution_undoes_the_way_of_a_convolution(
    seed: int, counts: tuple[int, ...], kernel: Any, strides: Any, dilations: Any
) -> None:
    """Spreading is the transpose of gathering: <gather(x), y> = <x, spread(y)> for all x and y."""
    groups, inputs, outputs = counts
    rng = np.random.default_rng(seed)
    stored = rng.integers(-128, 128, (groups * outputs, inputs, *kernel)).astype(np.int8)
    window = Window(kernel, strides, dilations, (0, 0), (0, 0))
    weights = Constant(stored, np.ones(1, np.float32), 3)
    small = rng.integers(-128, 128, (1, groups * outputs, 4, 3)).astype(np.int8)
    reach = window.reach((4, 3))
    large = rng.integers(-128, 128, (1, groups * inputs, *reach)).astype(np.int8)
    gathered = arithmetic.convolution_sums(large, 5, Convolution(weights, None, groups, window))
    spreading = TransposedConvolution(weights, None, groups, window, (0, 0))
    spread = arithmetic.transposed_convolution_sums(small, -7, spreading)
    assert (gathered.astype(object) * (small.astype(int) + 7)).sum() == (
        spread.astype(object) * (large.astype(int) - 5)
    ).sum()


def test_halves_are_rounded_to_the_even_neighbour_and_the_rest_saturates() -> None:
    target = Quantised("y", "INT8", (), 1.0, 0)
    sums = np.array([1, 3, 5, -1, -3, 1000, -1000], np.int32)
    half = np.array([0.5], np.float32)
    assert arithmetic.requantised(sums, half, target).tolist() == [0, 2, 2, 0, -2, 127, -128]


def test_sums_are_exact_where_float32_would_lose_their_last_bits() -> None:
    frame = np.full((1, 4001), 255, np.uint8)
    right = np.full((4001, 1), 127, np.int8)
    assert arithmetic.product_sums(frame, 0, right, 0, None).item() == 4001 * 255 * 127
