"""Runs the open tasks row by row while the gate is open, and ends each in one of the ways a task can end.

Take the job first, then ask for permission, then touch the device. Rows are on disk as soon as they are done.
"""

import asyncio
import contextlib
import heapq
import logging
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from agent.guard import Guard
from agent.job import DONE, NS, Chunk, Ending, Job, Key, Origin, Spending
from agent.journal import Journal
from agent.models import ModelCache, ModelUnavailableError
from agent.pace import Pace
from agent.policy.shares import shares
from agent.policy.verdict import Verdict
from agent.protocol.messages import TaskState
from agent.protocol.reasons import Reason, Refused
from agent.station import GateShut, Loaded, Station
from backends.group import Reaped
from backends.kernel import Cancelled, KernelError
from backends.process import RunDone, WorkerDied, WorkerProcess
from backends.slots import ArenaFull, Slot
from firmware_shims.clock import Clock
from firmware_shims.power import CpuModelMeter

log = logging.getLogger(__name__)

LANES: Final = 4
"""Jobs of one backend under way at a time: the worker runs one while the others copy, commit and publish."""
BATCH_S: Final = 0.05
"""A batch is as many rows as are expected to take this long: what a kill in the middle may cost."""
HUNG_FACTOR: Final = 10
HUNG_FLOOR_S: Final = 5.0
VEHICLE_SIDE: Final = 1000
CRASHES: Final = 2
"""A job whose rows were in the worker when it died by itself so often is refused: its model kills workers."""


class Misplaced(Exception):  # noqa: N818 - an answer, not an error
    """Now that its devices are known, this backend is not the one for the job."""


@dataclass(slots=True, eq=False)
class Executor:
    """Owns the open jobs. Everything runs on the event loop; nothing here waits for the disk to go on."""

    stations: Sequence[Station]
    guard: Guard
    journal: Journal
    models: ModelCache
    meter: CpuModelMeter | None
    clock: Clock
    drain_s: float
    on_activity: Callable[[], None]
    """Called when work begins after a pause, and when nothing is under way any more."""
    jobs: dict[Key, Job] = field(default_factory=dict)
    rows_done: int = 0
    row_s: dict[str, float] = field(default_factory=dict)
    """Measured seconds per row by model hash."""
    has_jobs: asyncio.Event = field(default_factory=asyncio.Event)
    _queues: dict[Station, list[Job]] = field(default_factory=lambda: defaultdict(list))
    _idle: dict[Station, deque[asyncio.Future[None]]] = field(default_factory=lambda: defaultdict(deque))
    _running: set[Job] = field(default_factory=set)
    _inside: dict[Station, dict[Job, tuple[WorkerProcess, Slot] | None]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    """Jobs that the worker has in hand, in its order; with the slot of a run."""
    _quiet: asyncio.Event = field(default_factory=asyncio.Event)
    _winding_down: asyncio.Task[None] | None = None
    _paces: dict[Station, Pace] = field(init=False)

    def __post_init__(self) -> None:
        """Give each backend its share of the power budget."""
        self._paces = {
            station: Pace(partial(self._share, place)) for place, station in enumerate(self.stations)
        }

    def _share(self, place: int) -> float:
        """What the budget leaves for a backend; all of it where the gate, not the budget, decides."""
        verdict = self.guard.verdict
        needs_w = [station.settings.max_power_w for station in self.stations]
        return shares(needs_w, verdict.budget_w)[place] if verdict.allowed else 1.0

    @property
    def running(self) -> bool:
        """Whether any job is under way."""
        return bool(self._running)

    def is_running(self, job: Job) -> bool:
        """Whether rows of this job are being run."""
        return job in self._running and job.begun_ns is not None

    @property
    def winding_down(self) -> bool:
        """Whether workers are being ended for a cause that is not urgent."""
        return self._winding_down is not None

    @property
    def queued_s(self) -> float:
        """Seconds that the open work is expected to take, as far as its models have been measured."""
        return sum(job.left * self.row_s.get(job.task.model.sha256, 0.0) for job in self.jobs.values())

    async def run(self) -> None:
        """Work until cancelled."""
        self._quiet.set()
        try:
            async with asyncio.TaskGroup() as tasks:
                for station in self.stations:
                    for lane in range(LANES):
                        tasks.create_task(self._lane(station), name=f"lane-{station.name}-{lane}")
        finally:
            for station in self.stations:
                await station.close()
            if self._winding_down is not None:
                self._winding_down.cancel()

    def add(self, job: Job) -> None:
        """Queue a job that is on disk."""
        self.jobs[job.key] = job
        self.has_jobs.set()
        self._enqueue(job)
        self._warm()

    def end(self, job: Job, ending: Ending) -> None:
        """End a job for good, other than by its last row."""
        if job.ended is None and self.jobs.pop(job.key, None) is not None:
            self._cancel_run(job)
            self.journal.end(job, ending)

    def superseded(self, key: Key) -> None:
        """Forget a job that a newer attempt has ended on disk already."""
        job = self.jobs.pop(key, None)
        if job is not None:
            job.ended = Ending(TaskState.SUPERSEDED, Reason.STALE_ATTEMPT)
            self._cancel_run(job)

    def release_all(self, code: Reason, text: str) -> None:
        """Give every open job back to the fleet."""
        for job in list(self.jobs.values()):
            self.end(job, Ending(TaskState.RELEASED, code, text))

    def on_verdict(self, verdict: Verdict) -> None:
        """Follow a verdict; for urgent ones the guard has killed the workers already."""
        if verdict.allowed:
            self._wake_all()
        if self.guard.may_exist:
            self._warm()
        elif not verdict.urgent and self._winding_down is None:
            self._winding_down = asyncio.get_running_loop().create_task(self._wind_down(), name="wind-down")

    def on_reaped(self, station: Station, reaped: Reaped, by_itself: bool) -> None:
        """Blame the job that was first in the hands of a worker that died by itself."""
        inside = self._inside.pop(station, {})
        suspect = next(iter(inside), None)
        if by_itself and suspect is not None:
            suspect.crashes += 1
            log.warning("task %s was in the worker of %s when it died: %s", suspect.key, station.name, reaped)

    # The queue

    def _home(self, job: Job) -> Station | None:
        """The backend that runs a job: the one it names, else the first configured one that can."""
        return next((station for station in self.stations if station.takes(job)), None)

    def _enqueue(self, job: Job) -> None:
        home = self._home(job)
        if home is None:
            wish = job.task.backend or "any backend"
            text = f"no device here runs {job.task.model.format.value} models on {wish}"
            self.end(job, Ending(TaskState.FAILED, Reason.MODEL_UNSUPPORTED, text))
            return
        heapq.heappush(self._queues[home], job)
        self._wake(home)

    def _wake(self, station: Station) -> None:
        idle = self._idle[station]
        while idle:
            lane = idle.popleft()
            if not lane.done():
                lane.set_result(None)
                return

    def _wake_all(self) -> None:
        for station in self.stations:
            for _ in range(LANES):
                self._wake(station)

    def _warm(self) -> None:
        """Start workers while the car still settles, so that they are there when it is ready."""
        for station in self.stations:
            if self._queues[station] and self.guard.may_exist and station.pid is None and not station.pause_s:
                with contextlib.suppress(GateShut):
                    station.start()

    def _pick(self, station: Station) -> Job | None:
        queue = self._queues[station]
        while queue:
            job = heapq.heappop(queue)
            if job.ended is None:
                return job
        return None

    # One job

    async def _lane(self, station: Station) -> None:
        while True:
            job = self._pick(station) if self.guard.verdict.allowed and not station.pause_s else None
            if job is None:
                await self._wait(station)
                continue
            self._running.add(job)
            if self._quiet.is_set():
                self._quiet.clear()
                self.on_activity()
            try:
                await self._work(station, job)
            finally:
                self._running.discard(job)
                if not self._running:
                    self._quiet.set()
                    self.on_activity()

    async def _wait(self, station: Station) -> None:
        """Wait for a job, for the gate to open, or for a pause to end."""
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._idle[station].append(woken)
        if station.pause_s:
            asyncio.get_running_loop().call_later(station.pause_s, self._wake, station)
        await woken

    async def _work(self, station: Station, job: Job) -> None:
        try:
            loaded = station.loaded(job) or await self._load(station, job)
            await self._rows(station, loaded, job)
        except (GateShut, Cancelled):
            self._pause(job)
        except Misplaced:
            self._enqueue(job)
        except WorkerDied as death:
            by_itself = await station.ended()
            self._after_death(job, death) if by_itself else self._pause(job)
        except (KernelError, ModelUnavailableError, Refused, ArenaFull) as error:
            self.end(job, _failure(error))
        finally:
            self._inside[station].pop(job, None)

    async def _load(self, station: Station, job: Job) -> Loaded:
        path = await self.models.fetch(job.task.model.sha256)
        await station.ready()
        if self._home(job) is not station:
            raise Misplaced
        self._inside[station][job] = None
        return await station.load(job, path)

    async def _rows(self, station: Station, loaded: Loaded, job: Job) -> None:
        program, worker = loaded.program, loaded.worker
        self.journal.results.begin(job, Origin(station.name, program.device, program.outputs))
        order = [[tensor.name for tensor in job.task.inputs].index(tensor.name) for tensor in program.inputs]
        raws = [job.inputs[index] for index in order]
        if job.begun_ns is None:
            job.begun_ns = job.flushed_ns = self.clock()
        while job.missing and job.ended is None:
            begin, end = job.next_batch(self._batch_rows(job, loaded))
            with worker.slot(program, end - begin) as slot:
                for view, raw, tensor in zip(slot.inputs, raws, program.inputs, strict=True):
                    row_bytes = 0 if tensor.shared else len(raw) // job.total_rows
                    view[:] = raw[begin * row_bytes : end * row_bytes] if row_bytes else raw
                done = await self._run(station, worker, slot, job)
                outputs = tuple(bytes(view) for view in slot.outputs)
            if job.ended is None:
                self._keep(job, Chunk(begin, end, outputs, self._spending(done)))
        station.worked()

    async def _run(self, station: Station, worker: WorkerProcess, slot: Slot, job: Job) -> RunDone:
        async with self._paces[station].turn():
            return await self._run_now(station, worker, slot, job)

    async def _run_now(self, station: Station, worker: WorkerProcess, slot: Slot, job: Job) -> RunDone:
        if not self.guard.verdict.allowed:
            raise GateShut
        inside = self._inside[station]
        inside.pop(job, None)
        inside[job] = (worker, slot)
        row_s = self.row_s.get(job.task.model.sha256, 0.0)
        try:
            async with asyncio.timeout(HUNG_FLOOR_S + HUNG_FACTOR * LANES * row_s * slot.rows):
                done = await worker.run(slot)
        except TimeoutError:
            worker.kill()
            raise WorkerDied(-9, "the worker hung and was killed") from None
        inside.pop(job, None)
        run_s = (done.spent.end_ns - done.spent.begin_ns) / NS / slot.rows
        self.row_s[job.task.model.sha256] = 0.8 * row_s + 0.2 * run_s if row_s else run_s
        return done

    def _batch_rows(self, job: Job, loaded: Loaded) -> int:
        row_s = self.row_s.get(job.task.model.sha256) or loaded.program.cost.run_s.get(1, BATCH_S)
        wanted = max(1, int(BATCH_S / max(row_s, 1e-6)))
        return min(wanted, loaded.program.max_batch or wanted)

    def _spending(self, done: RunDone) -> Spending:
        wall_s = (done.spent.end_ns - done.spent.begin_ns) / NS
        energy_j = done.spent.joules
        if energy_j is None and self.meter is not None:
            energy_j = self.meter.active_j(done.cpu_s)
        return Spending(wall_s, wall_s, energy_j)

    def _keep(self, job: Job, chunk: Chunk) -> None:
        self.journal.keep(job, chunk)
        self.rows_done += chunk.end - chunk.begin
        if job.ended is DONE:
            del self.jobs[job.key]
        elif (limit := _limit_reached(job)) is not None:
            self.end(job, limit)

    # How work stops

    def _pause(self, job: Job) -> None:
        """Put a job back: its rows stay done, it goes on by itself when the car is ready again."""
        if job.ended is not None:
            return
        if job.begun_ns is not None:
            job.begun_ns = None
            blocker = next(iter(self.guard.verdict.blockers), None)
            code, text = (blocker.reason, str(blocker.value)) if blocker else (Reason.SETTLING, "")
            self.journal.pause(job, Ending(TaskState.PREEMPTED, code, text))
        self._enqueue(job)

    def _after_death(self, job: Job, death: WorkerDied) -> None:
        if job.crashes >= CRASHES:
            text = f"the worker died {job.crashes} times on this task: {death.text}"
            self.end(job, Ending(TaskState.FAILED, Reason.MODEL_INVALID, text))
        elif job.ended is None:
            self._enqueue(job)

    def _cancel_run(self, job: Job) -> None:
        for inside in self._inside.values():
            run = inside.get(job)
            if run is not None:
                worker, slot = run
                worker.cancel(slot)

    async def _wind_down(self) -> None:
        """For causes that are not urgent: cancel, let batches end, then end the workers; always to its end."""
        for job in self._running:
            self._cancel_run(job)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.drain_s):
                await self._quiet.wait()
        for station in self.stations:
            await station.close()
        self._winding_down = None
        self._warm()


def _failure(error: KernelError | ModelUnavailableError | Refused | ArenaFull) -> Ending:
    """Failures of the vehicle's side give the task back; only the others are held against it."""
    if isinstance(error, ArenaFull):
        return Ending(TaskState.RELEASED, Reason.OUT_OF_MEMORY, str(error))
    code = Reason(error.code if isinstance(error, KernelError) else error.reason)
    state = TaskState.FAILED if code < VEHICLE_SIDE else TaskState.RELEASED
    return Ending(state, code, error.text)


def _limit_reached(job: Job) -> Ending | None:
    limits = job.task.limits
    if limits.runtime_s is not None and job.device_s > limits.runtime_s:
        text = f"ran {job.device_s:.3g} s, limits.runtime_s is {limits.runtime_s:g} s"
        return Ending(TaskState.FAILED, Reason.LIMIT_RUNTIME, text)
    if limits.energy_j is not None and job.energy_j > limits.energy_j:
        text = f"used {job.energy_j:.3g} J, limits.energy_j is {limits.energy_j:g} J"
        return Ending(TaskState.FAILED, Reason.LIMIT_ENERGY, text)
    return None
