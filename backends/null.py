"""The backend that computes nothing: outputs are copies of the inputs, at a fixed cost.

With it everything around inference can be measured and tested; it takes any model of any format.
"""

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Final

from pydantic import BaseModel, ConfigDict, Field

from backends.kernel import (
    BACKEND_UNUSABLE,
    MODEL_UNSUPPORTED,
    Cancelled,
    Cost,
    Device,
    KernelError,
    Model,
    Spent,
    Tensor,
)
from backends.measuring import zeros
from firmware_shims.clock import boottime_ns

if TYPE_CHECKING:
    from backends.kernel import Array

DEVICE: Final = "null"
CANCEL_BOUND_S: Final = 0.005
"""Waking a thread takes some 0.1 ms, and longer where every core is busy."""


class NullOptions(BaseModel):
    """`[backends.options]` of the null backend."""

    model_config = ConfigDict(extra="forbid")

    run_us: int = Field(default=0, ge=0, description="microseconds that every run lasts, whatever its rows")


class NullProgram:
    """Copies each wanted input to the output of the same name; a shared one is copied to every row."""

    max_batch: int | None = None

    def __init__(self, model: Model, run_us: int) -> None:
        self.inputs = model.inputs
        wanted = model.outputs or tuple(tensor.name for tensor in model.inputs)
        by_name = {tensor.name: tensor for tensor in model.inputs}
        unknown = [name for name in wanted if name not in by_name]
        if unknown:
            raise KernelError(
                MODEL_UNSUPPORTED,
                f"output {unknown[0]!r} is not an input; null echoes {', '.join(by_name)}",
            )
        self.outputs = tuple(Tensor(name, by_name[name].datatype, by_name[name].row_shape) for name in wanted)
        self._run_s = run_us / 1e6
        self._end: threading.Event | None = None
        self.cost = model.known or Cost(
            run_s={1: self._run_s + self._copy_s()}, cancel_bound_s=CANCEL_BOUND_S
        )

    def run(self, inputs: "Mapping[str, Array]", outputs: "Mapping[str, Array]") -> Spent:  # noqa: D102
        self._end = end = threading.Event()
        begin_ns = boottime_ns()
        try:
            if self._run_s and end.wait(self._run_s):
                raise Cancelled
            _copy(inputs, outputs)
        finally:
            self._end = None
        return Spent(begin_ns, boottime_ns())

    def cancel(self) -> None:  # noqa: D102
        if (end := self._end) is not None:
            end.set()

    def _copy_s(self) -> float:
        row = zeros(self.inputs, rows=1)
        outputs = {tensor.name: row[tensor.name].copy() for tensor in self.outputs}
        begin_ns = boottime_ns()
        _copy(row, outputs)
        return (boottime_ns() - begin_ns) / 1e9

    def close(self) -> None:
        """Nothing is held."""


def _copy(inputs: "Mapping[str, Array]", outputs: "Mapping[str, Array]") -> None:
    for name, output in outputs.items():
        output[...] = inputs[name]


class Null:
    """One device that does nothing."""

    name: ClassVar[str] = "null"
    Options: ClassVar[type[BaseModel]] = NullOptions

    def __init__(self, options: NullOptions) -> None:
        self.version = "1"
        self._options = options

    def probe(self) -> Sequence[Device]:  # noqa: D102
        return [Device(DEVICE, formats=("onnx", "tflite"))]

    def load(self, model: Model, device: str) -> NullProgram:  # noqa: D102
        self.refuse_others(device)
        return NullProgram(model, self._options.run_us)

    @staticmethod
    def refuse_others(device: str) -> None:
        """Raise `KernelError` for every device but the one."""
        if device != DEVICE:
            raise KernelError(BACKEND_UNUSABLE, f"null has no device {device!r}, only {DEVICE!r}")
