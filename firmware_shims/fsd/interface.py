"""What a driver of the FSD computer's NPUs does, whether it is a shared library (`driver`) or the emulator.

Threads: one thread drives a device, `abort` may come from any. A device has one run under way per NPU.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

PROGRAM_FORMAT = "onnx-qdq-1"
"""A quantised ONNX model in QDQ form, for one row: what the emulator runs (see `reading`). A real driver names its own."""


class Code(enum.IntEnum):
    """Why a call failed; the numbers are those of fsd_npu.h."""

    OK = 0
    NO_DEVICE = 1
    BUSY = 2
    """Another process has the device, or the NPU has a run under way."""
    BAD_ARGUMENT = 3
    BAD_PROGRAM = 4
    """Not a program, or of a format that this driver does not take."""
    UNSUPPORTED = 5
    """An operator, a shape or a call that this driver has not got."""
    NO_MEMORY = 6
    TIMED_OUT = 7
    """The run goes on: wait again, or abort it."""
    ABORTED = 8
    DEVICE_LOST = 9
    """Nothing but `close` helps."""
    OVERHEATED = 10
    INTERNAL = 11


class FsdError(Exception):
    """A call that failed, with the driver's own words."""

    def __init__(self, code: Code, call: str, text: str = "") -> None:
        super().__init__(f"{call}: {code.name.lower()}{f': {text}' if text else ''}")
        self.code = code
        self.call = call
        self.text = text


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a device is. `energy_source`: what its energy figures are; a model's are never a counter's."""

    name: str
    npus: int
    sram_bytes: int
    clock_hz: int
    macs_per_cycle: int
    operators: frozenset[str]
    """ONNX names of what a program may hold."""
    program_format: str
    energy_source: Literal["counter", "model", "none"]
    version: str = ""
    """Of driver and firmware, or of the emulator: it changes when results or costs may."""


@dataclass(frozen=True, slots=True)
class Completion:
    """What a run took on the NPU: nanoseconds, clock cycles, and nanojoules where the device can tell."""

    device_ns: int
    cycles: int
    energy_nj: int | None


@dataclass(frozen=True, slots=True)
class Binding:
    """A tensor of a program in memory: bytes of one row. Buffers hold `rows` of them, one after the other."""

    name: str
    datatype: str
    """The Open Inference Protocol's name."""
    row_shape: tuple[int, ...]
    row_bytes: int


class NpuProgram(Protocol):
    """A program that is loaded on one NPU."""

    inputs: Sequence[Binding]
    outputs: Sequence[Binding]
    npu: int

    def bind(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        """Give the buffers of the next runs, C-contiguous, in the order of `inputs` and `outputs`.

        They have to stay valid until they are bound anew or the program is unloaded.
        """

    def submit(self, rows: int = 1) -> None:
        """Start a run over so many rows of the bound buffers; returns at once. BUSY while one is under way."""

    def wait(self, timeout_s: float) -> Completion:
        """Wait for the run. TIMED_OUT leaves it under way, ABORTED after `abort`."""

    def abort(self) -> None:
        """End the run under way, between layers at the latest; from any thread, idempotent, returns at once."""

    def unload(self) -> None:
        """Let go of the program; aborts a run under way. A second time it does nothing."""


class NpuDevice(Protocol):
    """An opened device."""

    capabilities: Capabilities

    def load(self, program: bytes, npu: int) -> NpuProgram:
        """Load a program on NPU `npu`, from 0."""

    def energy_nj(self, npu: int) -> int | None:
        """The NPU's energy counter, nanojoules since it was opened; None where there is none."""

    def temperature_c(self, npu: int) -> float | None:
        """Degrees Celsius; None where nothing can tell."""

    def close(self) -> None:
        """Unload everything and let go of the device. A second time it does nothing."""
