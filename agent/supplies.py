"""What a job needs before it can run: its model in the cache, and its inputs here.

Jobs wait for it outside of the queue, so that a slow server keeps nobody else from running. While work is blocked
nothing is fetched; what has arrived by then stays.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from agent.guard import Guard
from agent.inputs import Inputs
from agent.job import Job
from agent.models import ModelCache, ModelUnavailableError
from agent.protocol.reasons import Refused
from firmware_shims.clock import Clock

Shortage = ModelUnavailableError | Refused
Supplied = Callable[[Job, Shortage | None], None]
"""Called when a job has what it needs, or will not get it."""


@dataclass(frozen=True, slots=True)
class _Errand:
    """A job for which something is being fetched."""

    task: asyncio.Task[None]
    since_ns: int


@dataclass(slots=True, eq=False)
class Supplies:
    """Sends for what is missing as long as a worker may exist. Lives on the event loop."""

    models: ModelCache
    inputs: Inputs
    guard: Guard
    clock: Clock
    _waiting: dict[Job, Supplied] = field(default_factory=dict)
    _errands: dict[Job, _Errand] = field(default_factory=dict)
    _tasks: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Fetch until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            self._go_on()
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                self._tasks = None

    def suffice(self, job: Job) -> bool:
        """Whether the job has what it needs."""
        return self.models.has(job.task.model.sha256) and not job.awaits_inputs

    def want(self, job: Job, supplied: Supplied) -> None:
        """Get what the job lacks, as soon as the car allows it."""
        self._waiting[job] = supplied
        self._go_on()

    def follow(self) -> None:
        """Follow a verdict: the network rests while the owner has the car, and the memory is his."""
        if self.guard.may_exist:
            self._go_on()
        else:
            for errand in self._errands.values():
                errand.task.cancel()
            self.inputs.shed()

    def forget(self, job: Job) -> None:
        """Stop fetching for a job that has ended, and give back what was fetched."""
        self._waiting.pop(job, None)
        if (errand := self._errands.get(job)) is not None:
            errand.task.cancel()
        self.inputs.forget(job)
        if job.task.inputs_url is not None:
            job.inputs = []

    def since_ns(self, job: Job) -> int | None:
        """When a fetch for this job began, None while there is none."""
        errand = self._errands.get(job)
        return errand.since_ns if errand is not None else None

    def _go_on(self) -> None:
        if self._tasks is None or not self.guard.may_exist:
            return
        for job, supplied in self._waiting.items():
            task = self._tasks.create_task(self._supply(job, supplied), name=f"supply-{job.task.id}")
            self._errands[job] = _Errand(task, self.clock())
            task.add_done_callback(partial(self._ended, job, supplied))
        self._waiting.clear()

    async def _supply(self, job: Job, supplied: Supplied) -> None:
        shortage: Shortage | None = None
        try:
            if not self.models.has(job.task.model.sha256):
                await self.models.fetch(job.task.model.sha256)
            if job.awaits_inputs:
                job.inputs = await self.inputs.fetch(job)
        except (ModelUnavailableError, Refused) as error:
            shortage = error
        del self._errands[job]
        supplied(job, shortage)

    def _ended(self, job: Job, supplied: Supplied, task: asyncio.Task[None]) -> None:
        """Put a job back whose fetch was cancelled: unless it has ended, it goes on when the car allows it."""
        errand = self._errands.get(job)
        if errand is not None and errand.task is task:
            del self._errands[job]
            if job.ended is None:
                self.want(job, supplied)
