"""From ONNX to layers.

A program of the format `interface.PROGRAM_FORMAT` is

- a serialised ONNX model, opset 13 or later, with nothing in other files,
- for one row: every activation's first dimension is the row and is 1, all other dimensions are fixed,
- whose inputs and outputs are int8 or uint8 tensors,
- and whose nodes are units (`units`): DequantizeLinear on every input, weights and bias included, one operator
  of `operators.OPERATORS`, perhaps a Relu or Clip, and QuantizeLinear.

A quantiser's QDQ model, cut anywhere at quantised tensors, is such a program. Each unit is computed in integers
(`arithmetic`), which is not quite what its float nodes say: sums are exact, and rounded once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import onnx
from google.protobuf.message import DecodeError
from onnx import helper, shape_inference

from firmware_shims.fsd.interface import Code, FsdError
from firmware_shims.fsd.layers import Layer, Network, Quantised
from firmware_shims.fsd.operators import layer_of
from firmware_shims.fsd.units import Refusal, Refused, constants_of, units_of

if TYPE_CHECKING:
    from typing import Any

    import numpy as np

OLDEST_OPSET: Final = 13
"""The first in which weights may have a scale for each channel."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What the NPU can compute of a model, and what not."""

    layers: Sequence[Layer]
    refused: Sequence[Refusal]


@dataclass(frozen=True, slots=True)
class _Described:
    """A model with shapes and datatypes of its tensors; a dimension that is not known is 0."""

    graph: onnx.GraphProto
    shapes: "Mapping[str, Sequence[int]]"
    datatypes: "Mapping[str, np.dtype[Any]]"


def read_model(model: onnx.ModelProto) -> Reading:
    """Every layer that a quantised model has for the NPU, in the model's order. Raises `FsdError` BAD_PROGRAM."""
    return _reading(_described(model))


def read_program(program: bytes) -> Network:
    """A program. Raises `FsdError`: BAD_PROGRAM for what is none, UNSUPPORTED with the node and what to change."""
    try:
        model = onnx.load_model_from_string(program)
    except DecodeError as error:
        raise _bad("it is not an ONNX model") from error
    described = _described(model)
    reading = _reading(described)
    if reading.refused:
        first = reading.refused[0]
        raise FsdError(Code.UNSUPPORTED, "load", f"node {first.node!r} ({first.operator}): {first.why}")
    inputs, outputs = _ends(described, reading.layers)
    return Network(inputs, outputs, tuple(reading.layers))


def _reading(described: _Described) -> Reading:
    try:
        constants = constants_of(described.graph)
    except ValueError as error:
        raise _bad(f"the bytes of a constant do not fit its shape: {error}") from error
    units = units_of(described.graph, constants, described.datatypes)
    layers, refused = [], list(units.refused)
    for unit in units.found:
        try:
            layers.append(layer_of(unit, described.shapes))
        except Refused as error:
            refused.append(Refusal(unit.name, unit.operator.op_type, str(error)))
    return Reading(layers, refused)


def _ends(
    described: _Described, layers: Sequence[Layer]
) -> tuple[tuple[Quantised, ...], tuple[Quantised, ...]]:
    """The program's inputs and outputs, in its order."""
    constants = {item.name for item in described.graph.initializer}
    taken = {source.name: source for layer in layers for source in layer.inputs}
    given = {layer.output.name: layer.output for layer in layers}
    inputs = [value.name for value in described.graph.input if value.name not in constants]
    outputs = [value.name for value in described.graph.output]
    for name in (
        *(name for name in inputs if name not in taken),
        *(name for name in outputs if name not in given),
    ):
        raise _bad(
            f"{name!r} is no 8-bit tensor that a layer takes or gives: cut the model at quantised tensors"
        )
    return tuple(taken[name] for name in inputs), tuple(given[name] for name in outputs)


def _described(model: onnx.ModelProto) -> _Described:
    opset = next((item.version for item in model.opset_import if item.domain in {"", "ai.onnx"}), 0)
    if opset < OLDEST_OPSET:
        raise _bad(f"its opset is {opset}: convert it to {OLDEST_OPSET} or later")
    if any(item.data_location == onnx.TensorProto.EXTERNAL for item in model.graph.initializer):
        raise _bad("its weights lie in other files: save it as one file")
    try:
        onnx.checker.check_model(model)
        graph = shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    except (onnx.checker.ValidationError, shape_inference.InferenceError, UnicodeDecodeError) as error:
        raise _bad(f"it is not a valid ONNX model: {error}") from error
    shapes, kinds = {}, {item.name: item.data_type for item in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        shapes[value.name] = [item.dim_value for item in value.type.tensor_type.shape.dim]
        kinds[value.name] = value.type.tensor_type.elem_type
    known = helper.get_all_tensor_dtypes()
    datatypes = {name: helper.tensor_dtype_to_np_dtype(kind) for name, kind in kinds.items() if kind in known}
    return _Described(graph, shapes, datatypes)


def _bad(why: str) -> FsdError:
    return FsdError(Code.BAD_PROGRAM, "load", why)
