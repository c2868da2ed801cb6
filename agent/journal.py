"""What happens to a job: on disk first, then said to the fleet."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from agent.job import DONE, NS, Chunk, Ending, Job, Key, packed
from agent.protocol.messages import TaskState
from agent.reports import Reports, utc_now
from agent.results import ResultBody, ResultWriter
from agent.store import Ledger, Store, StoreClosed, StoreFull, TaskEnded
from agent.store.spent import Spent
from firmware_shims.clock import Clock

log = logging.getLogger(__name__)
T = TypeVar("T")
FLUSH_NS = NS
"""Rows of a long task leave in a result at least this often."""


@dataclass(frozen=True, slots=True)
class Journal:
    """Records in the store without waiting for it: what belongs to one task is done in the order it is given.

    Where there is no room on disk it waits in memory, and no more rows should be run meanwhile: see `stuck`.
    """

    store: Store
    reports: Reports
    results: ResultWriter
    clock: Clock
    on_error: Callable[[BaseException], None]
    """What is not on disk is not done: called when the store fails."""
    on_rows: Callable[[Job, Chunk], None] = lambda _job, _chunk: None
    """Called for rows that are done, as they came from the device."""
    on_ended: Callable[[Ending], None] = lambda _: None
    """Called once for each job that ends."""

    @property
    def stuck(self) -> bool:
        """Whether something that is owed waits for room on disk."""
        return self.store.writer.stuck

    def keep(self, job: Job, chunk: Chunk) -> None:
        """Commit rows that are done. They leave with the last row, or when they have waited long enough.

        Raises Refused when they were asked for in a form that they do not have.
        """
        self.results.check(job, chunk)
        job.keep(chunk)
        self.on_rows(job, chunk)
        if not job.missing:
            job.ended = DONE
            self._emit(job, final=True)
            self.on_ended(DONE)
        elif self.clock() - job.flushed_ns > FLUSH_NS:
            self._emit(job, final=False)
        else:
            self._hold(job, chunk)

    def running(self, job: Job) -> None:
        """Say that a job lasts; a positive answer renews its lease."""
        job.state = TaskState.RUNNING
        self._set_state(job, Ending(TaskState.RUNNING, None))

    def pause(self, job: Job, ending: Ending) -> None:
        """Send the rows that are done, and say why there are no more for now."""
        job.state = ending.state
        if job.pending:
            self._emit(job, final=False)
        self._set_state(job, ending)

    def end(self, job: Job, ending: Ending) -> None:
        """End a job other than by its last row: what is done goes out, then its end."""
        job.ended = ending
        self.on_ended(ending)
        self._emit(job, final=False)
        at = utc_now().timestamp()

        def say(_: None) -> None:
            answer = self.reports.event(job, ending)
            if answer is not None:
                answer.add_done_callback(lambda done: self._told(job, done))

        self._store(
            job, lambda ledger: ledger.set_state(*job.key, ending.state, ending.code, ending.text, at=at), say
        )

    def _set_state(self, job: Job, ending: Ending) -> None:
        at = utc_now().timestamp()

        def say(_: None) -> None:
            if job.ended is None:
                self.reports.event(job, ending)

        self._store(
            job, lambda ledger: ledger.set_state(*job.key, ending.state, ending.code, ending.text, at=at), say
        )

    def _emit(self, job: Job, *, final: bool) -> None:
        """Put what is done into the outbox, each result by itself: what fits leaves, and is room once it is settled."""
        job.flushed_ns = self.clock()
        for body in self.results.take(job, final=final):
            emit = partial(_emit, job.key, body, utc_now().timestamp())
            self._store(job, emit, partial(self._say_result, job, body))

    def _say_result(self, job: Job, body: ResultBody, _: int) -> None:
        self.reports.result(body.body, job)

    def _hold(self, job: Job, chunk: Chunk) -> None:
        """Commit rows, so that a restart need not run them again; where there is no room for that they leave now."""
        outputs, account = packed(chunk, job.origin)

        def held(done: asyncio.Future[None]) -> None:
            if not done.cancelled() and isinstance(done.exception(), StoreFull):
                self._emit(job, final=False)
            else:
                self._stored(done, lambda _: None)

        self.store.run(
            lambda ledger: ledger.commit_rows(
                *job.key, chunk.begin, chunk.end, outputs=outputs, usage=account
            )
        ).add_done_callback(held)

    def _told(self, job: Job, answer: asyncio.Future[None]) -> None:
        if not answer.cancelled() and answer.exception() is None:
            self._store(job, lambda ledger: ledger.told(*job.key))

    def _store(
        self, job: Job, record: Callable[[Ledger], T], then: Callable[[T], object] = lambda _: None
    ) -> None:
        self.store.owe(record, lane=job.key).add_done_callback(lambda done: self._stored(done, then))

    def _stored(self, done: asyncio.Future[T], then: Callable[[T], object]) -> None:
        if done.cancelled():
            return
        error = done.exception()
        if error is None:
            then(done.result())
        elif isinstance(error, TaskEnded | StoreClosed):
            log.info("%s", error)  # a newer attempt came in between, or the next start does it again
        else:
            self.on_error(error)


def _emit(key: Key, body: ResultBody, at: float, ledger: Ledger) -> int:
    result = ledger.emit(*key, body.begin, body.end, body.body, final=body.final)
    took = body.spending
    spent = Spent(took.source.value, body.end - body.begin, took.device_s, took.energy_j, at)
    ledger.spent.add(result, spent)
    return result
