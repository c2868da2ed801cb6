"""What a worker does from its backend's probe to its end: answer requests, one after another."""

import gc
import mmap
import os
import socket
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from backends import registry, wire
from backends.confinement import ProcessorTime, confine, let_timers_end_it
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
)
from backends.limits import Limit
from backends.turns import in_turns
from backends.under_way import UnderWay, listen_for_cancels

if TYPE_CHECKING:
    from collections.abc import Callable

    from backends.slot_arrays import SlotArrays
    from backends.turns import Arrays

PROCESSORS: Final = os.cpu_count() or 1
"""A call has its patience in processor seconds on each of them: a bound that the kernel keeps by itself."""


def serve(use: str, requests_fd: int, cancels_fd: int, arena_fd: int, heart_fd: int) -> None:
    """Serve one supervisor with backend `use`, until it closes its end."""
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
    gc.freeze()  # the runtime stays: a look for garbage passes it over, and is no pause for a run
    gc.enable()
    limits = confine(configure.limits, needs, scratch=os.environ["TMPDIR"])
    under_way = UnderWay()
    # threads of ours start here: a limit holds for its thread and those that come after it
    start_thread("heartbeat", live_by, heart, needs.interpreter_held_s)
    start_thread("cancels", listen_for_cancels, cancels, under_way)
    Service(backend, requests, memory, under_way, devices=devices, limits=limits).serve()


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
        self._programs: dict[int, tuple[Program, SlotArrays]] = {}
        self._processor_time = ProcessorTime()
        self._decode: Callable[[memoryview], wire.Request] = msgspec.msgpack.Decoder(wire.Request).decode
        self._encode = msgspec.msgpack.Encoder().encode

    def serve(self) -> None:
        """Answer until the supervisor closes its end, then let go of the device."""
        messages = memoryview(bytearray(wire.MESSAGE_BYTES))
        while size := self._requests.recv_into(messages):
            self._requests.send(self._encode(self._answer(self._decode(messages[:size]))))
        for program, _ in self._programs.values():
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
                program, _ = self._programs.pop(request.program)
                program.close()
                return wire.Unloaded(request.id)

    def _load(self, request: wire.Load) -> wire.Loaded:
        self._processor_time.allow(request.patience_s * PROCESSORS)
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
        from backends.slot_arrays import SlotArrays  # noqa: PLC0415 - numpy comes with the runtime

        self._programs[request.id] = program, SlotArrays(program, self._memory)
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
        program, arrays = self._programs[request.program]
        inputs, outputs = arrays.at(request.offset, request.rows)
        before_s = self._processor_time.allow(request.patience_s * PROCESSORS)
        turns = [
            self._turn(request.id, program, *each)
            for each in in_turns(program, inputs, outputs, request.rows)
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

    def _turn(self, run_id: int, program: Program, inputs: "Arrays", outputs: "Arrays") -> Spent:
        self._under_way.begin(run_id, program)
        try:
            return program.run(inputs, outputs)
        finally:
            self._under_way.end()


def die_of(failure: Any) -> None:
    """End the process when a thread of it fails, as a failing main thread would."""
    sys.excepthook(failure.exc_type, failure.exc_value, failure.exc_traceback)
    os._exit(os.EX_SOFTWARE)


def mapped(fd: int, access: int = mmap.ACCESS_DEFAULT) -> mmap.mmap:
    """The shared memory behind `fd`, which is closed."""
    memory = mmap.mmap(fd, 0, access=access)
    os.close(fd)
    return memory


def start_thread(name: str, run: "Callable[..., None]", *arguments: object) -> None:
    """Run `run(*arguments)` beside the main thread, until the process ends."""
    threading.Thread(target=run, args=arguments, name=name, daemon=True).start()
