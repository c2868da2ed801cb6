"""One NPU of the emulator: its thread, its counter, and the programs that are loaded on it."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from firmware_shims.fsd.arithmetic import DTYPES, Array
from firmware_shims.fsd.chip import FSD
from firmware_shims.fsd.computing import Aborted, Computation
from firmware_shims.fsd.cost import Report
from firmware_shims.fsd.demand import modelled
from firmware_shims.fsd.interface import Binding, Code, Completion, FsdError
from firmware_shims.fsd.layers import Network, Quantised

NANO: Final = 1e9


class EmulatedNpu:
    """A thread that computes one run at a time, and what the model says that has cost."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.closed = False
        self._thread = ThreadPoolExecutor(1, f"emulated-npu-{number}")
        self._under_way: Future[None] | None = None
        self._loaded: list[EmulatedProgram] = []
        self._counting = threading.Lock()
        self._spent_nj = 0

    @property
    def energy_nj(self) -> int:
        """Modelled, since it was opened."""
        with self._counting:
            return self._spent_nj

    def load(self, network: Network, begin: Callable[[], Computation]) -> "EmulatedProgram":
        """Take a program in; its weights get what those that are loaded leave of the SRAM."""
        taken = sum(program.report(1).resident_bytes for program in self._loaded)
        program = EmulatedProgram(self, network, begin, FSD.sram_bytes - taken)
        self.spend(program.report(1).load_joules)
        self._loaded.append(program)
        return program

    def unload(self, program: "EmulatedProgram") -> None:
        """Give its share of the SRAM back."""
        self._loaded.remove(program)

    def start(self, run: Callable[[], None]) -> "Future[None]":
        """Compute in this NPU's thread; raises `FsdError` BUSY."""
        if self._under_way is not None and not self._under_way.done():
            raise FsdError(
                Code.BUSY, "submit", f"NPU {self.number} has a run under way: wait for it, or abort it"
            )
        self._under_way = self._thread.submit(run)
        return self._under_way

    def spend(self, joules: float) -> None:
        """Count."""
        with self._counting:
            self._spent_nj += round(joules * NANO)

    def close(self) -> None:
        """Unload everything and end the thread."""
        self.closed = True
        for program in tuple(self._loaded):
            program.unload()
        self._thread.shutdown()


@dataclass(frozen=True, slots=True)
class _Run:
    computation: Computation
    cost: Report
    ended: "Future[None]"


class EmulatedProgram:
    """A loaded `NpuProgram`. `report` is what a driver cannot tell."""

    def __init__(
        self, npu: EmulatedNpu, network: Network, begin: Callable[[], Computation], sram_bytes: int
    ) -> None:
        self.npu = npu.number
        self.inputs: Sequence[Binding] = tuple(map(_binding, network.inputs))
        self.outputs: Sequence[Binding] = tuple(map(_binding, network.outputs))
        self._home = npu
        self._network = network
        self._begin = begin
        self._chip = replace(FSD, sram_bytes=sram_bytes)
        self._reports: dict[int, Report] = {}
        self._bound: tuple[list[Array], list[Array]] | None = None
        self._run: _Run | None = None
        self._unloaded = False

    def report(self, rows: int = 1) -> Report:
        """What a run of so many rows costs, layer by layer, with the SRAM that it found at load."""
        if rows not in self._reports:
            self._reports[rows] = modelled(self._network, rows, self._chip)
        return self._reports[rows]

    def bind(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        """Give the buffers of the next runs; raises `FsdError` BAD_ARGUMENT for what is no buffer for them."""
        self._check_loaded("bind")
        self._bound = _viewed(inputs, self.inputs), _viewed(outputs, self.outputs)
        for array, binding in zip(self._bound[1], self.outputs, strict=True):
            if not array.flags.writeable:
                self._bound = None
                raise FsdError(Code.BAD_ARGUMENT, "bind", f"output {binding.name!r} cannot be written to")

    def submit(self, rows: int = 1) -> None:
        """Start a run."""
        self._check_loaded("submit")
        if self._bound is None:
            raise FsdError(Code.BAD_ARGUMENT, "submit", "no buffers are bound: call bind first")
        if rows < 1:
            raise FsdError(Code.BAD_ARGUMENT, "submit", f"{rows} rows: at least 1")
        inputs = _rows_of(self._bound[0], self.inputs, self._network.inputs, rows)
        outputs = _rows_of(self._bound[1], self.outputs, self._network.outputs, rows)
        computation, cost = self._begin(), self.report(rows)

        def run() -> None:
            try:
                for place, values in zip(outputs, computation.results(inputs), strict=True):
                    np.copyto(place, values)
            finally:
                self._home.spend(cost.joules)

        self._run = _Run(computation, cost, self._home.start(run))

    def wait(self, timeout_s: float) -> Completion:
        """Wait for the latest run; a second time it says the same again."""
        self._check_loaded("wait")
        if self._run is None:
            raise FsdError(Code.BAD_ARGUMENT, "wait", "no run was submitted")
        try:
            self._run.ended.result(min(timeout_s, threading.TIMEOUT_MAX))
        except TimeoutError:
            text = f"the run goes on after {timeout_s:g} s: wait again, or abort it"
            raise FsdError(Code.TIMED_OUT, "wait", text) from None
        except Aborted:
            raise FsdError(Code.ABORTED, "wait") from None
        cost = self._run.cost
        elapsed_ns = round(cost.seconds * NANO)
        return Completion(elapsed_ns, round(cost.seconds * cost.chip.clock_hz), round(cost.joules * NANO))

    def abort(self) -> None:
        """End the run under way between two layers."""
        if (run := self._run) is not None:
            run.computation.abort()

    def unload(self) -> None:
        """Let go of the program, its run and its buffers."""
        if self._unloaded:
            return
        self._unloaded = True
        self.abort()
        if self._run is not None:
            self._run.ended.exception()  # until the thread has let go of the buffers
        self._bound = self._run = None
        self._home.unload(self)

    def _check_loaded(self, call: str) -> None:
        if self._unloaded:
            raise FsdError(Code.BAD_ARGUMENT, call, "the program was unloaded: load it again")


def _binding(tensor: Quantised) -> Binding:
    return Binding(tensor.name, tensor.datatype, tensor.row_shape, tensor.row_bytes)


def _viewed(buffers: Sequence[Any], bindings: Sequence[Binding]) -> list[Array]:
    """The bytes of buffers, not copied."""
    if len(buffers) != len(bindings):
        raise FsdError(Code.BAD_ARGUMENT, "bind", f"{len(buffers)} buffers for {len(bindings)} tensors")
    views = []
    for buffer, binding in zip(buffers, bindings, strict=True):
        try:
            views.append(np.frombuffer(buffer, np.uint8))
        except (TypeError, ValueError, BufferError) as error:
            text = f"{binding.name!r} needs a C-contiguous buffer: {error}"
            raise FsdError(Code.BAD_ARGUMENT, "bind", text) from error
    return views


def _rows_of(
    views: Sequence[Array], bindings: Sequence[Binding], tensors: Sequence[Quantised], rows: int
) -> list[Array]:
    """So many rows of each buffer, in shape."""
    found = []
    for view, binding, tensor in zip(views, bindings, tensors, strict=True):
        needed = rows * binding.row_bytes
        if view.size < needed:
            text = f"{binding.name!r} holds {view.size} bytes, {rows} rows are {needed}"
            raise FsdError(Code.BAD_ARGUMENT, "submit", text)
        found.append(view[:needed].view(DTYPES[tensor.datatype]).reshape(rows, *tensor.row_shape))
    return found
