"""ONNX files before they are cut: parsed, checked, and with every size written in, for one row."""

from collections.abc import Iterator, Mapping
from math import prod
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, shape_inference, version_converter

from backends.datatypes import NUMPY_NAMES
from backends.declared import Declared, Dimension, fit_inputs, wanted_outputs
from backends.kernel import MODEL_INVALID, MODEL_UNSUPPORTED, OUT_OF_MEMORY, KernelError, Model, Tensor
from backends.onnx_signature import free_dimensions
from firmware_shims.fsd.reading import OLDEST_OPSET
from firmware_shims.fsd.units import named

if TYPE_CHECKING:
    from onnx import ValueInfoProto

OIP_NAMES: Final = {np.dtype(name): datatype for datatype, name in NUMPY_NAMES.items()}
IR_VERSION: Final = 8
"""From 4 on, an initializer need not be an input, too."""
OPSET: Final = 17
"""What older models are converted to."""
PRODUCTS: Final = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Operators of the multiply-accumulate array."""


def parsed(data: bytes) -> ModelProto:
    """The model in a file's bytes, with nothing in other files; raises `KernelError` 132 or 133."""
    try:
        model = onnx.load_model_from_string(data)
    except DecodeError as error:
        raise KernelError(MODEL_INVALID, f"it is no ONNX model: {error}") from error
    if any(tensor.data_location == TensorProto.EXTERNAL for tensor in _tensors_of(model.graph)):
        raise KernelError(MODEL_UNSUPPORTED, "its weights lie in other files: save it as one file")
    _check(model)
    return model


def fixed(model: ModelProto, asked: Model) -> tuple[tuple[Tensor, ...], tuple[str, ...]]:
    """Write the sizes of the task into a model, for one row, and leave of its outputs those that are wanted.

    Returns inputs, in the file's order, and outputs; raises `KernelError` 132 for a misfit.
    """
    graph = model.graph
    held = {item.name for item in graph.initializer}
    values = [value for value in graph.input if value.name not in held]
    declared = [_declared(value) for value in values]
    inputs = fit_inputs(declared, asked)
    free_dimensions(declared, inputs)  # refuses inputs that contradict each other
    wanted = wanted_outputs([value.name for value in graph.output], asked)
    taken = [_sized(value, tensor) for value, tensor in zip(values, inputs, strict=True)]
    given = [_unsized(value) for value in graph.output if value.name in wanted]
    for part in ("input", "output", "value_info"):
        graph.ClearField(part)
    graph.input.extend(taken)
    graph.output.extend(given)
    model.ir_version = max(model.ir_version, IR_VERSION)
    return inputs, wanted


def declared_inputs(model: ModelProto) -> tuple[Tensor, ...]:
    """The inputs with the sizes that the file fixes; raises `KernelError` 132 where it leaves one free."""
    held = {item.name for item in model.graph.initializer}
    declared = [_declared(value) for value in model.graph.input if value.name not in held]
    for each in declared:
        if not each.dimensions or not all(isinstance(size, int) for size in each.dimensions[1:]):
            sizes = "x".join(str(size or "?") for size in each.dimensions[1:])
            text = f"the file leaves sizes of input {each.name!r} free: {each.name}:{each.datatype}:{sizes}"
            raise KernelError(MODEL_UNSUPPORTED, f"{text}; give it in numbers")
    return tuple(
        Tensor(each.name, each.datatype, tuple(size for size in each.dimensions[1:] if isinstance(size, int)))
        for each in declared
    )


def in_opset(model: ModelProto) -> ModelProto:
    """The model in an opset that the NPU's programs may have; raises `KernelError` 132 where it cannot be had."""
    opset = next((item.version for item in model.opset_import if item.domain in {"", "ai.onnx"}), 0)
    if opset >= OLDEST_OPSET:
        return model
    try:
        return version_converter.convert_version(model, OPSET)
    except (version_converter.ConvertError, RuntimeError) as error:
        text = f"its opset {opset} cannot be converted to {OPSET}: {error}; export it with {OLDEST_OPSET} or later"
        raise KernelError(MODEL_UNSUPPORTED, text) from error


def described(model: ModelProto) -> ModelProto:
    """The model with the shapes and datatypes of its tensors, as far as they can be told."""
    return shape_inference.infer_shapes(model, data_prop=True)


def shapes_of(model: ModelProto) -> Mapping[str, tuple[int, ...]]:
    """The shapes that are known whole, of constants too."""
    shapes = {item.name: tuple(item.dims) for item in model.graph.initializer}
    for value in _values(model):
        sizes = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(size.HasField("dim_value") for size in sizes):
            shapes[value.name] = tuple(size.dim_value for size in sizes)
    return shapes


def check_sizes(model: ModelProto, most_bytes: int) -> None:
    """Refuse a tensor that is larger, as far as shapes are known."""
    shapes = shapes_of(model)
    kinds = {value.name: value.type.tensor_type.elem_type for value in _values(model)}
    for node in model.graph.node:
        for name in shapes.keys() & set(node.output):
            size = prod(shapes[name]) * helper.tensor_dtype_to_np_dtype(kinds[name]).itemsize
            if size > most_bytes:
                raise KernelError(
                    OUT_OF_MEMORY,
                    f"{_shown(node)}: {name!r} of the shape {list(shapes[name])} has {size} bytes, the limit is "
                    f"{most_bytes}: give it smaller inputs, or raise backends.options.arena_bytes",
                )


def check_products(model: ModelProto) -> None:
    """Refuse a product of which the size is not known before there is data: the NPU has to know it."""
    shapes = shapes_of(model)
    for node in model.graph.node:
        if node.op_type in PRODUCTS and node.output[0] not in shapes:
            text = f"the shape of {node.output[0]!r} depends on data: export the model with fixed sizes"
            raise KernelError(MODEL_UNSUPPORTED, f"{_shown(node)}: {text}")


def _check(model: ModelProto) -> None:
    types = [value.type.tensor_type for value in model.graph.output]
    open_ended = [kind for kind in types if not kind.HasField("shape")]
    for kind in open_ended:
        kind.shape.SetInParent()  # it follows from the nodes, and only the checker misses it
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, UnicodeDecodeError) as error:
        raise KernelError(MODEL_INVALID, f"it is no valid ONNX model: {error}") from error
    for kind in open_ended:
        kind.ClearField("shape")


def _shown(node: NodeProto) -> str:
    return f"node {named(node)!r} ({node.op_type})"


def _values(model: ModelProto) -> "Iterator[ValueInfoProto]":
    yield from (*model.graph.input, *model.graph.value_info, *model.graph.output)


def _tensors_of(graph: GraphProto) -> Iterator[TensorProto]:
    """Every constant of a graph and of the graphs in its nodes."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors_of(inner)


def _declared(value: "ValueInfoProto") -> Declared:
    kind = value.type.tensor_type
    known = helper.get_all_tensor_dtypes()
    dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type) if kind.elem_type in known else None
    if dtype not in OIP_NAMES or not kind.HasField("shape"):
        text = f"input {value.name!r} should be a tensor of numbers or booleans, with its dimensions declared"
        raise KernelError(MODEL_UNSUPPORTED, text)
    return Declared(value.name, OIP_NAMES[dtype], tuple(map(_dimension, kind.shape.dim)))


def _dimension(given: onnx.TensorShapeProto.Dimension) -> Dimension:
    """Some exporters write a free dimension as -1, and every one of them as "?"."""
    if given.HasField("dim_value") and given.dim_value > 0:
        return int(given.dim_value)
    return given.dim_param if given.dim_param not in {"", "?"} else None


def _sized(value: "ValueInfoProto", tensor: Tensor) -> "ValueInfoProto":
    sizes = tensor.row_shape if tensor.shared else (1, *tensor.row_shape)
    return helper.make_tensor_value_info(value.name, value.type.tensor_type.elem_type, sizes)


def _unsized(value: "ValueInfoProto") -> "ValueInfoProto":
    """Its sizes follow from those of the inputs."""
    kind = value.type.tensor_type
    rank = len(kind.shape.dim) if kind.HasField("shape") else None
    return helper.make_tensor_value_info(value.name, kind.elem_type, None if rank is None else [None] * rank)
