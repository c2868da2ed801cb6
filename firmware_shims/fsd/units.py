"""Units of a quantised ONNX graph: DequantizeLinear on every input, one operator, QuantizeLinear on its result.

That is how quantisers write int8 models (QDQ). A ReLU or a Clip may stand between the operator and its
QuantizeLinear; where it stands alone it is the operator. A unit takes and gives 8-bit integers.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import GraphProto, NodeProto, helper, numpy_helper

from firmware_shims.fsd.layers import Constant, Datatype, Quantised

Array = npt.NDArray[Any]
DATATYPES: Mapping[np.dtype[Any], Datatype] = {np.dtype(np.int8): "INT8", np.dtype(np.uint8): "UINT8"}
ACTIVATIONS = frozenset({"Relu", "Clip"})


class Refused(Exception):  # noqa: N818 - an answer about a node; what it means is for the caller to say
    """Why the NPU cannot compute something, and what would help."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A node that is in no layer, with the reason and what to change."""

    node: str
    operator: str
    why: str


@dataclass(frozen=True, slots=True)
class Scale:
    """What a QuantizeLinear or DequantizeLinear node says: float32 scales and one zero point."""

    scales: npt.NDArray[np.float32]
    zero_point: int
    datatype: np.dtype[Any]
    axis: int


@dataclass(frozen=True, slots=True)
class Dequantised:
    """A float tensor that is a dequantised integer one: `values` where that is a constant."""

    name: str
    scale: Scale
    values: Array | None

    def constant(self) -> Constant:
        """As the constant of a layer; raises `Refused`."""
        if self.values is None:
            raise Refused(f"{self.name!r} is computed; only a constant is taken there")
        return Constant(self.values, self.scale.scales, self.scale.zero_point)


@dataclass(slots=True)
class Unit:
    """An operator with its inputs by place, and what becomes of its result."""

    operator: NodeProto
    inputs: Sequence[Dequantised | Array | None]
    """Constants that are no tensor of the arithmetic (a shape, a limit) are plain arrays."""
    activation: NodeProto | None = None
    limits: Sequence[Array | None] = ()
    """Of a Clip."""
    output: str = ""
    scale: Scale | None = None

    @property
    def name(self) -> str:
        """How the node is named to people."""
        return named(self.operator)

    def tensor(self, place: int) -> Dequantised:
        """The dequantised input at `place`; raises `Refused`."""
        found = self.inputs[place] if place < len(self.inputs) else None
        if not isinstance(found, Dequantised):
            raise Refused(f"its input {place + 1} is not quantised: quantise it to int8")
        return found

    def attributes(self) -> dict[str, Any]:
        """Of the operator, by name."""
        return {item.name: helper.get_attribute_value(item) for item in self.operator.attribute}


def named(node: NodeProto) -> str:
    """A node's name, or its first output's where it has none."""
    return str(node.name or node.output[0])


@dataclass
class Units:
    """The units of a graph in its order, and the nodes that are in none. `add` takes the nodes one by one."""

    constants: Mapping[str, Array]
    datatypes: Mapping[str, np.dtype[Any]]
    """Of every tensor of which it is known."""
    kept: frozenset[str]
    """Float results that somebody reads: the graph's outputs, and what several nodes take."""
    found: list[Unit] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    _dequantised: dict[str, Dequantised] = field(default_factory=dict)
    _open: dict[str, Unit] = field(default_factory=dict)

    def add(self, node: NodeProto) -> None:
        """Take the next node."""
        try:
            if node.op_type == "DequantizeLinear":
                self._dequantise(node)
            elif node.op_type == "QuantizeLinear":
                self._quantise(node)
            elif node.op_type in ACTIVATIONS and node.input[0] in self._open:
                self._activate(node)
            elif node.op_type != "Constant":
                self._operate(node)
        except Refused as error:
            self._refuse(node, str(error))

    def end(self) -> None:
        """Refuse the units whose result was never quantised."""
        for unit in self._open.values():
            self._refuse(unit.operator, "its result is not quantised, or is read as floats, too")

    def _dequantise(self, node: NodeProto) -> None:
        source = node.input[0]
        scale = self._scale(node, source)
        self._dequantised[node.output[0]] = Dequantised(source, scale, self.constants.get(source))

    def _quantise(self, node: NodeProto) -> None:
        source = node.input[0]
        unit = self._open.pop(source, None)
        if unit is None and source in self._dequantised:
            unit = Unit(node, [self._dequantised[source]])
        if unit is None:
            raise Refused("it makes integers of floats: let the host do it, and give the NPU its result")
        unit.output, unit.scale = node.output[0], self._scale(node, node.output[0])
        self.found.append(unit)

    def _activate(self, node: NodeProto) -> None:
        unit = self._open[node.input[0]]
        if unit.activation is not None or unit.operator.op_type in ACTIVATIONS:
            raise Refused(f"{named(unit.operator)!r} has one already: quantise between the two")
        del self._open[node.input[0]]
        unit.activation = node
        unit.limits = [self._constant(name) for name in node.input[1:]]
        self._keep_open(unit, node)

    def _operate(self, node: NodeProto) -> None:
        inputs = [self._dequantised.get(name, self._constant(name)) for name in node.input]
        if not isinstance(inputs[0] if inputs else None, Dequantised):
            raise Refused("its input is not quantised: quantise it to int8, or run it on the host")
        unit = Unit(node, inputs)
        if node.op_type in ACTIVATIONS:
            unit.activation, unit.limits = node, [self._constant(name) for name in node.input[1:]]
        self._keep_open(unit, node)

    def _keep_open(self, unit: Unit, node: NodeProto) -> None:
        if node.output[0] in self.kept:
            raise Refused("its result is read as floats, or by several nodes: quantise it first")
        self._open[node.output[0]] = unit

    def _refuse(self, node: NodeProto, why: str) -> None:
        self.refused.append(Refusal(named(node), node.op_type, why))

    def _constant(self, name: str) -> Array | None:
        return self.constants.get(name)

    def _scale(self, node: NodeProto, stored: str) -> Scale:
        names = [name for name in node.input[1:] if name]
        found = [self.constants[name] for name in names if name in self.constants]
        if len(found) < len(names):
            raise Refused("its scale or zero point is computed: make them constants")
        scales, zeros = found[0], found[1] if len(found) > 1 else np.zeros(1, np.int8)
        if scales.dtype != np.float32 or scales.ndim > 1 or not np.all(np.isfinite(scales) & (scales > 0)):
            raise Refused("its scale should be float32, positive, one for the tensor or one for each channel")
        if np.unique(zeros).size != 1:
            raise Refused("its channels have different zero points: quantise weights symmetrically")
        if stored not in self.datatypes:
            raise Refused(f"the datatype of {stored!r} cannot be told: write it into the model's value_info")
        axis = next((item.i for item in node.attribute if item.name == "axis"), 1)
        return Scale(scales.reshape(-1), int(zeros.reshape(-1)[0]), self.datatypes[stored], axis)


def units_of(
    graph: GraphProto, constants: Mapping[str, Array], datatypes: Mapping[str, np.dtype[Any]]
) -> Units:
    """The units of a graph whose nodes are in topological order."""
    readers = Counter(name for node in graph.node for name in node.input)
    outputs = {value.name for value in graph.output}
    kept = frozenset(outputs | {name for name, count in readers.items() if count > 1})
    units = Units(constants, datatypes, kept)
    for node in graph.node:
        units.add(node)
    units.end()
    return units


def constants_of(graph: GraphProto) -> dict[str, Array]:
    """Initializers and the values of Constant nodes, by name. ValueError where bytes and shape differ."""
    held = {item.name: item for item in graph.initializer}
    for node in graph.node:
        value = next((item.t for item in node.attribute if item.name == "value"), None)
        if node.op_type == "Constant" and value is not None:
            held[node.output[0]] = value
    known = helper.get_all_tensor_dtypes()
    return {name: numpy_helper.to_array(item) for name, item in held.items() if item.data_type in known}


def quantised(name: str, scale: Scale, shape: Sequence[int]) -> Quantised:
    """An activation of a layer; raises `Refused` where it is none of one row and one scale."""
    if scale.datatype not in DATATYPES:
        raise Refused(f"{name!r} is {scale.datatype}: quantise it to int8 or uint8")
    if scale.scales.size != 1:
        raise Refused(f"{name!r} has {scale.scales.size} scales: only constants may have one per channel")
    if not shape or shape[0] != 1 or 0 in shape:
        raise Refused(f"{name!r} has the shape {list(shape)}: the first dimension is the row and should be 1")
    return Quantised(
        name, DATATYPES[scale.datatype], tuple(shape[1:]), float(scale.scales[0]), scale.zero_point
    )
