"""Runs the open tasks row by row while the gate is open, and ends each in one of the ways a task can end.

Take the job first, then ask for permission, then touch the device. Rows are on disk as soon as they are done.
"""

import asyncio
import contextlib
import heapq
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from agent.guard import Guard
from agent.job import DONE, NS, Chunk, Ending, Job, Origin, Spending, packed
from agent.models import ModelCache, ModelUnavailableError
from agent.policy.verdict import Verdict
from agent.protocol.messages import TaskState
from agent.protocol.reasons import Reason, Refused
from agent.reports import Reports, utc_now
from agent.results import ResultWriter
from agent.station import GateShut, Loaded, Station
from agent.store import Ledger, Store, TaskEnded
from backends.group import Reaped
from backends.kernel import Cancelled, KernelError
from backends.process import RunDone, WorkerDied, WorkerProcess
from backends.slots import ArenaFull, Slot
from firmware_shims.clock import Clock
from firmware_shims.power import CpuModelMeter

log = logging.getLogger(__name__)
T = TypeVar("T")
Key = tuple[str, int]

LANES: Final = 4
"""Jobs of one backend under way at a time: the worker runs one while the others copy, commit and publish."""
BATCH_S: Final = 0.05
"""A batch is as many rows as are expected to take this long: what a kill in the middle may cost."""
FLUSH_NS: Final = NS
"""Rows of a long task leave in a result at least this often."""
WATCH_S: Final = 0.25
HUNG_FACTOR: Final = 10
HUNG_FLOOR_S: Final = 5.0
VEHICLE_SIDE: Final = 1000
CRASHES: Final = 2
"""A job whose rows were in the worker when it died by itself so often is refused: its model kills workers."""


@dataclass(slots=True, eq=False)
class Executor:
    """Owns the open jobs. Everything runs on the event loop; nothing here waits for the disk to go on."""

    stations: Sequence[Station]
    guard: Guard
    store: Store
    reports: Reports
    models: ModelCache
    meter: CpuModelMeter | None
    results: ResultWriter
    clock: Clock
    drain_s: float
    jobs: dict[Key, Job] = field(default_factory=dict)
    rows_done: int = 0
    row_s: dict[str, float] = field(default_factory=dict)
    """Measured seconds per row by model hash."""
    _queue: list[Job] = field(default_factory=list)
    _idle: deque[asyncio.Future[None]] = field(default_factory=deque)
    _running: set[Job] = field(default_factory=set)
    _inside: dict[Station, dict[Job, tuple[WorkerProcess, Slot] | None]] = field(default_factory=dict)
    """Jobs that the worker has in hand, in its order; with the slot of a run."""
    _has_jobs: asyncio.Event = field(default_factory=asyncio.Event)
    _quiet: asyncio.Event = field(default_factory=asyncio.Event)
    _broken: asyncio.Future[None] | None = None
    _winding_down: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """Whether any job is under way."""
        return bool(self._running)

    @property
    def winding_down(self) -> bool:
        """Whether workers are being ended for a cause that is not urgent."""
        return self._winding_down is not None

    @property
    def queued_s(self) -> float:
        """Seconds that the open work is expected to take, as far as its models have been measured."""
        return sum(job.left * self.row_s.get(job.task.model.sha256, 0.0) for job in self.jobs.values())

    async def run(self) -> None:
        """Work until cancelled. A store that fails ends it: what is not on disk is not done."""
        self._broken = asyncio.get_running_loop().create_future()
        self._quiet.set()
        try:
            async with asyncio.TaskGroup() as tasks:
                for station in self.stations:
                    for lane in range(LANES):
                        tasks.create_task(self._lane(station), name=f"lane-{station.name}-{lane}")
                tasks.create_task(self._watch(), name="watch-jobs")
                await self._broken
        finally:
            for station in self.stations:
                await station.close()
            if self._winding_down is not None:
                self._winding_down.cancel()

    def add(self, job: Job) -> None:
        """Queue a job that is on disk."""
        self.jobs[job.key] = job
        self._has_jobs.set()
        self._enqueue(job)
        self._warm()

    def end(self, job: Job, ending: Ending) -> None:
        """End a job for good: what is done goes out, its end is on disk before it is said."""
        if job.ended is not None or job.key not in self.jobs:
            return
        job.ended = ending
        del self.jobs[job.key]
        self._cancel_run(job)
        bodies = self.results.take(job, final=False)
        at = utc_now().timestamp()

        def record(ledger: Ledger) -> None:
            for body in bodies:
                ledger.emit(*job.key, body.begin, body.end, body.body, final=False)
            ledger.set_state(*job.key, ending.state, ending.code, ending.text, at=at)

        def say(_: None) -> None:
            for body in bodies:
                self.reports.result(body.body)
            answer = self.reports.event(job, ending)
            if answer is not None:
                answer.add_done_callback(lambda done: self._told(job.key, done))

        self._store(record, say)

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
            while self._idle:
                self._wake()
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

    def _enqueue(self, job: Job) -> None:
        heapq.heappush(self._queue, job)
        self._wake()

    def _wake(self) -> None:
        while self._idle:
            lane = self._idle.popleft()
            if not lane.done():
                lane.set_result(None)
                return

    def _warm(self) -> None:
        """Start workers while the car still settles, so that they are there when it is ready."""
        for station in self.stations:
            if self.jobs and self.guard.may_exist and station.pid is None and not station.pause_s:
                try:
                    station.start()
                except GateShut:
                    return

    def _pick(self, station: Station) -> Job | None:
        passed: list[Job] = []
        picked = None
        while self._queue and picked is None:
            job = heapq.heappop(self._queue)
            if job.ended is not None:
                continue
            if station.takes(job):
                picked = job
            elif any(other.takes(job) for other in self.stations):
                passed.append(job)
            else:
                text = f"no backend here runs {job.task.model.format.value} models as {job.task.backend or 'any'}"
                self.end(job, Ending(TaskState.FAILED, Reason.MODEL_UNSUPPORTED, text))
        for job in passed:
            heapq.heappush(self._queue, job)
        return picked

    # One job

    async def _lane(self, station: Station) -> None:
        while True:
            job = self._pick(station) if self.guard.verdict.allowed and not station.pause_s else None
            if job is None:
                await self._wait(station.pause_s)
                continue
            self._running.add(job)
            self._quiet.clear()
            try:
                await self._work(station, job)
            finally:
                self._running.discard(job)
                if not self._running:
                    self._quiet.set()
                    self.reports.state_changed()

    async def _wait(self, pause_s: float) -> None:
        """Wait for a job, for the gate to open, or for a pause to end."""
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._idle.append(woken)
        await asyncio.wait([woken], timeout=pause_s or None)
        woken.cancel()

    async def _work(self, station: Station, job: Job) -> None:
        self.reports.state_changed()
        try:
            path = await self.models.fetch(job.task.model.sha256)
            await station.ready()
            self._inside.setdefault(station, {})[job] = None
            loaded = await station.load(job, path)
            await self._rows(station, loaded, job)
        except (GateShut, Cancelled):
            self._pause(job)
        except WorkerDied as death:
            by_itself = await station.ended()
            self._after_death(job, death) if by_itself else self._pause(job)
        except (KernelError, ModelUnavailableError, Refused, ArenaFull) as error:
            self.end(job, _failure(error))
        finally:
            self._inside.get(station, {}).pop(job, None)

    async def _rows(self, station: Station, loaded: Loaded, job: Job) -> None:
        program, worker = loaded.program, loaded.worker
        self.results.begin(job, Origin(station.name, program.device, program.outputs))
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
        if not self.guard.verdict.allowed:
            raise GateShut
        inside = self._inside.setdefault(station, {})
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
        """Commit rows that are done; send them when the task is done, or when they have waited long enough."""
        self.results.check(job, chunk)
        job.keep(chunk)
        self.rows_done += chunk.end - chunk.begin
        final = not job.missing
        if not final and (limit := _limit_reached(job)) is not None:
            self.end(job, limit)
            return
        if final or self.clock() - job.flushed_ns > FLUSH_NS:
            self._emit(job, final=final)
            return
        outputs, account = packed(chunk, job.origin)
        self._store(
            lambda ledger: ledger.commit_rows(
                *job.key, chunk.begin, chunk.end, outputs=outputs, usage=account
            ),
            _nothing,
        )

    def _emit(self, job: Job, *, final: bool) -> None:
        bodies = self.results.take(job, final=final)
        job.flushed_ns = self.clock()
        if final:
            job.ended = DONE
            del self.jobs[job.key]

        def record(ledger: Ledger) -> None:
            for body in bodies:
                ledger.emit(*job.key, body.begin, body.end, body.body, final=body.final)

        def say(_: None) -> None:
            for body in bodies:
                self.reports.result(body.body, job)

        self._store(record, say)

    # How work stops

    def _pause(self, job: Job) -> None:
        """Put a job back: its rows stay done, it goes on by itself when the car is ready again."""
        if job.ended is not None:
            return
        if job.begun_ns is not None:
            blocker = next(iter(self.guard.verdict.blockers), None)
            code = blocker.reason if blocker else Reason.SETTLING
            ending = Ending(TaskState.PREEMPTED, code, f"{blocker.value}" if blocker else "")
            if job.pending:
                self._emit(job, final=False)
            job.state, job.begun_ns = TaskState.PREEMPTED, None
            at = utc_now().timestamp()
            self._store(
                lambda ledger: ledger.set_state(*job.key, TaskState.PREEMPTED, code, ending.text, at=at),
                lambda _: self._say_paused(job, ending),
            )
        self._enqueue(job)

    def _say_paused(self, job: Job, ending: Ending) -> None:
        if job.ended is None:
            self.reports.event(job, ending)

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

    # Leases and limits

    async def _watch(self) -> None:
        """End what has run out, renew what runs long."""
        while True:
            await self._has_jobs.wait()
            await asyncio.sleep(WATCH_S)
            if not self.jobs:
                self._has_jobs.clear()
            now_ns, now = self.clock(), utc_now()
            for job in list(self.jobs.values()):
                if now > job.task.expires_at:
                    self.end(
                        job, Ending(TaskState.EXPIRED, Reason.EXPIRED, f"expired at {job.task.expires_at}")
                    )
                elif now_ns > job.lease_end_ns:
                    text = f"the lease of {job.task.lease_s:g} s could not be renewed"
                    self.end(job, Ending(TaskState.EXPIRED, Reason.EXPIRED, text))
                elif job in self._running and job.begun_ns is not None:
                    self._renew(job, now_ns)

    def _renew(self, job: Job, now_ns: int) -> None:
        third_ns = int(job.task.lease_s * NS / 3)
        first_ns = (job.begun_ns or now_ns) + min(NS, third_ns)
        if now_ns < (job.said_ns + third_ns if job.state is TaskState.RUNNING else first_ns):
            return
        job.state = TaskState.RUNNING
        at = utc_now().timestamp()
        self._store(
            lambda ledger: ledger.set_state(*job.key, TaskState.RUNNING, at=at),
            lambda _: None if job.ended else self.reports.event(job),
        )

    # The store

    def _store(self, record: Callable[[Ledger], T], then: Callable[[T], object]) -> None:
        """Run `record` in the store, then `then` on the loop once it is on disk."""
        self.store.run(record).add_done_callback(lambda done: self._stored(done, then))

    def _stored(self, done: asyncio.Future[T], then: Callable[[T], object]) -> None:
        if done.cancelled():
            return
        error = done.exception()
        if error is None:
            then(done.result())
        elif isinstance(error, TaskEnded):
            log.info("%s", error)  # a newer attempt came in between
        elif self._broken is not None and not self._broken.done():
            self._broken.set_exception(error)

    def _told(self, key: Key, answer: asyncio.Future[None]) -> None:
        if not answer.cancelled() and answer.exception() is None:
            self._store(lambda ledger: ledger.told(*key), _nothing)


def _nothing(_: object) -> None:
    """Nothing follows."""


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
