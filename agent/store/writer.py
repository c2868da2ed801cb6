"""The one thread that writes. Jobs that wait while the disk is busy share the next commit."""

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from agent.store.errors import StoreFailed, StoreFull
from agent.store.ledger import Ledger
from firmware_shims.clock import Clock

T = TypeVar("T")
Job = Callable[[Ledger], T]
Entry = tuple[Job[Any], asyncio.Future[Any]]
Answer = tuple[asyncio.Future[Any], Any, Exception | None]

FILE_FAILURES = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_READONLY,
    }
)


class GroupLost(Exception):  # noqa: N818 - stays in this file
    """In the middle of a job SQLite gave up the whole transaction, as it does on a full disk."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


class Writer:
    """Runs jobs on the ledger of `connection`, which is its own from here on. Used from one event loop.

    `last_commit_ns` and `busy_since_ns` (None when idle) are stamps of `clock`: a disk that hangs shows as
    an old `busy_since_ns`, a thread that died as `alive` False.
    """

    def __init__(self, connection: sqlite3.Connection, clock: Clock) -> None:
        self.last_commit_ns = clock()
        self.busy_since_ns: int | None = None
        self._clock = clock
        self._connection = connection
        self._ledger = Ledger(connection)
        self._queue: queue.SimpleQueue[Entry | None] = queue.SimpleQueue()
        self._gate = threading.Lock()
        self._open = True  # under the gate: False lets no more jobs into the queue
        self._ended = False  # under the gate: True means that nobody serves the queue any more
        self._closers: list[asyncio.Future[None]] = []
        self._thread = threading.Thread(target=self._serve, name="store", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread runs; without a fault it ends by `close` only."""
        return self._thread.is_alive()

    def run(self, job: Job[T]) -> asyncio.Future[T]:
        """Queue `job`; the future has its value once everything it did is on disk.

        A job that raises is rolled back alone and its exception is the future's. `StoreFailed` when nothing
        of a job is on disk for a reason outside it. A job touches nothing but the ledger: it is run again
        when another of its group cost the transaction. Cancelling the future does not take it back.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        with self._gate:
            if not self._open:
                raise StoreFailed("the store is closed, or its thread has died")
            self._queue.put((job, future))
        return future

    async def close(self) -> None:
        """Commit what is queued, then let go of the database. Waits for a disk that hangs: bound it outside."""
        closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        with self._gate:
            self._open = False
            if self._ended:
                closed.set_result(None)
            else:
                self._closers.append(closed)
                self._queue.put(None)
        await closed
        self._thread.join()  # it has nothing left to do

    def _serve(self) -> None:
        group: list[Entry] = []
        try:
            while group := self._take():
                self.busy_since_ns = self._clock()
                self._commit(group)
                self.busy_since_ns = None
        finally:
            self._connection.close()
            self._end(group)

    def _take(self) -> list[Entry]:
        """Everything that is queued, at least one; empty when the writer is to end."""
        taken = [self._queue.get()]
        taken += [self._queue.get() for _ in range(self._queue.qsize())]
        group = [entry for entry in taken if entry is not None]
        if group and len(group) < len(taken):
            self._queue.put(None)  # first these, then the end
        return group

    def _commit(self, group: Sequence[Entry]) -> None:
        answers: list[Answer] = []
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            answers.extend((future, *self._attempt(job)) for job, future in group)
            self._connection.execute("COMMIT")
            self.last_commit_ns = self._clock()
        except GroupLost as lost:
            if len(group) > 1:  # one job asked for too much; each alone, the others still fit
                for entry in group:
                    self._commit([entry])
                return
            answers = [(future, None, failure(lost.cause)) for _, future in group]
        except sqlite3.Error as error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            answers = [(future, None, failure(error)) for _, future in group]
        resolve(answers)

    def _attempt(self, job: Job[Any]) -> tuple[Any, Exception | None]:
        """What the job returned or raised; in the second case it has left no trace."""
        self._connection.execute("SAVEPOINT job")
        try:
            value = job(self._ledger)
        except Exception as error:
            if not self._connection.in_transaction:
                raise GroupLost(error) from error
            self._connection.execute("ROLLBACK TO job")
            self._connection.execute("RELEASE job")
            return None, failure(error) if primary_code(error) in FILE_FAILURES else error
        self._connection.execute("RELEASE job")
        return value, None

    def _end(self, unanswered: Sequence[Entry]) -> None:
        with self._gate:
            self._open = False
            self._ended = True
        lost = list(unanswered)
        while not self._queue.empty():
            entry = self._queue.get()
            if entry is not None:
                lost.append(entry)
        resolve([(future, None, StoreFailed("the store's thread has died")) for _, future in lost])
        resolve([(closer, None, None) for closer in self._closers])


def failure(error: Exception) -> StoreFailed:
    """`error` as the outcome of one job that is not on disk because of it."""
    kind = StoreFull if primary_code(error) == sqlite3.SQLITE_FULL else StoreFailed
    failed = kind(str(error))
    failed.__cause__ = error
    return failed


def primary_code(error: Exception) -> int | None:
    """SQLite's result code without its extension; None for what SQLite did not say."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def resolve(answers: Sequence[Answer]) -> None:
    """Hand all answers to their loop in one call."""
    if answers:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            answers[0][0].get_loop().call_soon_threadsafe(deliver, answers)


def deliver(answers: Sequence[Answer]) -> None:
    """On the loop: resolve the futures that are still waited for."""
    for future, value, error in answers:
        if future.done():  # cancelled
            continue
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)
