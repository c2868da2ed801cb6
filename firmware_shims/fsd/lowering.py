"""A network of uint8 tensors as an ONNX graph of onnxruntime's integer operators: one session computes all of it.

Every node says its integers itself (QLinearConv, QLinearMatMul, and the com.microsoft ones), so no graph
optimisation decides what is rounded where. The first dimension is free: a session runs any number of rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from firmware_shims.fsd.arithmetic import DTYPES
from firmware_shims.fsd.layers import (
    ActivationProduct,
    AveragePool,
    Concatenation,
    Constant,
    Convolution,
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
    Window,
)

Array = npt.NDArray[Any]
OPSET: Final = 17
IR_VERSION: Final = 8
MICROSOFT: Final = "com.microsoft"


def lowered(network: Network) -> ModelProto:
    """The graph, with the network's names for its inputs and outputs."""
    graph = _Graph()
    for layer in network.layers:
        _add(graph, layer)
    return helper.make_model(
        helper.make_graph(
            graph.nodes,
            "npu",
            [_declared(tensor) for tensor in network.inputs],
            [_declared(tensor) for tensor in network.outputs],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)],
        ir_version=IR_VERSION,
    )


@dataclass
class _Graph:
    nodes: list[NodeProto] = field(default_factory=list)
    constants: list[TensorProto] = field(default_factory=list)

    def constant(self, values: Any, dtype: Any) -> str:
        """The name of a new constant."""
        name = f"constant/{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def quantisation(self, tensor: Quantised) -> list[str]:
        """Names of a tensor's scale and zero point."""
        return [
            self.constant(tensor.scale, np.float32),
            self.constant(tensor.zero_point, DTYPES[tensor.datatype]),
        ]

    def stored(self, constant: Constant) -> list[str]:
        """Names of a constant's values, scales and zero point."""
        scales = constant.scales if constant.scales.size > 1 else constant.scales[0]
        return [
            self.constant(constant.values, constant.values.dtype),
            self.constant(scales, np.float32),
            self.constant(constant.zero_point, constant.values.dtype),
        ]

    def node(self, kind: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        """Append a node; its output's name."""
        output = output or f"between/{len(self.nodes)}"
        domain = MICROSOFT if kind in _OF_MICROSOFT else ""
        self.nodes.append(helper.make_node(kind, inputs, [output], domain=domain, **attributes))
        return output


_OF_MICROSOFT: Final = frozenset(
    {"QGemm", "QLinearAdd", "QLinearMul", "QLinearConcat", "QLinearAveragePool", "QLinearGlobalAveragePool"}
)


def _declared(tensor: Quantised) -> ValueInfoProto:
    kind = TensorProto.INT8 if tensor.datatype == "INT8" else TensorProto.UINT8
    return helper.make_tensor_value_info(tensor.name, kind, ["rows", *tensor.row_shape])


def _add(graph: _Graph, layer: Layer) -> None:
    result = _computed(graph, layer)
    if layer.clips:
        dtype = DTYPES[layer.output.datatype]
        limits = [graph.constant(layer.floor, dtype), graph.constant(layer.ceiling, dtype)]
        result = graph.node("Clip", [result, *limits])
    graph.node("Identity", [result], layer.output.name)


def _computed(graph: _Graph, layer: Layer) -> str:
    source, target = layer.inputs[0], layer.output
    quantised = [source.name, *graph.quantisation(source)]
    match layer.work:
        case MaximumPool(window):
            pooled = graph.node("MaxPool", [source.name], **_pool(window), dilations=window.dilations)
            result = _rescaled(graph, pooled, source, target)
        case AveragePool(window, counts_padding):
            result = graph.node(
                "QLinearAveragePool",
                [*quantised, *graph.quantisation(target)],
                **_pool(window),
                count_include_pad=int(counts_padding),
            )
        case GlobalAveragePool():
            result = graph.node("QLinearGlobalAveragePool", [*quantised, *graph.quantisation(target)])
        case Sum(constant):
            second = _second(graph, layer) if constant is None else graph.stored(constant)
            result = graph.node("QLinearAdd", [*quantised, *second, *graph.quantisation(target)])
        case Scaling(constant):
            operands = [*quantised, *graph.stored(constant), *graph.quantisation(target)]
            result = graph.node("QLinearMul", operands)
        case Concatenation(axis):
            parts = [name for part in layer.inputs for name in (part.name, *graph.quantisation(part))]
            result = graph.node("QLinearConcat", [*graph.quantisation(target), *parts], axis=axis)
        case Passing():
            result = _reshaped(graph, _rescaled(graph, source.name, source, target), target.row_shape)
        case _:
            result = _product(graph, layer, quantised)
    return result


def _product(graph: _Graph, layer: Layer, quantised: list[str]) -> str:
    source, target = layer.inputs[0], graph.quantisation(layer.output)
    match layer.work:
        case Convolution(weights, bias, groups, window):
            inputs = [*quantised, *graph.stored(weights), *target, *_bias(graph, bias)]
            return graph.node(
                "QLinearConv",
                inputs,
                strides=window.strides,
                dilations=window.dilations,
                pads=[*window.before, *window.after],
                group=groups,
            )
        case TransposedConvolution() as work:
            gathering = graph.stored(_turned(work))
            inputs = [_spread(graph, source, work), *quantised[1:], *gathering, *target]
            return graph.node(
                "QLinearConv",
                [*inputs, *_bias(graph, work.bias)],
                dilations=work.window.dilations,
                group=work.groups,
            )
        case MatrixProduct(right, None):
            stored = graph.stored(right)
            return graph.node("QLinearMatMul", [*quantised, *stored, *target])
        case MatrixProduct(right, bias):
            values, scales, _ = graph.stored(right)
            zeros = np.full(right.scales.shape if right.scales.size > 1 else (), right.zero_point)
            stored = [values, scales, graph.constant(zeros, right.values.dtype)]
            return graph.node("QGemm", [*quantised, *stored, *_bias(graph, bias), *target])
        case ActivationProduct():
            return graph.node("QLinearMatMul", [*quantised, *_second(graph, layer), *target])
        case work:
            raise TypeError(f"{layer.name!r}: no lowering of {type(work).__name__}")


def _second(graph: _Graph, layer: Layer) -> list[str]:
    return [layer.inputs[1].name, *graph.quantisation(layer.inputs[1])]


def _bias(graph: _Graph, bias: Array | None) -> list[str]:
    return [] if bias is None else [graph.constant(bias, np.int32)]


def _pool(window: Window) -> Mapping[str, Any]:
    return {
        "kernel_shape": window.kernel,
        "strides": window.strides,
        "pads": [*window.before, *window.after],
    }


def _rescaled(graph: _Graph, name: str, source: Quantised, target: Quantised) -> str:
    if source.stored_alike(target):
        return name
    # of one input, it is a table of 256 results
    part = [name, *graph.quantisation(source)]
    return graph.node("QLinearConcat", [*graph.quantisation(target), *part], axis=0)


def _reshaped(graph: _Graph, name: str, row_shape: Sequence[int]) -> str:
    return graph.node("Reshape", [name, graph.constant([-1, *row_shape], np.int64)])


def _turned(work: TransposedConvolution) -> Constant:
    """The weights of the convolution that gathers what a transposed one spreads."""
    weights, groups = work.weights.values, work.groups
    inputs, outputs, *kernel = weights.shape
    by_group = weights.reshape(groups, inputs // groups, outputs, *kernel).swapaxes(1, 2)
    gathering = by_group.reshape(groups * outputs, inputs // groups, *kernel)
    flipped = np.flip(gathering, axis=tuple(range(2, gathering.ndim)))
    return Constant(np.ascontiguousarray(flipped), work.weights.scales, work.weights.zero_point)


def _spread(graph: _Graph, source: Quantised, work: TransposedConvolution) -> str:
    """The input with its values a stride apart and zeros between and around: onnxruntime's is for floats only."""
    channels, *spatial = source.row_shape
    window, axes = work.window, len(spatial)
    zero = graph.constant(source.zero_point, DTYPES[source.datatype])
    apart = _reshaped(
        graph,
        source.name,
        [channels, *(size for pair in zip(spatial, [1] * axes, strict=True) for size in pair)],
    )
    between = [0, 0, *(gap for stride in window.strides for gap in (0, stride - 1))]
    filled = graph.node("Pad", [apart, graph.constant([0] * len(between) + between, np.int64), zero])
    wide = _reshaped(
        graph,
        filled,
        [channels, *(size * stride for size, stride in zip(spatial, window.strides, strict=True))],
    )
    margins = [(taps - 1) * dilation for taps, dilation in zip(window.kernel, window.dilations, strict=True)]
    before = [margin - cut for margin, cut in zip(margins, window.before, strict=True)]
    after = [
        margin - cut + extra - (stride - 1)
        for margin, cut, extra, stride in zip(
            margins, window.after, work.output_padding, window.strides, strict=True
        )
    ]
    return graph.node("Pad", [wide, graph.constant([0, 0, *before, 0, 0, *after], np.int64), zero])
