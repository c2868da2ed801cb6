"""Programs on the NPUs, one and the same on each: the rows of a run are shared among them."""

import contextlib
import math
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from backends.datatypes import NUMPY_NAMES
from backends.fsd_failures import kernel_error
from backends.kernel import Cancelled
from firmware_shims.clock import boottime_ns
from firmware_shims.fsd.interface import Binding, Code, Completion, FsdError, NpuDevice, NpuProgram

if TYPE_CHECKING:
    from backends.fsd_parts import Tensors
    from backends.kernel import Array

NS: Final = 1e9


class Lane:
    """One NPU's program with buffers of its own, which grow with the runs.

    They are not the kernel's arrays: those are valid until a run returns, and a driver holds what was bound.
    """

    def __init__(self, program: NpuProgram) -> None:
        self.program = program
        self.outputs: list[Array] = []
        self._inputs: list[Array] = []
        self._room = 0

    def begin(self, tensors: "Tensors", rows: range) -> None:
        """Copy these rows in and start; raises `FsdError`."""
        if len(rows) > self._room:
            self._inputs = [_buffer(binding, len(rows)) for binding in self.program.inputs]
            self.outputs = [_buffer(binding, len(rows)) for binding in self.program.outputs]
            self.program.bind(self._inputs, self.outputs)
            self._room = len(rows)
        for binding, buffer in zip(self.program.inputs, self._inputs, strict=True):
            given = tensors[binding.name][rows.start : rows.stop]
            buffer[: len(rows)] = given.reshape(len(rows), *binding.row_shape)
        self.program.submit(len(rows))

    def end(self) -> Completion | FsdError:
        """How the run that `begin` has started has ended."""
        try:
            return self.program.wait(math.inf)
        except FsdError as error:
            return error.with_traceback(None)  # or it would keep all that is on the stack now


class NpuPart:
    """A program on each of some NPUs. With `pace`, a run takes at least as long as the device says it took."""

    def __init__(self, lanes: Sequence[Lane], pace: bool) -> None:
        self._lanes = lanes
        self._pace = pace
        self.inputs = lanes[0].program.inputs
        self.outputs = lanes[0].program.outputs

    @classmethod
    def loaded(cls, device: NpuDevice, program: bytes, pace: bool) -> "NpuPart":
        """Load a program on every NPU, or on none; raises `FsdError`."""
        with contextlib.ExitStack() as undo:
            programs = []
            for npu in range(device.capabilities.npus):
                programs.append(device.load(program, npu))
                undo.callback(programs[-1].unload)
            undo.pop_all()
        return cls([Lane(each) for each in programs], pace)

    def run(self, tensors: "Tensors", rows: int, given_up: threading.Event) -> Sequence[Completion]:  # noqa: D102
        begin_ns = boottime_ns()
        under_way: list[tuple[Lane, range]] = []
        ends: list[Completion | FsdError] = []
        try:
            for lane, share in zip(self._lanes, _shares(rows, len(self._lanes)), strict=False):
                lane.begin(tensors, share)
                under_way.append((lane, share))
            if given_up.is_set():  # later than this, `abort` finds the runs
                self.abort()
        except FsdError as error:
            self.abort()
            ends.append(error.with_traceback(None))
        finally:
            ends += [lane.end() for lane, _ in under_way]
        spent = _spent(ends, given_up)
        self._collect(tensors, rows, under_way)
        if self._pace:
            modelled_s = max(each.device_ns for each in spent) / NS
            if given_up.wait(max(0.0, modelled_s - (boottime_ns() - begin_ns) / NS)):
                raise Cancelled
        return spent

    def abort(self) -> None:  # noqa: D102
        for lane in self._lanes:
            lane.program.abort()

    def close(self) -> None:  # noqa: D102
        for lane in self._lanes:
            lane.program.unload()

    def _collect(self, tensors: "Tensors", rows: int, ran: Sequence[tuple[Lane, range]]) -> None:
        for place, binding in enumerate(self.outputs):
            parts = [lane.outputs[place][: len(share)] for lane, share in ran]
            whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
            tensors[binding.name] = whole.reshape(rows, 1, *binding.row_shape)


def _shares(rows: int, lanes: int) -> Iterator[range]:
    """Which rows each of the NPUs takes: as even as can be, and none where there are too few."""
    share = math.ceil(rows / lanes)
    for begin in range(0, rows, share):
        yield range(begin, min(rows, begin + share))


def _spent(ends: Sequence[Completion | FsdError], given_up: threading.Event) -> list[Completion]:
    """What all of them took; raises what the first that failed says, an abort that was asked for as `Cancelled`."""
    for end in ends:
        if isinstance(end, FsdError):
            if end.code is Code.ABORTED and given_up.is_set():
                raise Cancelled from end
            raise kernel_error(end) from end
    return [end for end in ends if isinstance(end, Completion)]


def _buffer(binding: Binding, rows: int) -> "Array":
    return np.zeros((rows, *binding.row_shape), NUMPY_NAMES[binding.datatype])
