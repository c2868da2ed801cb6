"""The model in a real worker: samples are written into slots and run, as the service does with the rows of a task."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from backends.kernel import Device, Model
from backends.limits import Limits
from backends.process import RunDone, WorkerProcess
from benchmarks.throughput.play import Played, Run, Script, Tally, Wait, steps
from benchmarks.throughput.processes import cpu_s, peak_rss_bytes

if TYPE_CHECKING:
    from backends.slots import LoadedProgram, Slot

NS: Final = 1_000_000_000
WAKE_EARLY_NS: Final = 2_000_000
"""The event loop wakes on whole milliseconds; the rest of a wait is slept without it."""
ARENA_BYTES: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class BackendChoice:
    """A backend by name or MODULE:CLASS. Without a device it is the first usable one that takes the model's format."""

    use: str
    options: Mapping[str, Any] = field(default_factory=dict)
    device: str = ""


class DeviceMissingError(Exception):
    """No usable device takes the model; one line with what there is."""


class WorkerSide:
    """A loaded program with the samples that it is fed with. One run after another."""

    def __init__(
        self, worker: WorkerProcess, program: "LoadedProgram", samples: Mapping[str, Any], load_s: float
    ) -> None:
        self.program = program
        self.load_s = load_s
        self.pid = worker.pid
        self._worker = worker
        self._samples = [samples[tensor.name] for tensor in program.inputs]
        self._slots: dict[int, Slot] = {}

    @property
    def device(self) -> str:
        """Where the model lies."""
        return self.program.device

    @property
    def version(self) -> str:
        """Of the runtime."""
        return self.program.version

    def cpu_s(self) -> float:
        """Processor seconds of the worker until now."""
        return cpu_s(self.pid)

    def peak_rss_bytes(self) -> int:
        """The most memory that the worker has had resident."""
        return peak_rss_bytes(self.pid)

    async def run(self, sample: int, rows: int = 1) -> RunDone:
        """Run `rows` samples from that one on; they begin again after the last. Raises what a worker raises."""
        slot = self._slots.get(rows)
        if slot is None:
            slot = self._slots[rows] = self._worker.slot(self.program, rows)
        for view, tensor, array in zip(slot.inputs, self.program.inputs, self._samples, strict=True):
            _fill(view, array, tensor.shared, sample, rows)
        return await self._worker.run(slot)

    async def play(self, script: Script) -> Played:
        """Play a script, as the bare side does."""
        tally, going = Tally(), steps(script, time.perf_counter_ns)
        begun_ns, begun_cpu_s = time.perf_counter_ns(), self.cpu_s()
        while True:
            try:
                step = next(going)
            except StopIteration as end:
                seconds = (time.perf_counter_ns() - begun_ns) / NS
                return tally.played(seconds, self.cpu_s() - begun_cpu_s, end.value)
            await self._do(step, tally)

    def release(self) -> None:
        """Give the slots back."""
        for slot in self._slots.values():
            slot.release()
        self._slots.clear()

    async def _do(self, step: Run | Wait, tally: Tally) -> None:
        if isinstance(step, Wait):
            await _wait_until(step.until_ns)
            return
        spent = (await self.run(step.sample, step.rows)).spent
        tally.add(step.rows, spent.joules, spent.joules_source)


@contextlib.asynccontextmanager
async def worker_side(
    model: Model, samples: Mapping[str, Any], choice: BackendChoice, *, limits: Limits | None = None
) -> AsyncIterator[WorkerSide]:
    """The model, loaded in a worker of its own, which ends with the block.

    Raises `DeviceMissingError`, and what a worker raises: `KernelError` for a model that it refuses, `WorkerDied`.
    """
    bounds = limits or Limits(model_folders=(str(model.path.parent),))
    worker = WorkerProcess.start(choice.use, choice.options, limits=bounds, arena_bytes=ARENA_BYTES)
    try:
        device = _device(await worker.probe(), model.format, choice)
        begun_s = time.perf_counter()
        program = await worker.load(model, device)
        side = WorkerSide(worker, program, samples, time.perf_counter() - begun_s)
        try:
            yield side
        finally:
            side.release()
    finally:
        await worker.stop()


def _device(devices: list[Device], model_format: str, choice: BackendChoice) -> str:
    usable = [device for device in devices if not device.why and model_format in device.formats]
    wanted = [device for device in usable if choice.device in {"", device.name}]
    if wanted:
        return wanted[0].name
    seen = "; ".join(f"{each.name} ({each.why or ', '.join(each.formats)})" for each in devices) or "none"
    named = f"device {choice.device!r} of " if choice.device else ""
    raise DeviceMissingError(f"{named}{choice.use} takes no {model_format} model here; its devices: {seen}")


def _fill(view: memoryview, array: Any, shared: bool, sample: int, rows: int) -> None:
    """Write into a slot what a run is fed with."""
    target = np.frombuffer(view, array.dtype)
    if shared:
        target[:] = array.ravel()
        return
    target = target.reshape(rows, *array.shape[1:])
    begin = sample % len(array)
    if begin + rows <= len(array):
        target[:] = array[begin : begin + rows]
    else:
        np.take(array, range(begin, begin + rows), axis=0, out=target, mode="wrap")


async def _wait_until(until_ns: int) -> None:
    if (left_ns := until_ns - time.perf_counter_ns()) > WAKE_EARLY_NS:
        await asyncio.sleep((left_ns - WAKE_EARLY_NS) / NS)
    time.sleep(max(0, until_ns - time.perf_counter_ns()) / NS)  # noqa: ASYNC251 - nothing else is under way, and the loop's clock is too coarse
