"""One NPU of the emulator: its thread, its counter, and the programs that are loaded on it."""

import threading
from collections.abc import Callable, Sequence
from concurrent import futures
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
Outcome = tuple[Code, str] | None
"""Of a run: why it failed and the words about it, or None."""


class EmulatedNpu:
    """A thread that computes one run at a time, and what the model says that has cost."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.closed = False
        self._thread = ThreadPoolExecutor(1, f"emulated-npu-{number}")
        self._under_way: EmulatedProgram | None = None
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

    def start(self, program: "EmulatedProgram", run: Callable[[], Outcome]) -> "Future[Outcome]":
        """Compute in this NPU's thread, for a program that has it until `end`; raises `FsdError` BUSY."""
        if self._under_way is not None:
            text = f"NPU {self.number} has a run under way: wait for it, or abort it and wait"
            raise FsdError(Code.BUSY, "submit", text)
        self._under_way = program
        return self._thread.submit(run)

    def end(self, program: "EmulatedProgram") -> None:
        """Its run is over, and known to be."""
        if self._under_way is program:
            self._under_way = None

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
    ended: "Future[Outcome]"


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
        """Give the buffers of the next runs; raises `FsdError`, and those of before stay."""
        self._check_loaded("bind")
        if self._run is not None:
            raise FsdError(Code.BUSY, "bind", "a run of this program is under way: wait for it first")
        _check_buffers(inputs, self.inputs, writable=False)
        _check_buffers(outputs, self.outputs, writable=True)
        self._bound = [_viewed(each) for each in inputs], [_viewed(each) for each in outputs]

    def submit(self, rows: int = 1) -> None:
        """Start a run, which is under way until `wait` has told its end."""
        self._check_loaded("submit")
        if self._bound is None:
            raise FsdError(Code.BAD_ARGUMENT, "submit", "no buffers are bound: bind them first")
        if rows < 1:
            raise FsdError(Code.BAD_ARGUMENT, "submit", f"{rows} rows; 1 is the least")
        inputs = _rows_of(self._bound[0], self.inputs, self._network.inputs, rows)
        outputs = _rows_of(self._bound[1], self.outputs, self._network.outputs, rows)
        computation, cost = self._begin(), self.report(rows)

        def run() -> Outcome:
            try:
                for place, values in zip(outputs, computation.results(inputs), strict=True):
                    np.copyto(place, values)
            except Aborted:
                return Code.ABORTED, ""
            except FsdError as error:
                return error.code, error.text
            finally:
                self._home.spend(cost.joules)
            return None

        self._run = _Run(computation, cost, self._home.start(self, run))

    def wait(self, timeout_s: float) -> Completion:
        """Wait for the run that is under way, which then no longer is."""
        self._check_loaded("wait")
        if not timeout_s >= 0:
            raise FsdError(Code.BAD_ARGUMENT, "wait", f"a time-out of {timeout_s} s; 0 is the least")
        if self._run is None:
            raise FsdError(Code.BAD_ARGUMENT, "wait", "no run is under way: submit one first")
        ended, cost = self._run.ended, self._run.cost
        _, unfinished = futures.wait([ended], min(timeout_s, threading.TIMEOUT_MAX))
        if unfinished:
            text = f"the run goes on after {timeout_s:g} s: wait again, or abort it"
            raise FsdError(Code.TIMED_OUT, "wait", text)
        self._end()
        if (outcome := ended.result()) is not None:
            code, text = outcome
            raise FsdError(code, "wait", text)
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
        self._end()
        self._bound = None
        self._home.unload(self)

    def _end(self) -> None:
        self._run = None
        self._home.end(self)

    def _check_loaded(self, call: str) -> None:
        if self._unloaded:
            raise FsdError(Code.BAD_ARGUMENT, call, "the program is unloaded: load it again")


def _binding(tensor: Quantised) -> Binding:
    return Binding(tensor.name, tensor.datatype, tensor.row_shape, tensor.row_bytes)


def _check_buffers(buffers: Sequence[Any], bindings: Sequence[Binding], *, writable: bool) -> None:
    """Refuse what is no memory for a row. Nothing is held: an exception would keep it from its owner."""
    if len(buffers) != len(bindings):
        names = ", ".join(binding.name for binding in bindings)
        text = f"{len(buffers)} buffers for {len(bindings)} tensors ({names})"
        raise FsdError(Code.BAD_ARGUMENT, "bind", text)
    for buffer, binding in zip(buffers, bindings, strict=True):
        try:
            with memoryview(buffer) as view:
                fits, size_bytes = view.c_contiguous and not (writable and view.readonly), view.nbytes
        except (TypeError, BufferError):
            fits, size_bytes = False, 0
        if not fits:
            needed = "C-contiguous, writable" if writable else "C-contiguous"
            raise FsdError(Code.BAD_ARGUMENT, "bind", f"{binding.name!r} needs {needed} memory")
        _check_room("bind", size_bytes, binding, rows=1)


def _viewed(buffer: Any) -> Array:
    """Its bytes, not copied."""
    return np.frombuffer(memoryview(buffer).cast("B"), np.uint8)


def _check_room(call: str, size_bytes: int, binding: Binding, rows: int) -> None:
    needed = rows * binding.row_bytes
    if size_bytes < needed:
        text = f"{rows} rows of {binding.name!r} are {needed} bytes, and its buffer has {size_bytes}"
        raise FsdError(Code.BAD_ARGUMENT, call, text)


def _rows_of(
    views: Sequence[Array], bindings: Sequence[Binding], tensors: Sequence[Quantised], rows: int
) -> list[Array]:
    """So many rows of each buffer, in shape."""
    found = []
    for view, binding, tensor in zip(views, bindings, tensors, strict=True):
        _check_room("submit", view.size, binding, rows)
        used = view[: rows * binding.row_bytes]
        found.append(used.view(DTYPES[tensor.datatype]).reshape(rows, *tensor.row_shape))
    return found
