"""A network computed by the arithmetic itself, layer by layer: what every faster way has to equal."""

from collections.abc import Callable, Sequence

import numpy as np

from firmware_shims.fsd import arithmetic
from firmware_shims.fsd.arithmetic import Array
from firmware_shims.fsd.layers import (
    AveragePool,
    Concatenation,
    Constant,
    Convolution,
    Datatype,
    GlobalAveragePool,
    Layer,
    MatrixProduct,
    MaximumPool,
    Network,
    Passing,
    Quantised,
    Scaling,
    Sum,
    TransposedConvolution,
)


def computed(network: Network, inputs: Sequence[Array], between_layers: Callable[[], None]) -> list[Array]:
    """The outputs for inputs of shape (rows, *row_shape). `between_layers` may raise to end it."""
    known = {tensor.name: values for tensor, values in zip(network.inputs, inputs, strict=True)}
    for layer in network.layers:
        between_layers()
        known[layer.output.name] = layer_results(layer, [known[source.name] for source in layer.inputs])
    return [known[tensor.name] for tensor in network.outputs]


def layer_results(layer: Layer, inputs: Sequence[Array]) -> Array:
    """The stored results of one layer."""
    results = _results(layer, inputs)
    return np.clip(results, layer.floor, layer.ceiling) if layer.clips else results


def _results(layer: Layer, inputs: Sequence[Array]) -> Array:
    values, source, target = inputs[0], layer.inputs[0], layer.output
    match layer.work:
        case MaximumPool(window):
            results = arithmetic.rescaled(arithmetic.maximum_pooled(values, source, window), source, target)
        case AveragePool() as work:
            results = arithmetic.average_pooled(values, source, target, work)
        case GlobalAveragePool():
            results = arithmetic.globally_pooled(values, source, target)
        case Sum(None):
            results = arithmetic.added(values, source, inputs[1], layer.inputs[1], target)
        case Sum(Constant() as constant):
            results = arithmetic.added(values, source, *_operand(constant), target)
        case Scaling(constant):
            results = arithmetic.multiplied(values, source, *_operand(constant), target)
        case Concatenation(axis):
            parts = zip(inputs, layer.inputs, strict=True)
            results = np.concatenate([arithmetic.rescaled(part, own, target) for part, own in parts], axis)
        case Passing():
            passed = arithmetic.rescaled(values, source, target)
            results = passed.reshape(len(values), *target.row_shape)
        case _:
            results = _products(layer, inputs)
    return results


def _products(layer: Layer, inputs: Sequence[Array]) -> Array:
    values, source, target = inputs[0], layer.inputs[0], layer.output
    scales_axis = 1
    match layer.work:
        case Convolution() as work:
            sums, scales = arithmetic.convolution_sums(values, source.zero_point, work), work.weights.scales
        case TransposedConvolution() as work:
            sums = arithmetic.transposed_convolution_sums(values, source.zero_point, work)
            scales = work.weights.scales
        case MatrixProduct(right, bias):
            sums = arithmetic.product_sums(values, source.zero_point, right.values, right.zero_point, bias)
            scales, scales_axis = right.scales, sums.ndim - 1
        case _:
            second = layer.inputs[1]
            sums = arithmetic.product_sums(values, source.zero_point, inputs[1], second.zero_point, None)
            scales = np.array([second.scale], np.float32)
    factor = arithmetic.multiplier(source, scales, target)
    along = [1] * sums.ndim
    along[scales_axis] = -1
    return arithmetic.requantised(sums, factor.reshape(along), target)


def _operand(constant: Constant) -> tuple[Array, Quantised]:
    """A constant with the description that an activation has, for the operators that take either."""
    shape, scale = constant.values.shape, float(constant.scales[0])
    datatype: Datatype = "INT8" if constant.values.dtype == np.int8 else "UINT8"
    return constant.values, Quantised("", datatype, shape, scale, constant.zero_point)
