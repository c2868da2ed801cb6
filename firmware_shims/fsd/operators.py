"""The operators of the NPU: from a unit of a quantised ONNX graph to a layer, or why not."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np

from firmware_shims.fsd import products
from firmware_shims.fsd.layers import (
    AveragePool,
    Concatenation,
    Constant,
    GlobalAveragePool,
    Layer,
    MaximumPool,
    Passing,
    Quantised,
    Scaling,
    Sum,
    Work,
)
from firmware_shims.fsd.units import DATATYPES, Dequantised, Refused, Unit, quantised
from firmware_shims.fsd.windows import pool_window

Inputs = tuple[Quantised, ...]
LARGEST_RATIO: Final = 2.0**15
"""Of an operand's scale to the result's, in operators whose results are rounded before they are saturated."""


def layer_of(unit: Unit, shapes: Mapping[str, Sequence[int]]) -> Layer:
    """The layer that computes a unit; raises `Refused`. `shapes` are those of the integer tensors."""
    kind = unit.operator.op_type
    if kind not in OPERATORS:
        raise Refused(
            f"the NPU has no such operator: run it on the host. It has {', '.join(sorted(OPERATORS))}"
        )
    if unit.scale is None:
        raise Refused("its result is not quantised")
    output = quantised(unit.output, unit.scale, shapes.get(unit.output, ()))
    inputs = tuple(
        quantised(item.name, item.scale, shapes.get(item.name, ()))
        for item in unit.inputs
        if isinstance(item, Dequantised) and item.values is None
    )
    if not inputs:
        raise Refused("all its inputs are constant: fold it")
    work = OPERATORS[kind](unit, inputs, output)
    if isinstance(work, Sum):
        inputs = tuple(sorted(inputs, key=lambda source: source.row_bytes, reverse=True))
    return Layer(unit.name, kind, inputs, output, work, *_limits(unit, output))


def _limits(unit: Unit, output: Quantised) -> tuple[int, int]:
    """An activation's limits as stored values: rounding keeps the order, so limiting may come after it."""
    if unit.activation is None:
        return output.lowest, output.highest
    if unit.activation.op_type == "Relu":
        return _stored(0.0, output), output.highest
    names = [*unit.activation.input[1:], "", ""][:2]
    limits = [*unit.limits, None, None][:2]
    if any(name and (limit is None or limit.size != 1) for name, limit in zip(names, limits, strict=True)):
        raise Refused("the limits of its Clip are computed, or not one each: make them constants")
    least, most = (None if limit is None else float(limit.reshape(-1)[0]) for limit in limits)
    return (
        output.lowest if least is None else _stored(least, output),
        output.highest if most is None else _stored(most, output),
    )


def _stored(value: float, output: Quantised) -> int:
    whole = np.rint(np.float32(value) / np.float32(output.scale)) + output.zero_point
    return int(np.clip(whole, output.lowest, output.highest))


def _maximum_pool(unit: Unit, inputs: Inputs, output: Quantised) -> Work:
    if len(unit.operator.output) > 1:
        raise Refused("its indices are asked for, too: run it on the host")
    spatial, reached = products.spatial_shape(inputs[0]), products.spatial_shape(output)
    return MaximumPool(pool_window(unit.attributes(), spatial, reached))


def _average_pool(unit: Unit, inputs: Inputs, output: Quantised) -> Work:
    attributes = unit.attributes()
    spatial, reached = products.spatial_shape(inputs[0]), products.spatial_shape(output)
    window = pool_window(attributes, spatial, reached)
    if set(window.dilations) != {1}:
        raise Refused(f"its windows are dilated by {list(window.dilations)}: the NPU averages without gaps")
    return AveragePool(window, bool(attributes.get("count_include_pad", 0)))


def _global_average_pool(_: Unit, inputs: Inputs, __: Quantised) -> Work:
    products.spatial_shape(inputs[0])
    return GlobalAveragePool()


def _sum(unit: Unit, inputs: Inputs, output: Quantised) -> Work:
    _check_ratios(unit, output)
    if max(source.row_bytes for source in inputs) != output.row_bytes:
        raise Refused("its operands repeat each other: give one of them the result's shape")
    return Sum(_operand(unit, output) if len(inputs) == 1 else None)


def _scaling(unit: Unit, inputs: Inputs, output: Quantised) -> Work:
    _check_ratios(unit, output)
    if len(inputs) != 1 or inputs[0].row_bytes != output.row_bytes:
        raise Refused("it multiplies two activations: the NPU scales by constants; run it on the host")
    return Scaling(_operand(unit, output))


def _operand(unit: Unit, output: Quantised) -> Constant:
    """The constant operand of a sum or a product of two."""
    given = unit.tensor(0) if unit.tensor(0).values is not None else unit.tensor(1)
    constant = given.constant()
    if constant.scales.size != 1 or constant.values.dtype not in DATATYPES:
        raise Refused("its constant should be int8 or uint8, with one scale")
    if constant.values.ndim > len(output.row_shape) and constant.values.shape[0] != 1:
        raise Refused("its constant has rows of its own: every row takes the same")
    return constant


def _check_ratios(unit: Unit, output: Quantised) -> None:
    for place in (0, 1):
        ratio = float(unit.tensor(place).scale.scales.max()) / output.scale
        if ratio > LARGEST_RATIO:
            raise Refused(
                f"the scale of input {place + 1} is {ratio:.3g} times the result's: at most {LARGEST_RATIO:g}"
            )


def _concatenation(unit: Unit, inputs: Inputs, output: Quantised) -> Work:
    if len(inputs) != len(unit.inputs):
        raise Refused("it joins constants: add them on the host")
    return Concatenation(int(unit.attributes()["axis"]) % (len(output.row_shape) + 1))


def _passing(_: Unit, inputs: Inputs, output: Quantised) -> Work:
    if inputs[0].row_bytes != output.row_bytes:
        raise Refused(
            f"a row of {inputs[0].row_bytes} values becomes one of {output.row_bytes}: keep axis 0 the row"
        )
    return Passing()


OPERATORS: Final[Mapping[str, Callable[[Unit, Inputs, Quantised], Work]]] = {
    "Conv": products.convolution,
    "ConvTranspose": products.transposed_convolution,
    "MatMul": products.matrix_product,
    "Gemm": products.general_matrix_product,
    "MaxPool": _maximum_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global_average_pool,
    "Add": _sum,
    "Mul": _scaling,
    "Concat": _concatenation,
    **dict.fromkeys(
        ("Relu", "Clip", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "QuantizeLinear"), _passing
    ),
}
"""By ONNX name."""
