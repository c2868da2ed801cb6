"""Models in floats as models in int8, by onnxruntime's static quantisation and rows of the user's own."""

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import onnx
from onnx import ModelProto

from backends.fsd_calibration import OPTION, Calibration
from backends.fsd_graph import PRODUCTS, in_opset
from backends.kernel import MODEL_UNSUPPORTED, KernelError, Tensor
from backends.onnx_runs import FATAL
from backends.onnx_session import OWN_BYTES_ONLY, opened, runtime_imported

if TYPE_CHECKING:
    from backends.fsd_calibration import Feed

QUANTISED: Final = frozenset({"QuantizeLinear", "DequantizeLinear"})
ROWS_APART: Final = {
    # it would make one matrix of a row's vectors, where the first dimension is not the row any more
    "optimization.disable_specified_optimizers": "MatMulAddFusion",
}
RESHAPED: Final = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Clip"})
"""Operators whose further inputs say how, and are no tensors of the arithmetic."""
PREPARED: Final = {"onnx.quant.pre_process": "onnxruntime.quant"}
"""Metadata by which the quantiser knows that a model was folded before, and does not advise it."""


def is_quantised(model: ModelProto) -> bool:
    """Whether it is in QDQ form, whole or in parts."""
    return any(node.op_type in QUANTISED for node in model.graph.node)


def needs_quantising(model: ModelProto) -> bool:
    """Whether it is in floats and has something for the NPU's array."""
    return not is_quantised(model) and any(node.op_type in PRODUCTS for node in model.graph.node)


def quantised(
    model: ModelProto, inputs: Sequence[Tensor], data: Calibration | None, operators: frozenset[str]
) -> ModelProto:
    """The model in QDQ form, uint8 activations and int8 weights with a scale for each channel.

    What is not among `operators` stays in floats. Raises `KernelError` 132 without data or for data that does not fit.
    """
    if data is None:
        product = next(node for node in model.graph.node if node.op_type in PRODUCTS)
        text = f"node {product.name or product.output[0]!r} ({product.op_type}) and the others are in floats"
        cure = f"give typical rows in {OPTION}, or a model in int8 (QDQ)"
        raise KernelError(MODEL_UNSUPPORTED, f"{text}: {cure}")
    rows = data.rows_for(inputs)
    with tempfile.TemporaryDirectory(prefix="parkwatt-fsd-") as scratch:
        folded = _in_the_quantisers_words(_folded(model, Path(scratch)))
        return _by_onnxruntime(folded, rows, operators, Path(scratch))


def _folded(model: ModelProto, scratch: Path) -> ModelProto:
    """With constants computed, and normalisations in the convolutions before them."""
    runtime = runtime_imported()
    path = scratch / "folded.onnx"
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    options.log_severity_level = FATAL
    for key, value in {**OWN_BYTES_ONLY, **ROWS_APART}.items():
        options.add_session_config_entry(key, value)
    opened(runtime, model.SerializeToString(), options, "CPUExecutionProvider")
    return onnx.load(path)


def _in_the_quantisers_words(model: ModelProto) -> ModelProto:
    """Nodes with names, sums of two as Add, and the bias of a Gemm as a vector: others it does not know or fails at."""
    constants = {item.name: item for item in model.graph.initializer}
    readers = Counter(name for node in model.graph.node for name in node.input)
    for node in model.graph.node:
        node.name = node.name or node.output[0]
        if node.op_type == "Sum" and len(node.input) == 2:
            node.op_type = "Add"
        if node.op_type == "Gemm" and len(node.input) == 3 and readers[node.input[2]] == 1:
            bias = constants.get(node.input[2])
            if bias is not None and len(bias.dims) == 2 and bias.dims[0] == 1:
                del bias.dims[0]
    for key, value in PREPARED.items():
        model.metadata_props.add(key=key, value=value)
    return in_opset(model)


def _by_onnxruntime(
    model: ModelProto, rows: "Iterator[Feed]", operators: frozenset[str], scratch: Path
) -> ModelProto:
    from onnxruntime import quantization  # noqa: PLC0415 - not before telemetry is off, which `runtime_imported` does

    source, result = scratch / "float.onnx", scratch / "int8.onnx"
    onnx.save(model, source)
    try:
        quantization.quantize_static(
            source,
            result,
            _Rows(rows),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            op_types_to_quantize=sorted(operators),
            nodes_to_exclude=_left_in_floats(model, operators),
        )
    except (KernelError, MemoryError):
        raise
    except Exception as error:  # the quantiser's failures have no class of their own
        text = f"onnxruntime's quantiser refuses the model: {error}; quantise it yourself and give it in QDQ form"
        raise KernelError(MODEL_UNSUPPORTED, text) from error
    return onnx.load(result)


class _Rows:
    """Rows as the quantiser takes them."""

    def __init__(self, rows: "Iterator[Feed]") -> None:
        self._rows = rows

    def get_next(self) -> Mapping[str, Any] | None:
        return next(self._rows, None)


def _left_in_floats(model: ModelProto, operators: frozenset[str]) -> list[str]:
    """Names of nodes that the NPU could run, and that lose by it.

    A product or a window is what the NPU is for. Anything else is worth its 8 bits only among those: a sum with
    something that the host computes goes back and forth, and where that is a mask of -1e38, it takes the range of
    all scores with it. A product of two activations the NPU has not got.
    """
    constants = {item.name for item in model.graph.initializer}
    on_npu = {name for node in model.graph.node if node.op_type in PRODUCTS for name in node.input}
    on_npu &= {value.name for value in model.graph.input}
    left = []
    for node in model.graph.node:
        taken = [name for name in node.input if name and name not in constants]
        if node.op_type in RESHAPED:
            taken = taken[:1]
        gates = node.op_type == "Mul" and len(taken) > 1
        if node.op_type in PRODUCTS or (node.op_type in operators and on_npu.issuperset(taken) and not gates):
            on_npu.update(node.output)
        elif node.op_type in operators:
            left.append(node.name)
    return left
