"""The worker process: `python -m backends.worker USE REQUESTS_FD CANCELS_FD ARENA_FD HEART_FD PARENT_PID`.

It probes its backend, which imports the runtime, gives up what running models does not need, and then serves.
The main thread reads a request, answers it, and reads the next: one token each way for a run. A second
thread reads cancels, and ends the process when the supervisor's end is gone; a third keeps it alive while the
supervisor is (backends.heartbeat). An exception that no backend is meant to raise ends the process, with its
traceback as last words.
"""

import faulthandler
import mmap
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from backends import registry, wire
from backends.confinement import allow_processor_time, confine, let_timers_end_it
from backends.datatypes import NUMPY_NAMES
from backends.heartbeat import live_by
from backends.kernel import (
    BACKEND_UNUSABLE,
    OUT_OF_MEMORY,
    Backend,
    Cancelled,
    Device,
    KernelError,
    Model,
    Needs,
    Program,
    Spent,
    Tensor,
)
from backends.libc import PR_SET_NAME, PR_SET_PDEATHSIG, prctl
from backends.limits import Limit
from backends.slots import layout, shape
from backends.turns import in_turns, part

if TYPE_CHECKING:
    from collections.abc import Callable

    from backends.kernel import Array

CANCEL_AGAIN_S: Final = 0.005
PROCESSORS: Final = os.cpu_count() or 1
"""A call has its patience in processor seconds on each of them: a bound that the kernel keeps by itself."""


class UnderWay:
    """Which run the main thread is in, and which ones the supervisor no longer wants.

    Run ids grow. A cancel may overtake its run, since it comes by another socket.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._program: Program | None = None
        self._id = 0
        self._unwanted: set[int] = set()

    def begin(self, run_id: int, program: Program) -> None:
        """Enter a run, or raise `Cancelled` when it was given up before."""
        with self._lock:
            self._id = run_id
            unwanted = run_id in self._unwanted
            self._unwanted = {other for other in self._unwanted if other >= run_id}
            if unwanted:
                raise Cancelled
            self._program = program

    def end(self) -> None:
        """Leave the run."""
        with self._lock:
            self._program = None

    def give_up(self, run_id: int) -> None:
        """Note that a run is not wanted any more; one that is over is forgotten."""
        with self._lock:
            if run_id >= self._id:
                self._unwanted.add(run_id)

    def cancel_unwanted(self) -> bool:
        """Cancel the run under way if it is not wanted; True when it was, and should be asked again.

        A cancel that comes a moment before `Program.run` has begun does nothing, so one is not enough.
        """
        with self._lock:
            if self._program is None or self._id not in self._unwanted:
                return False
            self._program.cancel()
            return True


class Service:
    """Answers requests, one after another, with a backend that has been probed."""

    def __init__(
        self,
        backend: Backend,
        requests: socket.socket,
        memory: mmap.mmap,
        under_way: UnderWay,
        *,
        devices: Sequence[Device],
        limits: tuple[Limit, ...],
    ) -> None:
        self._backend = backend
        self._devices = devices
        self._limits = limits
        self._requests = requests
        self._memory = memory
        self._under_way = under_way
        self._programs: dict[int, Program] = {}
        self._decode: Callable[[bytes], wire.Request] = msgspec.msgpack.Decoder(wire.Request).decode
        self._encode = msgspec.msgpack.Encoder().encode

    def serve(self) -> None:
        """Answer until the supervisor closes its end, then let go of the device."""
        while data := self._requests.recv(wire.MESSAGE_BYTES):
            self._requests.send(self._encode(self._answer(self._decode(data))))
        for program in self._programs.values():
            program.close()

    def _answer(self, request: wire.Request) -> wire.Reply:
        try:
            return self._do(request)
        except Cancelled:
            return wire.Cancelled(request.id)
        except KernelError as error:
            return wire.Failed(request.id, error.code, error.text[: wire.TEXT_CHARACTERS])
        except MemoryError as error:
            return wire.Failed(request.id, OUT_OF_MEMORY, f"out of memory: {error}")

    def _do(self, request: wire.Request) -> wire.Reply:
        match request:
            case wire.Run():
                return self._run(request)
            case wire.Load():
                return self._load(request)
            case wire.Probe():
                return wire.Probed(request.id, self._backend.version, tuple(self._devices), self._limits)
            case wire.Unload():
                self._programs.pop(request.program).close()
                return wire.Unloaded(request.id)

    def _load(self, request: wire.Load) -> wire.Loaded:
        allow_processor_time(request.patience_s * PROCESSORS)
        model = Model(
            Path(request.path),
            request.sha256,
            request.format,
            request.inputs,
            request.outputs,
            request.known,
        )
        device = request.device or self._first_usable()
        program = self._backend.load(model, device)
        self._programs[request.id] = program
        return wire.Loaded(
            id=request.id,
            version=self._backend.version,
            device=device,
            inputs=tuple(program.inputs),
            outputs=tuple(program.outputs),
            max_batch=program.max_batch,
            cost=program.cost,
        )

    def _first_usable(self) -> str:
        for device in self._devices:
            if not device.why:
                return device.name
        why = "; ".join(f"{device.name}: {device.why}" for device in self._devices) or "no device was found"
        raise KernelError(BACKEND_UNUSABLE, f"backend {self._backend.name} cannot be used: {why}")

    def _run(self, request: wire.Run) -> wire.Ran:
        """Run the rows of a slot, at most `max_batch` at a time; given up between two turns as well as within one."""
        program = self._programs[request.program]
        inputs, outputs = self._arrays(program, request.rows, request.offset)
        allow_processor_time(request.patience_s * PROCESSORS)
        before_s = time.process_time()
        turns = [
            self._turn(
                request.id, program, part(program.inputs, inputs, rows), part(program.outputs, outputs, rows)
            )
            for rows in in_turns(request.rows, program.max_batch)
        ]
        cpu_s = time.process_time() - before_s
        joules = [turn.joules for turn in turns if turn.joules is not None]
        return wire.Ran(
            request.id,
            turns[0].begin_ns,
            turns[-1].end_ns,
            sum(joules) if len(joules) == len(turns) else None,
            turns[0].joules_source,
            cpu_s,
        )

    def _turn(
        self, run_id: int, program: Program, inputs: dict[str, "Array"], outputs: dict[str, "Array"]
    ) -> Spent:
        self._under_way.begin(run_id, program)
        try:
            return program.run(inputs, outputs)
        finally:
            self._under_way.end()

    def _arrays(
        self, program: Program, rows: int, offset: int
    ) -> tuple[dict[str, "Array"], dict[str, "Array"]]:
        ranges, _ = layout((*program.inputs, *program.outputs), rows)
        offsets = [offset + r.start for r in ranges]
        inputs = {
            tensor.name: self._array(tensor, rows, at)
            for tensor, at in zip(program.inputs, offsets, strict=False)
        }
        for array in inputs.values():
            array.flags.writeable = False
        outputs = {
            tensor.name: self._array(tensor, rows, at)
            for tensor, at in zip(program.outputs, offsets[len(inputs) :], strict=True)
        }
        return inputs, outputs

    def _array(self, tensor: Tensor, rows: int, offset: int) -> "Array":
        import numpy as np  # noqa: PLC0415 - only a worker that runs something pays for it

        return np.ndarray(shape(tensor, rows), NUMPY_NAMES[tensor.datatype], self._memory, offset)


def listen_for_cancels(cancels: socket.socket, under_way: UnderWay) -> None:
    """Pass cancels on; when the supervisor's end is gone, so is the process, whatever it is doing."""
    decode = msgspec.msgpack.Decoder(wire.Cancel).decode
    while True:
        cancels.settimeout(CANCEL_AGAIN_S if under_way.cancel_unwanted() else None)
        try:
            data = cancels.recv(wire.MESSAGE_BYTES)
        except TimeoutError:
            continue
        if not data:
            os._exit(os.EX_OK)
        under_way.give_up(decode(data).id)


def die_with(parent_pid: int) -> None:
    """Have the kernel kill this process when the supervisor's thread ends, or leave if it has already."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os._exit(os.EX_OK)


def take_name(use: str) -> None:
    """Show the backend's name in `ps` and `top` (15 bytes, prctl(2))."""
    prctl(PR_SET_NAME, f"parkwatt {use}"[:15].encode())


def die_of(failure: Any) -> None:
    """End the process when the cancelling thread fails, as a failing main thread would."""
    sys.excepthook(failure.exc_type, failure.exc_value, failure.exc_traceback)
    os._exit(os.EX_SOFTWARE)


def main(use: str, *numbers: int) -> None:
    """Serve one supervisor; the numbers are those of the command line."""
    requests_fd, cancels_fd, arena_fd, heart_fd, parent_pid = numbers
    die_with(parent_pid)
    take_name(use)
    faulthandler.enable()
    threading.excepthook = die_of
    let_timers_end_it()
    memory, heart = mapped(arena_fd), mapped(heart_fd, mmap.ACCESS_READ)
    requests, cancels = socket.socket(fileno=requests_fd), socket.socket(fileno=cancels_fd)
    first = requests.recv(wire.MESSAGE_BYTES)
    if not first:
        return
    configure = msgspec.msgpack.decode(first, type=wire.Configure)
    kind = registry.find(use)
    needs: Needs = getattr(kind, "needs", Needs())
    backend = kind(kind.Options.model_validate(configure.options))
    devices = backend.probe()
    limits = confine(configure.limits, needs, scratch=os.environ["TMPDIR"])
    under_way = UnderWay()
    # threads of ours start here: a limit holds for its thread and those that come after it
    start_thread("heartbeat", live_by, heart, needs.interpreter_held_s)
    start_thread("cancels", listen_for_cancels, cancels, under_way)
    Service(backend, requests, memory, under_way, devices=devices, limits=limits).serve()


def mapped(fd: int, access: int = mmap.ACCESS_DEFAULT) -> mmap.mmap:
    """The shared memory behind `fd`, which is closed."""
    memory = mmap.mmap(fd, 0, access=access)
    os.close(fd)
    return memory


def start_thread(name: str, run: "Callable[..., None]", *arguments: object) -> None:
    """Run `run(*arguments)` beside the main thread, until the process ends."""
    threading.Thread(target=run, args=arguments, name=name, daemon=True).start()


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
