"""Which nodes of a quantised model the NPU runs, which ones the host, and in which turns.

A vertex is a layer of the NPU or a node of the host. Host and NPU take turns, and in each turn runs everything for
which all is there: so turns are few, and parts of the NPU as large as they can be. Constants, and what makes floats
of 8-bit tensors, are in every part that needs them.
"""

import enum
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto, helper

from backends.kernel import MODEL_UNSUPPORTED, KernelError
from firmware_shims.fsd.layers import Layer
from firmware_shims.fsd.units import named


class Place(enum.Enum):
    """Where something runs."""

    HOST = "host"
    NPU = "npu"


@dataclass(frozen=True, slots=True)
class Vertex:
    """A layer or a node. `takes` are tensors that other vertices, or the model's inputs, give."""

    name: str
    operator: str
    place: Place
    takes: frozenset[str]
    gives: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """What runs in one turn, between tensors that other parts or the model's inputs give, and what others take of it."""

    place: Place
    vertices: Sequence[Vertex]
    takes: tuple[str, ...]
    gives: tuple[str, ...]


class Cutting:
    """Cuts a model of which shapes and datatypes are described and which has `layers` for the NPU."""

    def __init__(self, model: ModelProto, layers: Sequence[Layer], wanted: Sequence[str]) -> None:
        self._model = model
        self._wanted = frozenset(wanted)
        self._inputs = frozenset(value.name for value in model.graph.input)
        self._values: dict[str, ValueInfoProto] = {
            value.name: value for value in (*model.graph.input, *model.graph.value_info, *model.graph.output)
        }
        self._makers = {name: node for node in model.graph.node for name in node.output if name}
        self._layers: dict[str, Layer] = {}
        self._inner: set[str] = set()
        """First outputs of the nodes within layers."""
        self.refused: dict[str, str] = {}
        """Layers that are left to the host all the same, by name, and why."""
        for layer in layers:
            inner = list(self._within(layer))
            others = self._taken_by(inner) - {source.name for source in layer.inputs}
            if others:
                self.refused[layer.name] = f"it also takes {', '.join(sorted(others))}: make that a constant"
                continue
            self._layers[layer.output.name] = layer
            self._inner.update(node.output[0] for node in inner)

    def parts(self) -> list[Part]:
        """In the order in which they run."""
        turns: defaultdict[int, list[Vertex]] = defaultdict(list)
        given_in: dict[str, int] = dict.fromkeys(self._inputs, 0)
        for vertex in self._needed():
            turn = max((given_in[name] for name in vertex.takes), default=0)
            if turn % 2 != (vertex.place is Place.NPU):  # the host has the even turns
                turn += 1
            turns[turn].append(vertex)
            given_in.update(dict.fromkeys(vertex.gives, turn))
        return [self._part(turns[turn], turns) for turn in sorted(turns)]

    def model_of(self, part: Part) -> ModelProto:
        """A part as a model of its own; raises `KernelError` 132 where a tensor between parts has no known type."""
        graph = self._model.graph
        reached = self._reached(part.gives, frozenset(part.takes))
        nodes = [node for node in graph.node if reached.intersection(node.output)]
        read = {name for node in nodes for name in _read_by(node)}
        return helper.make_model(
            helper.make_graph(
                nodes,
                part.place.value,
                [self._value(name) for name in part.takes],
                [self._value(name) for name in part.gives],
                [item for item in graph.initializer if item.name in read],
            ),
            opset_imports=self._model.opset_import,
            ir_version=self._model.ir_version,
            functions=self._model.functions,
        )

    def _needed(self) -> list[Vertex]:
        """The vertices on which the wanted outputs depend, in an order in which each finds what it takes."""
        wanted, needed = set(self._wanted), []
        for vertex in reversed(list(self._vertices())):
            if wanted.intersection(vertex.gives):
                wanted |= vertex.takes
                needed.append(vertex)
        return needed[::-1]

    def _vertices(self) -> Iterator[Vertex]:
        for node in self._model.graph.node:
            first = node.output[0]
            if first in self._layers:
                layer = self._layers[first]
                takes = frozenset(source.name for source in layer.inputs)
                yield Vertex(layer.name, layer.operator, Place.NPU, takes, (first,))
            elif first not in self._inner and not self._is_free(node):
                takes = self._taken_by([node])
                yield Vertex(named(node), node.op_type, Place.HOST, takes, tuple(filter(None, node.output)))

    def _part(self, vertices: Sequence[Vertex], turns: Mapping[int, Sequence[Vertex]]) -> Part:
        own = {name for vertex in vertices for name in vertex.gives}
        elsewhere = {
            name
            for turn in turns.values()
            if turn is not vertices
            for vertex in turn
            for name in vertex.takes
        }
        taken = dict.fromkeys(name for vertex in vertices for name in sorted(vertex.takes))
        given = dict.fromkeys(name for vertex in vertices for name in vertex.gives)
        return Part(
            vertices[0].place,
            vertices,
            tuple(name for name in taken if name not in own),
            tuple(name for name in given if name in self._wanted | elsewhere),
        )

    def _within(self, layer: Layer) -> Iterator[NodeProto]:
        """The nodes of a layer, from the last to the first."""
        pending = [layer.output.name]
        while pending:
            node = self._makers.get(pending.pop())
            if node is not None and not self._is_free(node):
                yield node
                if node.op_type == layer.operator and named(node) == layer.name:
                    return
                pending.append(node.input[0])

    def _is_free(self, node: NodeProto) -> bool:
        """Whether every part that needs its result may compute it again."""
        return node.op_type in {"DequantizeLinear", "Constant"} and node.output[0] not in self._wanted

    def _taken_by(self, nodes: Sequence[NodeProto]) -> frozenset[str]:
        """What these nodes together need of others, free ones left out."""
        own = {name for node in nodes for name in node.output}
        pending, taken = [name for node in nodes for name in _read_by(node)], set[str]()
        while pending:
            name = pending.pop()
            node = self._makers.get(name)
            if name in own:
                continue
            if node is not None and self._is_free(node) and name not in self._layers:
                pending.extend(node.input)
            elif node is not None or name in self._inputs:
                taken.add(name)
        return frozenset(taken)

    def _reached(self, given: Sequence[str], taken: frozenset[str]) -> set[str]:
        """Every tensor on the way from `taken` to `given`."""
        pending, reached = list(given), set[str]()
        while pending:
            name = pending.pop()
            if name in taken or name in reached or name not in self._makers:
                continue
            reached.add(name)
            pending.extend(_read_by(self._makers[name]))
        return reached

    def _value(self, name: str) -> ValueInfoProto:
        if name not in self._values:
            node = self._makers[name]
            raise KernelError(
                MODEL_UNSUPPORTED,
                f"node {named(node)!r} ({node.op_type}): the datatype of {name!r} cannot be told, and other parts of "
                "the model take it: write it into the model's value_info",
            )
        return self._values[name]


def _read_by(node: NodeProto) -> Iterator[str]:
    """The tensors that a node takes, those too that graphs inside of it take from outside."""
    yield from filter(None, node.input)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            yield from _read_in(graph)


def _read_in(graph: GraphProto) -> Iterator[str]:
    for node in graph.node:
        yield from _read_by(node)
    yield from (value.name for value in graph.output)
