"""Runs the open tasks row by row while the gate is open, and ends each in one of the ways a task can end.

Take the job first, then ask for permission, then touch the device. Rows are on disk as soon as they are done.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from agent.batch import Batch, Part
from agent.endings import Failure, failure_of, homeless, limit_reached
from agent.guard import Guard
from agent.job import Chunk, Ending, Job, Key, Origin
from agent.journal import Journal
from agent.killers import Killers
from agent.model_files import NotCached
from agent.policy.verdict import Verdict
from agent.protocol.messages import TaskState
from agent.protocol.reasons import Reason, Refused
from agent.queue import Queue
from agent.runs import LANES, Errand, Runs
from agent.station import GateShut, Loaded, Station
from agent.supplies import Shortage, Supplies
from backends.group import Reaped
from backends.kernel import Cancelled, KernelError
from backends.process import WorkerDied
from backends.slots import ArenaFull
from firmware_shims.clock import Clock


class Misplaced(Exception):  # noqa: N818 - an answer, not an error
    """Now that its devices are known, this backend is not the one for the job."""


@dataclass(slots=True, eq=False)
class Executor:
    """Owns the open jobs. Everything runs on the event loop; nothing here waits for the disk to go on."""

    stations: Sequence[Station]
    guard: Guard
    runs: Runs
    journal: Journal
    supplies: Supplies
    killers: Killers
    clock: Clock
    drain_s: float
    on_activity: Callable[[], None]
    """Called when work begins after a pause, and when nothing is under way any more."""
    jobs: dict[Key, Job] = field(default_factory=dict)
    rows_done: int = 0
    has_jobs: asyncio.Event = field(default_factory=asyncio.Event)
    _queues: dict[Station, Queue] = field(default_factory=lambda: defaultdict(Queue))
    _running: set[Job] = field(default_factory=set)
    _quiet: asyncio.Event = field(default_factory=asyncio.Event)
    _winding_down: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """Whether any job is under way."""
        return bool(self._running)

    def busy_since_ns(self, job: Job) -> int | None:
        """When its rows began to run, or what it lacks to be fetched; None while it waits."""
        return job.begun_ns if job in self._running else self.supplies.since_ns(job)

    @property
    def idles(self) -> bool:
        """Whether a job could run and nothing is in any worker's hands. Of this moment: it may be between two runs."""
        waits = self._running or any(
            self._may_run(each) and self._queues[each].first for each in self.stations
        )
        return bool(waits) and self.guard.verdict.allowed and not self.runs.under_way

    @property
    def winding_down(self) -> bool:
        """Whether workers are being ended for a cause that is not urgent."""
        return self._winding_down is not None

    @property
    def queued_s(self) -> float:
        """Seconds that the open work is expected to take, as far as its models have been measured."""
        row_s: dict[tuple[str, str | None], float] = {}
        queued_s = 0.0
        for job in self.jobs.values():
            kind = job.program, job.task.backend
            if kind not in row_s:
                row_s[kind] = self.row_s(job) or 0.0
            queued_s += job.left * row_s[kind]
        return queued_s

    def row_s(self, job: Job) -> float | None:
        """Measured seconds of one row of a job; None where its model has not run here yet."""
        home = self._home(job)
        return self.runs.costs.row_s(job.program, home.name) if home else None

    async def run(self) -> None:
        """Work until cancelled."""
        self._quiet.set()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.supplies.run(), name="supplies")
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
            self.runs.cancel(job)
            self.journal.end(job, ending)
            self.supplies.forget(job)

    def superseded(self, key: Key) -> None:
        """Forget a job that a newer attempt has ended on disk already."""
        job = self.jobs.pop(key, None)
        if job is not None:
            job.ended = Ending(TaskState.SUPERSEDED, Reason.STALE_ATTEMPT)
            self.journal.on_ended(job.ended)
            self.runs.cancel(job)
            self.supplies.forget(job)

    def release_all(self, code: Reason, text: str) -> None:
        """Give every open job back to the fleet."""
        for job in list(self.jobs.values()):
            self.end(job, Ending(TaskState.RELEASED, code, text))

    def on_verdict(self, verdict: Verdict) -> None:
        """Follow a verdict; for urgent ones the guard has killed the workers already."""
        self.supplies.follow()
        if not self.guard.may_exist:
            for job in self.jobs.values():
                if job.state is TaskState.RUNNING and job not in self._running:
                    self._pause(job)
        if verdict.allowed:
            self._wake_all()
        if self.guard.may_exist:
            self._warm()
        elif not verdict.urgent and self._winding_down is None:
            self._winding_down = asyncio.get_running_loop().create_task(self._wind_down(), name="wind-down")

    def on_room(self) -> None:
        """Go on: what was done is on disk now."""
        self._wake_all()

    def on_reaped(self, station: Station, reaped: Reaped, by_itself: bool) -> None:
        """Blame what was first in the hands of a worker that died by itself."""
        suspects = self.runs.suspects(station)
        if by_itself and suspects:
            self.killers.blame(suspects, station.name, reaped)

    # The queue

    def _home(self, job: Job) -> Station | None:
        """The backend that runs a job: the one it names, else the first configured one that can."""
        return next((station for station in self.stations if station.takes(job)), None)

    def _enqueue(self, job: Job) -> None:
        home = self._home(job)
        if home is None:
            self.end(job, homeless(job, self.stations))
            return
        if self.supplies.suffice(job) or (home.loaded(job) and not job.awaits_inputs):
            self._queues[home].push(job)
        else:
            self.supplies.want(job, self._supplied)

    def _supplied(self, job: Job, shortage: Shortage | None) -> None:
        if shortage is not None:
            self.end(job, failure_of(shortage))
        elif job.ended is None:
            self._enqueue(job)
            self._warm()

    def _wake_all(self) -> None:
        for station in self.stations:
            for _ in range(LANES):
                self._queues[station].wake()

    def _warm(self) -> None:
        """Start workers while the car still settles, so that they are there when it is ready."""
        for station in self.stations:
            waits = self._queues[station].first is not None
            if waits and self.guard.may_exist and station.pid is None and not station.pause_s:
                with contextlib.suppress(GateShut):
                    station.start()

    def _may_run(self, station: Station) -> bool:
        return self.guard.verdict.allowed and not station.pause_s and not self.journal.stuck

    # A crew: jobs of one program whose rows share batches

    async def _lane(self, station: Station) -> None:
        while True:
            job = self._queues[station].pop() if self._may_run(station) else None
            if job is None:
                await self._queues[station].news(within_s=station.pause_s)
                continue
            crew = [job]
            self._running.add(job)
            if self._quiet.is_set():
                self._quiet.clear()
                self.on_activity()
            try:
                await self._work(station, crew)
            finally:
                self._running.difference_update(crew)
                if not self._running:
                    self.runs.costs.write()
                    self._quiet.set()
                    self.on_activity()

    async def _work(self, station: Station, crew: list[Job]) -> None:
        """Run jobs of one program until none of them has rows left; others of it may join."""
        try:
            with station.holding(crew[0]):
                loaded = station.loaded(crew[0]) or await self._load(station, crew[0])
                await self._rows(station, loaded, crew)
        except (GateShut, Cancelled):
            self._put_back(crew)
        except (Misplaced, NotCached):
            self._enqueue(crew[0])
        except WorkerDied as death:
            by_itself = await station.ended()
            self._after_death(station, crew, death) if by_itself else self._put_back(crew)
        except (KernelError, Refused, ArenaFull) as error:
            self._fail(crew, error)

    async def _load(self, station: Station, job: Job) -> Loaded:
        await station.ready()
        if self._home(job) is not station:
            raise Misplaced
        with (
            self.supplies.models.held(job.task.model.sha256) as path,
            self.runs.errand(station, Errand([job])),
        ):
            return await self.runs.load(station, job, path)

    async def _rows(self, station: Station, loaded: Loaded, crew: list[Job]) -> None:
        self._begin(crew[0], station, loaded)
        while self._goes_on(station, crew):
            batch = Batch(loaded.program, self._parts(station, loaded, crew))
            with loaded.worker.slot(loaded.program, batch.rows) as slot:
                batch.fill(slot)
                spending = await self.runs.run(station, loaded, slot, batch)
                chunks = list(batch.split(slot, spending))
            for job, chunk in chunks:
                self._keep(job, chunk)
            self.killers.worked(chunks[0][0].task.model.sha256)
        station.worked()
        for job in crew:
            self._enqueue(job)

    def _begin(self, job: Job, station: Station, loaded: Loaded) -> None:
        """Raises Refused where a row of this job's outputs does not fit into a message."""
        program = loaded.program
        self.journal.results.begin(job, Origin(station.name, program.device, program.outputs))
        if job.begun_ns is None:
            job.begun_ns = job.flushed_ns = self.clock()

    def _parts(self, station: Station, loaded: Loaded, crew: list[Job]) -> list[Part]:
        """The next rows of the crew, filled up to a batch with jobs that wait for the same program."""
        left = self.runs.batch_rows(station, loaded, crew[0])
        parts = []
        for job in crew:
            if left > 0:
                parts.append(Part(job, *job.next_batch(left)))
                left -= parts[-1].end - parts[-1].begin
        while left > 0 and (recruit := self._recruit(station, loaded, crew)) is not None:
            parts.append(Part(recruit, *recruit.next_batch(left)))
            left -= parts[-1].end - parts[-1].begin
        return parts

    def _recruit(self, station: Station, loaded: Loaded, crew: list[Job]) -> Job | None:
        """The next job of the queue, if its rows can share a run with those of the crew."""
        job = self._queues[station].first
        shares = not any(tensor.shared for tensor in loaded.program.inputs)
        if job is None or not shares or job.program != crew[0].program or job.alone or crew[0].alone:
            return None
        self._queues[station].pop()
        crew.append(job)
        self._running.add(job)
        try:
            self._begin(job, station, loaded)
        except Refused as error:
            self.end(job, failure_of(error))
            self._dismiss([job], crew)
            return None
        return job

    def _dismiss(self, jobs: Sequence[Job], crew: list[Job]) -> None:
        for job in jobs:
            crew.remove(job)
            self._running.discard(job)

    def _goes_on(self, station: Station, crew: list[Job]) -> bool:
        """Whether somebody of the crew has rows left, rows can be kept, and nobody of larger priority waits."""
        self._dismiss([job for job in crew if job.ended is not None], crew)
        if not crew or self.journal.stuck:
            return False
        first = self._queues[station].first
        return first is None or first.task.priority <= crew[0].task.priority

    def _keep(self, job: Job, chunk: Chunk) -> None:
        if job.ended is not None:
            return
        try:
            self.journal.keep(job, chunk)
        except Refused as error:
            self.end(job, failure_of(error))
            return
        self.rows_done += chunk.end - chunk.begin
        if not job.missing:
            del self.jobs[job.key]
        elif (limit := limit_reached(job)) is not None:
            self.end(job, limit)

    # How work stops

    def _put_back(self, crew: Sequence[Job]) -> None:
        """Rows that are done stay done; the jobs go on by themselves when the car is ready again."""
        for job in crew:
            if job.ended is not None:
                continue
            if job.begun_ns is not None:
                self._pause(job)
            self._enqueue(job)

    def _pause(self, job: Job) -> None:
        blocker = next(iter(self.guard.verdict.blockers), None)
        if blocker is not None:
            job.begun_ns = None
            self.journal.pause(job, Ending(TaskState.PREEMPTED, blocker.reason, str(blocker.value)))

    def _after_death(self, station: Station, crew: Sequence[Job], death: WorkerDied) -> None:
        """Try again, unless it is known by now that the model or the backend is at fault."""
        for job in crew:
            if job.ended is not None:
                continue
            ending = self.killers.ending(job, station.deaths, death)
            if ending is not None:
                self.end(job, ending)
            else:
                self._enqueue(job)

    def _fail(self, crew: Sequence[Job], error: Failure) -> None:
        """End a job that failed by itself; of several that ran together each is tried alone."""
        if len(crew) == 1:
            self.end(crew[0], failure_of(error))
            return
        for job in crew:
            job.alone = True
            if job.ended is None:
                self._enqueue(job)

    async def _wind_down(self) -> None:
        """For causes that are not urgent: cancel, let batches end, then end the workers; always to its end."""
        for job in self._running:
            self.runs.cancel(job)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.drain_s):
                await self._quiet.wait()
        for station in self.stations:
            await station.close()
        self._winding_down = None
        self._warm()
