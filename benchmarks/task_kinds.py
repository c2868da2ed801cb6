"""The kinds of task whose rate is measured: what a vehicle is given, and what the bare runtime is beside it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

from agent.protocol.messages import Datatype, ModelFormat, ModelRef
from backends.kernel import Tensor
from fleet.client import Input

if TYPE_CHECKING:
    import numpy.typing as npt

WIDTH: Final = 256


@dataclass(frozen=True)
class Kind:
    """One row a task, `outstanding` of them under way. `goal` is for the rate, or its share of the peer's."""

    name: str
    use: str
    model: bytes
    inputs: Sequence[Input]
    outstanding: int
    goal: str

    @cached_property
    def ref(self) -> ModelRef:
        """How tasks name the model."""
        return ModelRef("bench", "1", hashlib.sha256(self.model).hexdigest(), ModelFormat.ONNX)

    @property
    def row(self) -> tuple[Tensor, ...]:
        """The inputs without their rows."""
        return tuple(Tensor(i.name, i.datatype.value, tuple(i.shape[1:])) for i in self.inputs)


def echo(payload_bytes: int, outstanding: int, goal: str) -> Kind:
    """The null backend: nothing but what a task costs by itself."""
    data = Input("x", Datatype.UINT8, [1, payload_bytes], bytes(payload_bytes))
    model = b"any bytes are a model to the null backend"
    return Kind(f"null, {_size(payload_bytes)}", "null", model, [data], outstanding, goal)


def layers(values: int, count: int, goal: str) -> Kind:
    """Real work on one processor: `count` dense layers behind an input of so many numbers; batches are not possible."""
    data = Input("x", Datatype.FP32, [1, values], bytes(4 * values))
    name = f"cpu, {count} layers, {_size(4 * values)}"
    return Kind(name, "cpu", _dense(values, count), [data], 16, goal)


def _size(payload_bytes: int) -> str:
    return f"{round(payload_bytes / 1024)} KB"


def _dense(values: int, count: int) -> bytes:
    """Layers of `WIDTH` neurons each, all but the first with the same weights, which stay in the processor's cache.

    The first dimension is 1, so that a run here and there is the same.
    """
    import numpy as np  # noqa: PLC0415 - only who measures real work needs it
    import onnx  # noqa: PLC0415
    from onnx import helper, numpy_helper  # noqa: PLC0415

    rng = np.random.default_rng(7)

    def weights(name: str, size: int) -> onnx.TensorProto:
        matrix: npt.NDArray[np.float32] = rng.standard_normal((size, WIDTH), dtype="f4") / np.float32(
            size**0.5
        )
        return numpy_helper.from_array(matrix, name)

    nodes, name = [], "x"
    for layer in range(count):
        nodes += [
            helper.make_node("MatMul", [name, "w" if layer else "first"], [f"m{layer}"]),
            helper.make_node("Relu", [f"m{layer}"], [f"r{layer}"]),
        ]
        name = f"r{layer}"
    one = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "layers",
        [helper.make_tensor_value_info("x", one, (1, values))],
        [helper.make_tensor_value_info(name, one, (1, WIDTH))],
        [weights("first", values), weights("w", WIDTH)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    serialised: bytes = model.SerializeToString()
    return serialised
