"""A worker process as the supervisor holds it: start, probe, load, run, cancel, kill. Imports no numpy."""

import asyncio
import contextlib
import itertools
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Self

import msgspec

from backends import registry, wire
from backends.calls import HUNG_FLOOR_S, Calls, ProtocolBroken, R, patience_s
from backends.deaths import BACKEND_CRASHED, BACKEND_HUNG, judged, oom_kills
from backends.group import ProcessGroup, Reaped
from backends.heartbeat import BEAT_S, Heart
from backends.kernel import Device, Model, Spent
from backends.limits import START_S, Limit, Limits
from backends.scratch import Scratch
from backends.slots import Arena, LoadedProgram, Slot
from firmware_shims.clock import Clock, boottime_ns
from firmware_shims.telemetry import NO_TELEMETRY

DEFAULT_LIMITS: Final = Limits()
ARENA_BYTES: Final = 256 * 1024 * 1024
"""Default bound of what tensors under way may take; memory is used only as slots are written."""
REPLIES_PER_TURN: Final = 64  # then the loop's other readers have their turn
SILENT_S: Final = 1.0  # a worker that closed its socket has this long to end by itself
ONE_BLAS_THREAD: Final = {"OPENBLAS_NUM_THREADS": "1"}
"""numpy only carries arrays here; a thread per core for it would be 40 MiB of address space and a slower end."""
NO_PLUGINS: Final = {"PYDANTIC_DISABLE_PLUGINS": "__all__"}
"""Looking for some reads the metadata of every package that is installed, at each start."""


class WorkerDied(Exception):  # noqa: N818 - what happened, not whose fault it was
    """The worker process has ended. `returncode` is negative for a signal; `text` has its last words.

    `code` is the reason on the wire: 1021 crashed, 1022 hung, 1023 out of memory.
    """

    def __init__(self, returncode: int, text: str, code: int = BACKEND_CRASHED) -> None:
        super().__init__(text)
        self.returncode = returncode
        self.text = text
        self.code = code


@dataclass(frozen=True, slots=True)
class RunDone:
    """What a run took: the device's account, and processor seconds of the whole worker."""

    spent: Spent
    cpu_s: float


class WorkerProcess:
    """One worker. Everything but `kill` belongs to the asyncio loop (and thread) that started it.

    Start it from a thread that lives as long as the agent: the kernel ends the worker when that thread
    ends (PR_SET_PDEATHSIG), and when the loop stands still for two seconds (backends.heartbeat). A worker
    that answers a call far too late is killed as hung. Calls that are pending when the process ends raise
    `WorkerDied`; failures that the worker tells of raise `KernelError`, cancelled runs `Cancelled`.
    """

    @classmethod
    def start(
        cls,
        use: str,
        options: Mapping[str, Any],
        *,
        limits: Limits = DEFAULT_LIMITS,
        arena_bytes: int = ARENA_BYTES,
        clock: Clock = boottime_ns,
        well: Callable[[], bool] = lambda: True,
    ) -> Self:
        """Spawn `python -m backends.worker` for backend `use` and return without waiting for it.

        A worker may live only while `well()`, which is asked ten times a second, says so. Raises
        `registry.UnknownBackend`, or pydantic's ValidationError for options that it does not take.
        """
        validated = registry.validate_options(use, options)
        return cls(
            use,
            validated.model_dump(mode="json"),
            limits=limits,
            arena_bytes=arena_bytes,
            clock=clock,
            well=well,
        )

    def __init__(
        self,
        use: str,
        options: dict[str, Any],
        *,
        limits: Limits,
        arena_bytes: int,
        clock: Clock,
        well: Callable[[], bool],
    ) -> None:
        self.use = use
        self.version = ""
        self.limits: tuple[Limit, ...] = ()
        self._bounds = limits
        self._well = well
        self._oom_kills = oom_kills()
        self._loop = asyncio.get_running_loop()
        self._spawn(arena_bytes, clock)
        self.pid = self._group.pid
        self._ids = itertools.count(1)
        self._calls = Calls()
        self._unsent: deque[bytes] = deque()
        self._buffer = bytearray(wire.MESSAGE_BYTES + 1)
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(wire.Reply).decode
        self._died: tuple[int, str, int] | None = None
        self._answered = False
        self._breach = ""
        self._hung = ""
        self._silence: asyncio.TimerHandle | None = None
        self._loop.add_reader(self._requests, self._readable)
        self._send(wire.Configure(options, limits))
        self._beat()

    def _spawn(self, arena_bytes: int, clock: Clock) -> None:
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            self._arena = Arena(arena_bytes)
            theirs.callback(self._arena.close_fd)
            ours.callback(self._arena.retire)
            self._heart = Heart()
            theirs.callback(self._heart.close_fd)
            ours.callback(self._heart.close)
            self._scratch = Scratch()
            ours.callback(self._scratch.cleanup)
            self._requests, far_requests = _packet_pair(ours, theirs)
            self._cancels, far_cancels = _packet_pair(ours, theirs)
            fds = (far_requests.fileno(), far_cancels.fileno(), self._arena.fd, self._heart.fd)
            self._group = ProcessGroup(
                [sys.executable, "-m", "backends.worker", self.use, *map(str, fds), str(os.getpid())],
                environment={
                    **ONE_BLAS_THREAD,
                    **os.environ,
                    **NO_TELEMETRY,
                    **NO_PLUGINS,
                    "TMPDIR": self._scratch.path,  # a worker that is killed cannot tidy up
                },
                pass_fds=fds,
                clock=clock,
                when_gone=self._gone,
            )
            ours.pop_all()

    def kill(self) -> int | None:
        """SIGKILL the worker's process group now; never raises, any thread, any number of times.

        Returns the clock's stamp of the signal, None when the worker was gone already.
        """
        return self._group.kill()

    async def wait_reaped(self) -> Reaped:
        """Return once every process of the worker is gone, and its memory with them."""
        return await self._group.wait()

    async def stop(self, grace_s: float = 1.0) -> Reaped:
        """Cancel what runs, let the worker close its programs and leave; kill it after `grace_s`."""
        for slot in self._calls.slots:
            self.cancel(slot)
        try:
            if self._died is None and not self._unsent:
                self._requests.shutdown(socket.SHUT_WR)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(grace_s):
                        return await self.wait_reaped()
        finally:
            self.kill()
        return await self.wait_reaped()

    async def probe(self) -> list[Device]:
        """The backend's devices, as the worker found them when it started; `version` and `limits` are known then."""
        probed = await self._call(wire.Probe(next(self._ids)), wire.Probed, HUNG_FLOOR_S)
        self.version = probed.version
        self.limits = probed.limits
        return list(probed.devices)

    async def load(self, model: Model, device: str | None = None) -> LoadedProgram:
        """Load `model` on `device` (None: the first usable one), warmed up and, where its cost is not known, measured."""
        message = wire.Load(
            next(self._ids),
            str(model.path),
            model.sha256,
            model.format,
            model.inputs,
            model.outputs,
            model.known,
            device,
            self._bounds.load_s,
        )
        loaded = await self._call(message, wire.Loaded, message.patience_s)
        return LoadedProgram(
            key=message.id,
            inputs=loaded.inputs,
            outputs=loaded.outputs,
            max_batch=loaded.max_batch,
            cost=loaded.cost,
            device=loaded.device,
            version=loaded.version,
        )

    async def unload(self, program: LoadedProgram) -> None:
        """Close `program` after the runs that wait for it."""
        await self._call(wire.Unload(next(self._ids), program.key), wire.Unloaded, self._bounds.load_s)

    def slot(self, program: LoadedProgram, rows: int) -> Slot:
        """Room for `rows` rows; what a program does not take at once is run in turns. Raises `ArenaFull`."""
        self._raise_if_dead()
        if rows < 1:
            raise ValueError(f"a run of {rows} rows: at least 1")
        return Slot(self._arena, program, rows)

    async def run(self, slot: Slot) -> RunDone:
        """Run what lies in `slot`; on return its outputs are filled. Several may wait, they run in order.

        If the awaiting task is cancelled, so is the run; the slot's memory waits for the worker either way.
        """
        if slot.run_id is not None or slot.released:
            raise ValueError("this slot is running or released; take another")
        bound_s = patience_s(slot.program.cost, slot.rows)
        message = wire.Run(next(self._ids), slot.program.key, slot.rows, slot.offset, bound_s)
        future = self._call(message, wire.Ran, bound_s, slot)
        try:
            ran = await future
        finally:
            if future.cancelled():
                self.cancel(slot)
        return RunDone(Spent(ran.begin_ns, ran.end_ns, ran.joules, ran.joules_source), ran.cpu_s)

    def cancel(self, slot: Slot) -> None:
        """Ask the worker to give up the run of `slot`; without one nothing happens. `run` says how it ended."""
        if slot.run_id is None:
            return
        try:
            self._cancels.send(self._encode(wire.Cancel(slot.run_id)))
        except (BlockingIOError, BrokenPipeError, ConnectionResetError):
            return  # it hears nothing any more: frozen, which only a kill answers, or dead

    def _call(
        self, message: Any, expects: type[R], patience_s: float, slot: Slot | None = None
    ) -> "asyncio.Future[R]":
        self._raise_if_dead()
        self._send(message)
        return self._calls.begin(message.id, expects, patience_s, slot)

    def _raise_if_dead(self) -> None:
        if self._died is not None:
            raise WorkerDied(*self._died)

    def _send(self, message: wire.Configure | wire.Request) -> None:
        data = self._encode(message)
        if len(data) > wire.MESSAGE_BYTES:
            raise ValueError(f"a message of {len(data)} bytes, the limit is {wire.MESSAGE_BYTES}")
        self._unsent.append(data)
        if len(self._unsent) == 1:
            self._flush()

    def _flush(self) -> None:
        try:
            while self._unsent:
                self._requests.send(self._unsent[0])
                self._unsent.popleft()
        except BlockingIOError:
            self._loop.add_writer(self._requests, self._writable)
        except (BrokenPipeError, ConnectionResetError):
            return  # its end is reported by the process group

    def _writable(self) -> None:
        self._loop.remove_writer(self._requests)
        self._flush()

    def _readable(self) -> None:
        for _ in range(REPLIES_PER_TURN):
            if not (self._read_reply() and self._calls.pending):
                return

    def _read_reply(self) -> bool:
        """Answer one call; False when there is nothing to read now."""
        try:
            size = self._requests.recv_into(self._buffer)
        except BlockingIOError:
            return False
        except ConnectionResetError:  # it left requests unread: said once, before what it had answered
            return True
        if not size:
            self._loop.remove_reader(self._requests)
            self._silence = self._loop.call_later(SILENT_S, self.kill)
            return False
        try:
            reply = self._decode(memoryview(self._buffer)[:size])
            self._answered = True
            self._calls.answer(reply)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return self._break(f"an unreadable message: {error}")
        except ProtocolBroken as broken:
            return self._break(str(broken))
        return True

    def _beat(self) -> None:
        """Let the worker live on, and look whether it still answers."""
        if self._well():
            self._heart.beat()
        self._pulse = self._loop.call_later(BEAT_S, self._beat)
        overdue = self._calls.overdue(BEAT_S, 0 if self._answered else START_S)
        if overdue and not self._hung:
            self._hung = f": it hung: {overdue}"
            self.kill()

    def _break(self, what: str) -> bool:
        """End a worker that does not keep to the protocol; nothing it says counts any more."""
        self._breach = f"; breach of protocol: {what}"
        self._loop.remove_reader(self._requests)
        self.kill()
        return False

    def _gone(self, reaped: Reaped) -> None:
        if self._silence is None and not self._breach:
            while self._read_reply():  # runs that it finished in its last moments count
                pass
        if self._silence is not None:
            self._silence.cancel()
        self._pulse.cancel()
        code, why = judged(reaped.returncode, self._group.was_killed, self._oom_kills)
        words = self._last_words(reaped.returncode, self._breach or self._hung or why)
        self._died = (reaped.returncode, words, BACKEND_HUNG if self._hung else code)
        self._loop.remove_reader(self._requests)
        self._loop.remove_writer(self._requests)
        self._requests.close()
        self._cancels.close()
        self._calls.fail(partial(WorkerDied, *self._died))
        self._unsent.clear()
        self._arena.retire()
        self._heart.close()
        self._scratch.cleanup()

    def _last_words(self, returncode: int, why: str) -> str:
        how = (
            f"was ended by signal {-returncode} ({signal.strsignal(-returncode)})"
            if returncode < 0
            else f"ended with exit code {returncode}"
        )
        printed = self._group.output_tail.decode(errors="replace").strip()
        text = f"worker {self.use} (pid {self.pid}) {how}{why}"
        return f"{text}; it printed: {printed}" if printed else text


def _packet_pair(
    ours: contextlib.ExitStack, theirs: contextlib.ExitStack
) -> tuple[socket.socket, socket.socket]:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    near.setblocking(False)
    return ours.enter_context(near), theirs.enter_context(far)
