"""The backend that goes wrong as it is told, for tests of everything above a backend.

It is `null` until the fault's place and time have come:
`python -m backends.contract fault --options '{"does": "nan"}'` shows what the contract suite says of it.
"""

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Final, Literal, Self, get_args

from pydantic import BaseModel, Field, model_validator

from backends.disasters import DISASTERS, Disaster, Extent, befall
from backends.kernel import Cancelled, Device, Model, Spent, Tensor
from backends.null import Null, NullOptions, NullProgram

if TYPE_CHECKING:
    from backends.kernel import Array

    Outputs = Mapping[str, Array]

Place = Literal["probe", "load", "run", "cancel", "close"]
Misdeed = Literal[
    "unusable",  # the device is there and cannot be used
    "any_device",  # loads on a device that does not exist
    "wrong_shape",  # describes outputs of impossible shapes
    "cheap",  # says that a run costs nothing
    "leak",  # keeps memory after close
    "leave_thread",  # keeps a thread after close
    "write_inputs",
    "half_filled",  # leaves the second half of each output as it was
    "nan",  # NaN, or 0 where there is none
    "other_row",  # answers every row with the first one
    "drift",  # another answer each time
    "write_late",  # goes on writing after run has returned
    "slow_cancel",  # hears a cancel `for_s` too late
    "deaf",  # hears no cancel
    "negative_joules",  # a counter that ran backwards
    "huge_joules",
    "nan_joules",
    "guessed_joules",  # of a source that is none
    "wrong_times",  # ends before it began
]
CLAIMED_BOUND_S: Final = 0.01
LATE_S: Final = 0.02
LEAK_BYTES: Final = 16 << 20
_leaked: list[bytearray] = []


class FaultOptions(NullOptions):
    """`[backends.options]` of the fault backend."""

    does: Literal["nothing"] | Disaster | Misdeed = Field(
        default="nothing", description="a disaster, which happens in method `at`, or a misdeed"
    )
    at: Place = Field(default="run", description="the method in which a disaster happens")
    after_runs: int = Field(default=0, ge=0, description="so many runs of each program go well before")
    for_s: float = Field(
        default=60.0, gt=0, description="how long a hang lasts; how late a slow cancel comes"
    )
    size_bytes: int = Field(default=1 << 40, ge=1, description="how much `allocate` takes")

    @model_validator(mode="after")
    def _only_disasters_have_a_place(self) -> Self:
        if self.at != "run" and self.does not in DISASTERS:
            raise ValueError(
                f"at = {self.at!r} goes with {', '.join(get_args(Disaster))}, not with {self.does!r}"
            )
        return self

    def strike(self, place: Place) -> None:
        """Let the disaster happen if this is its place."""
        if self.does in DISASTERS and self.at == place:
            befall(self.does, Extent(self.for_s, self.size_bytes))


class FaultProgram(NullProgram):
    """An echo with one fault."""

    def __init__(self, model: Model, options: FaultOptions) -> None:
        super().__init__(model, options.run_us)
        self._options = options
        self._runs = 0
        self.cost = replace(self.cost, cancel_bound_s=CLAIMED_BOUND_S)
        match options.does:
            case "cheap":
                self.cost = replace(self.cost, run_s={1: 1e-9})
            case "wrong_shape":
                self.outputs = tuple(Tensor(tensor.name, tensor.datatype, (-1,)) for tensor in self.outputs)
            case "leak":
                _leaked.append(bytearray(b"\1") * LEAK_BYTES)
            case "leave_thread":
                _later(options.for_s, lambda: None)

    def run(self, inputs: "Mapping[str, Array]", outputs: "Outputs") -> Spent:  # noqa: D102
        self._runs += 1
        if self._runs <= self._options.after_runs:
            return super().run(inputs, outputs)
        self._options.strike("run")
        if self._options.does == "write_inputs":
            for array in inputs.values():
                array[...] = 0
        before = {name: array.copy() for name, array in outputs.items()}
        try:
            spent = super().run(inputs, outputs)
        except Cancelled:
            self._write_late(outputs)
            raise
        self._write_late(outputs)
        for name, array in outputs.items():
            self._spoil(array, before[name])
        return self._lied_about(spent)

    def cancel(self) -> None:  # noqa: D102
        self._options.strike("cancel")
        if self._options.does == "slow_cancel":
            _later(self._options.for_s, super().cancel)
        elif self._options.does != "deaf":
            super().cancel()

    def close(self) -> None:  # noqa: D102
        self._options.strike("close")
        super().close()

    def _write_late(self, outputs: "Outputs") -> None:
        if self._options.does == "write_late":
            _later(LATE_S, lambda: _turn_every_bit(outputs))

    def _spoil(self, array: "Array", before: "Array") -> None:
        flat, rows = array.reshape(-1), len(array)
        match self._options.does:
            case "half_filled":
                flat[flat.size // 2 :] = before.reshape(-1)[flat.size // 2 :]
            case "nan":
                array[...] = math.nan if array.dtype.kind == "f" else 0
            case "other_row":
                array[1:rows] = array[:1]
            case "drift":
                flat[-1:] = self._runs

    def _lied_about(self, spent: Spent) -> Spent:
        match self._options.does:
            case "negative_joules":
                return replace(spent, joules=-1.0)
            case "huge_joules":
                return replace(spent, joules=1e9)
            case "nan_joules":
                return replace(spent, joules=math.nan)
            case "guessed_joules":
                return replace(spent, joules=0.0, joules_source="guess")  # type: ignore[arg-type] # that is the fault
            case "wrong_times":
                return replace(spent, begin_ns=spent.end_ns, end_ns=spent.begin_ns - 1)
        return spent


def _turn_every_bit(outputs: "Outputs") -> None:
    for array in outputs.values():
        data = memoryview(array).cast("B")  # type: ignore[arg-type] # an array has the buffer protocol
        data[:] = bytes(byte ^ 0xFF for byte in data)


def _later(seconds: float, action: Callable[[], object]) -> None:
    timer = threading.Timer(seconds, action)
    timer.daemon = True
    timer.start()


class Fault(Null):
    """The device `null`, with one fault."""

    name: ClassVar[str] = "fault"
    Options: ClassVar[type[BaseModel]] = FaultOptions

    def __init__(self, options: FaultOptions) -> None:
        super().__init__(options)
        self._fault = options

    def probe(self) -> Sequence[Device]:  # noqa: D102
        self._fault.strike("probe")
        devices = super().probe()
        if self._fault.does == "unusable":
            return [replace(device, why="the driver is not loaded") for device in devices]
        return devices

    def load(self, model: Model, device: str) -> FaultProgram:  # noqa: D102
        self._fault.strike("load")
        if self._fault.does != "any_device":
            self.refuse_others(device)
        return FaultProgram(model, self._fault)
