"""The operators of the multiply-accumulate array, out of units of a quantised ONNX graph."""

from collections.abc import Mapping
from math import prod
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from firmware_shims.fsd.layers import (
    ActivationProduct,
    Constant,
    Convolution,
    MatrixProduct,
    Quantised,
    TransposedConvolution,
)
from firmware_shims.fsd.units import DATATYPES, Dequantised, Refused, Unit
from firmware_shims.fsd.windows import window_of, written_window

Array = npt.NDArray[Any]
INT32_MAX: Final = 2**31 - 1
LARGEST_FACTOR: Final = 255
"""How far a stored 8-bit value can be from its zero point."""
LONGEST_PRODUCT: Final = INT32_MAX // LARGEST_FACTOR**2
"""Terms that always fit int32, whatever they are."""
BIAS_TOLERANCE: Final = 1e-3
"""Of a bias's scale against the product of the other two: quantisers round it."""


def convolution(unit: Unit, inputs: tuple[Quantised, ...], output: Quantised) -> Convolution:
    """Conv of one or two spatial axes."""
    attributes = unit.attributes()
    weights = _weights(unit, channel_axis=0)
    spatial = spatial_shape(inputs[0])
    window = window_of(attributes, weights.values.shape[2:], spatial, spatial_shape(output))
    bias = _bias(unit, inputs[0], weights, len(weights.values))
    _check_sums(_distances(weights).reshape(len(weights.values), -1), bias)
    groups = _groups(attributes, inputs[0], output)
    if weights.values.shape[1] * groups != inputs[0].row_shape[0]:
        raise Refused(
            f"its weights do not fit an input of {inputs[0].row_shape[0]} channels in {groups} groups"
        )
    return Convolution(weights, bias, groups, window)


def transposed_convolution(
    unit: Unit, inputs: tuple[Quantised, ...], output: Quantised
) -> TransposedConvolution:
    """ConvTranspose of one or two spatial axes, its padding written out."""
    attributes = unit.attributes()
    if attributes.get("auto_pad", b"NOTSET") != b"NOTSET" or "output_shape" in attributes:
        raise Refused("it leaves its padding open: write `pads`, not auto_pad or output_shape")
    groups, weights = _groups(attributes, inputs[0], output), _weights(unit, channel_axis=1)
    if groups > 1 and weights.scales.size > 1:
        raise Refused("it has groups and a scale for each channel: quantise its weights with one scale")
    spatial_shape(inputs[0])
    window = written_window(attributes, weights.values.shape[2:])
    padding = tuple(attributes.get("output_padding", [0] * len(window.kernel)))
    if len(padding) != len(window.kernel) or len(weights.values) != inputs[0].row_shape[0]:
        raise Refused("its weights or its output_padding do not fit what it takes")
    channels = weights.values.shape[1]
    bias = _bias(unit, inputs[0], weights, channels * groups)
    by_group = _distances(weights).reshape(groups, -1, channels, prod(window.kernel))
    _check_sums(by_group.swapaxes(1, 2).reshape(groups * channels, -1), bias)
    return TransposedConvolution(weights, bias, groups, window, padding)


def matrix_product(
    unit: Unit, inputs: tuple[Quantised, ...], _: Quantised
) -> MatrixProduct | ActivationProduct:
    """MatMul, by a constant matrix or by another activation of the same rank."""
    if unit.tensor(0).values is not None:
        raise Refused("its left side is constant: transpose the product")
    if unit.tensor(1).values is not None:
        return _by_constant(unit, _weights(unit, channel_axis=1), inputs[0])
    left, right = (source.row_shape for source in inputs)
    if len(left) != len(right) or len(left) < 2 or left[:-2] != right[:-2]:
        raise Refused(
            f"its sides have the shapes {list(left)} and {list(right)} in a row: give both the same axes"
        )
    if left[-1] > LONGEST_PRODUCT:
        raise Refused(f"its sums have {left[-1]} terms, which may overflow int32: at most {LONGEST_PRODUCT}")
    return ActivationProduct()


def general_matrix_product(unit: Unit, inputs: tuple[Quantised, ...], _: Quantised) -> MatrixProduct:
    """Gemm of one vector a row by a constant matrix."""
    attributes = unit.attributes()
    if attributes.get("transA", 0) or len(inputs) != 1 or unit.tensor(0).values is not None:
        raise Refused("it should be a row times a constant matrix, not transposed")
    if attributes.get("alpha", 1.0) != 1.0 or attributes.get("beta", 1.0) != 1.0:
        raise Refused("it has alpha or beta: multiply them into the weights and the bias")
    if not attributes.get("transB", 0):
        return _by_constant(unit, _weights(unit, channel_axis=1), inputs[0])
    weights = _weights(unit, channel_axis=0)
    upright = Constant(np.ascontiguousarray(weights.values.T), weights.scales, weights.zero_point)
    return _by_constant(unit, upright, inputs[0])


def spatial_shape(tensor: Quantised) -> tuple[int, ...]:
    """What comes behind rows and channels: one or two axes, or `Refused`."""
    if len(tensor.row_shape) not in {2, 3}:
        raise Refused(
            f"{tensor.name!r} has {len(tensor.row_shape) - 1} spatial axes: the NPU works on one or two"
        )
    return tensor.row_shape[1:]


def _by_constant(unit: Unit, right: Constant, left: Quantised) -> MatrixProduct:
    if right.values.ndim != 2:
        raise Refused(f"its constant has {right.values.ndim} axes: the NPU takes a matrix")
    bias = _bias(unit, left, right, right.values.shape[1])
    _check_sums(_distances(right).T, bias)
    if bias is not None and len(left.row_shape) != 1:
        raise Refused("it has a bias and more than one vector a row: use MatMul and Add")
    return MatrixProduct(right, bias)


def _groups(attributes: Mapping[str, Any], source: Quantised, target: Quantised) -> int:
    groups = int(attributes.get("group", 1))
    if groups < 1 or source.row_shape[0] % groups or target.row_shape[0] % groups:
        raise Refused(f"its {groups} groups do not divide the channels of what it takes and gives")
    return groups


def _weights(unit: Unit, channel_axis: int) -> Constant:
    given = unit.tensor(1)
    constant = given.constant()
    if constant.values.dtype not in DATATYPES:
        raise Refused(f"its weights are {constant.values.dtype}: quantise them to int8")
    if constant.values.ndim <= channel_axis:
        raise Refused(f"its weights have {constant.values.ndim} axes: give them all of the operator's")
    if constant.scales.size not in {1, constant.values.shape[channel_axis]}:
        raise Refused(
            f"its weights have {constant.scales.size} scales: one, or one for each channel it gives"
        )
    if constant.scales.size > 1 and given.scale.axis % constant.values.ndim != channel_axis:
        raise Refused(
            f"its weights have scales along axis {given.scale.axis}, not {channel_axis}, the output's"
        )
    return constant


def _bias(unit: Unit, source: Quantised, weights: Constant, channels: int) -> Array | None:
    if len(unit.inputs) < 3 or not unit.operator.input[2]:
        return None
    given = unit.inputs[2]
    if not isinstance(given, Dequantised) or given.values is None or given.values.dtype != np.int32:
        raise Refused("its bias is no int32 constant: quantise it with the product of the other two scales")
    wanted = np.float32(source.scale) * weights.scales
    if not np.allclose(given.scale.scales, wanted, rtol=BIAS_TOLERANCE, atol=0):
        raise Refused("its bias has another scale than input times weights: quantise it with that product")
    if given.values.size not in {1, channels}:
        raise Refused(f"its bias has {given.values.size} values for {channels} channels")
    return np.broadcast_to(given.values.reshape(-1), (channels,))


def _distances(weights: Constant) -> Array:
    return np.abs(weights.values.astype(np.int64) - weights.zero_point)


def _check_sums(by_output: Array, bias: Array | None) -> None:
    """Refuse weights with which a sum of products could leave int32. `by_output`: (channels, terms)."""
    largest = LARGEST_FACTOR * by_output.sum(axis=1)
    if bias is not None:
        largest = largest + np.abs(bias.astype(np.int64))
    if largest.max() > INT32_MAX:
        raise Refused(
            f"its sums may reach {largest.max()}, beyond int32 ({INT32_MAX}): split it, or use smaller weights"
        )
