"""Quantised ONNX models for the FSD emulator's tests: written node by node, as a quantiser writes them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper, shape_inference

Array = npt.NDArray[Any]
KINDS = {np.dtype(np.int8): TensorProto.INT8, np.dtype(np.uint8): TensorProto.UINT8}


@dataclass(frozen=True)
class Tensor:
    """A stored tensor of the model with its scale and zero point; `values` where it is a constant."""

    name: str
    scale: Any
    zero_point: int
    dtype: Any = np.int8
    values: Array | None = None
    axis: int | None = None


@dataclass
class Model:
    """A model under construction: every operator comes with its DequantizeLinear and QuantizeLinear nodes."""

    nodes: list[NodeProto] = field(default_factory=list)
    constants: list[TensorProto] = field(default_factory=list)
    inputs: list[ValueInfoProto] = field(default_factory=list)

    def input(
        self, name: str, shape: Sequence[int], scale: float, zero_point: int, dtype: Any = np.int8
    ) -> Tensor:
        self.inputs.append(helper.make_tensor_value_info(name, KINDS[np.dtype(dtype)], [1, *shape]))
        return Tensor(name, scale, zero_point, dtype)

    def constant(self, values: Array, scale: Any, zero_point: int = 0, axis: int | None = None) -> Tensor:
        name = self.raw(values)
        return Tensor(name, scale, zero_point, values.dtype, values, axis)

    def raw(self, values: Array) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(values, name))
        return name

    def apply(
        self,
        operator: str,
        inputs: Sequence[Tensor | str],
        scale: float,
        zero_point: int,
        *,
        activation: str = "",
        limits: Sequence[str] = (),
        **attributes: Any,
    ) -> Tensor:
        """One unit; a string among the inputs is the name of something that is not quantised."""
        number = len(self.nodes)
        names = [item if isinstance(item, str) else self._dequantised(item) for item in inputs]
        result = f"f{number}"
        self.nodes.append(helper.make_node(operator, names, [result], name=f"n{number}", **attributes))
        if activation:
            self.nodes.append(helper.make_node(activation, [result, *limits], [f"{result}a"]))
            result = f"{result}a"
        first = next(item for item in inputs if isinstance(item, Tensor))
        output = Tensor(f"q{number}", scale, zero_point, first.dtype)
        self.nodes.append(
            helper.make_node("QuantizeLinear", [result, *self._quantisation(output)], [output.name])
        )
        return output

    def finished(self, *outputs: Tensor, opset: int = 19) -> ModelProto:
        values = [
            helper.make_tensor_value_info(item.name, KINDS[np.dtype(item.dtype)], None) for item in outputs
        ]
        graph = helper.make_graph(self.nodes, "g", self.inputs, values, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        return shape_inference.infer_shapes(model, data_prop=True)

    def program(self, *outputs: Tensor) -> bytes:
        return bytes(self.finished(*outputs).SerializeToString())

    def _dequantised(self, tensor: Tensor) -> str:
        name = f"d{len(self.nodes)}"
        along: dict[str, Any] = {} if tensor.axis is None else {"axis": tensor.axis}
        self.nodes.append(
            helper.make_node("DequantizeLinear", [tensor.name, *self._quantisation(tensor)], [name], **along)
        )
        return name

    def _quantisation(self, tensor: Tensor) -> list[str]:
        scale = np.asarray(tensor.scale, np.float32)
        return [self.raw(scale), self.raw(np.full(scale.shape, tensor.zero_point, tensor.dtype))]


def random_weights(shape: Sequence[int], seed: int = 1) -> Array:
    return np.random.default_rng(seed).integers(-127, 128, shape).astype(np.int8)


def small_network() -> ModelProto:
    """Floats: convolutions with groups, a residual, pools, a transposed convolution, a join and a classifier."""
    rng = np.random.default_rng(5)
    held: list[TensorProto] = []

    def weights(*shape: int) -> str:
        fan = int(np.prod(shape[1:]))
        values = rng.normal(0, (2 / fan) ** 0.5, shape) if len(shape) > 1 else rng.normal(0, 0.1, shape)
        held.append(numpy_helper.from_array(values.astype(np.float32), f"w{len(held)}"))
        return held[-1].name

    make = helper.make_node
    nodes = [
        make("Conv", ["x", weights(16, 3, 3, 3), weights(16)], ["a"], pads=[1, 1, 1, 1], strides=[2, 2]),
        make("Relu", ["a"], ["b"]),
        make("Conv", ["b", weights(16, 4, 3, 3), weights(16)], ["c"], pads=[1, 1, 1, 1], group=4),
        make("Add", ["b", "c"], ["d"]),
        make("Relu", ["d"], ["e"]),
        make("MaxPool", ["e"], ["f"], kernel_shape=[2, 2], strides=[2, 2]),
        make("ConvTranspose", ["f", weights(16, 8, 2, 2)], ["g"], strides=[2, 2]),
        make("AveragePool", ["e"], ["h"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        make("Concat", ["g", "h"], ["i"], axis=1),
        make("GlobalAveragePool", ["i"], ["j"]),
        make("Flatten", ["j"], ["k"]),
        make("Gemm", ["k", weights(10, 24), weights(10)], ["y"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 32, 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 10])],
        held,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


STORED: dict[str, Any] = {"scale": 0.05, "zero_point": -128}
"""Of every activation of a twin: at or above zero, as behind a ReLU."""
PASSED = frozenset({"Relu", "BatchNormalization", "LRN", "Dropout", "Mul", "Add", "Softmax", "Reshape"})
"""What a twin leaves out: without cost on the array, or on the host."""


def light(name: str) -> ModelProto:
    """A topology that ships in the `onnx` package, without weights."""
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    return onnx.load(folder / f"light_{name}.onnx")


def integer_twin(model: ModelProto, height: int, width: int) -> bytes:
    """A program with the topology of a light model at another size of input; weights are random int8.

    The last pool is global, so that the size is free; what is on the host in a real one is left out.
    """
    constants = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    shapes = dict(constants)
    for node in model.graph.node:
        if node.op_type == "ConstantOfShape":
            shapes[node.output[0]] = constants[node.input[0]]
        elif node.op_type == "Reshape" and node.input[0] in shapes:
            shapes[node.output[0]] = constants[node.input[1]]
    last_pool = [node for node in model.graph.node if node.op_type.endswith("AveragePool")][-1]
    twin = Model()
    data = next(item.name for item in model.graph.input if item.name not in shapes)
    known = {data: twin.input("data", (3, height, width), **STORED)}
    for node in model.graph.node:
        taken = [known[item] for item in node.input if item in known]
        if not taken:
            continue
        attributes: dict[str, Any] = {
            item.name: helper.get_attribute_value(item)
            for item in node.attribute
            if item.name != "consumed_inputs"
        }
        if node.op_type in PASSED:
            result = taken[0]
        elif node.op_type in {"Conv", "Gemm"}:
            result = _product(twin, node.op_type, taken[0], tuple(shapes[node.input[1]]), attributes)
        elif node == last_pool:
            result = twin.apply("GlobalAveragePool", taken, **STORED)
        else:
            result = twin.apply({"Sum": "Add"}.get(node.op_type, node.op_type), taken, **STORED, **attributes)
        known[node.output[0]] = result
    return twin.program(result)


def _product(
    twin: Model, operator: str, source: Tensor, shape: tuple[int, ...], attributes: dict[str, Any]
) -> Tensor:
    """A convolution or matrix product whose results use the whole range of int8."""
    weights = random_weights(shape, seed=len(twin.nodes))
    scale = 200 / (147 * 73 * np.sqrt(np.prod(shape[1:])))
    if operator == "Gemm":
        source = twin.apply("Flatten", [source], **STORED)
    return twin.apply(operator, [source, twin.constant(weights, scale)], **STORED, **attributes)
