"""The one thread that writes. Jobs that wait while the disk is busy share the next commit."""

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any, Final

from agent.store.ballast import Ballast
from agent.store.errors import StoreClosed, StoreFailed, StoreFull, is_full, primary_code
from agent.store.ledger import Ledger
from agent.store.waiting import Entry, Job, T, Waiting
from firmware_shims.clock import Clock

Answer = tuple[asyncio.Future[Any], Any, Exception | None]
CLOSED: Final = "the store is closed, or its thread has died"

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

    `commits` counts transactions. `last_commit_ns` and `busy_since_ns` (None when idle) are stamps of `clock`: a
    disk that hangs shows as an old `busy_since_ns`, a thread that died as `alive` False.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path, ballast: Ballast, clock: Clock) -> None:
        self.path = path
        self.commits = 0
        self.last_commit_ns = clock()
        self.busy_since_ns: int | None = None
        self.on_stuck: Callable[[bool], None] = lambda _: None
        """Called in the writer's thread when owed jobs begin to wait for room, and when all of them are done."""
        self._clock = clock
        self._connection = connection
        self._ballast = ballast
        self._ledger = Ledger(connection)
        self._waiting = Waiting(clock)
        self._stuck = False
        self._in_hand: Sequence[Entry] = ()
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

    @property
    def queued(self) -> int:
        """How many jobs nobody has begun with."""
        return self._queue.qsize()

    @property
    def stuck(self) -> bool:
        """Whether owed jobs wait for room, as `on_stuck` was told: whoever rests for it is told when to go on."""
        return self._stuck

    @property
    def waiting(self) -> int:
        """How many owed jobs wait for room."""
        return len(self._waiting)

    def run(self, job: Job[T]) -> asyncio.Future[T]:
        """Queue `job`; the future has its value once everything it did is on disk.

        A job that raises is rolled back alone and its exception is the future's. `StoreFailed` when nothing
        of a job is on disk for a reason outside it. A job touches nothing but the ledger: it is run again
        when another of its group cost the transaction. Cancelling the future does not take it back.
        """
        return self._put(job, None)

    def owe(self, job: Job[T], lane: Hashable) -> asyncio.Future[T]:
        """Queue `job` as `run` does, but where there is no room it waits, behind those of its lane, until there is.

        Its future never has `StoreFull`: when the store is closed before there is room it has `StoreClosed`.
        """
        return self._put(job, lane)

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

    def _put(self, job: Job[T], lane: Hashable | None) -> asyncio.Future[T]:
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        with self._gate:
            if not self._open:
                raise StoreClosed(CLOSED)
            self._queue.put(Entry(job, future, lane))
        return future

    def _serve(self) -> None:
        try:
            while (group := self._take()) is not None:
                self.busy_since_ns = self._clock()
                self._in_hand = group
                if group:
                    self._commit(group)
                if self._waiting.wait_s == 0:
                    self._try_again()
                self._in_hand = ()
                self._tell_stuck()
                self.busy_since_ns = None
            self._try_again()
            self._in_hand = ()
        finally:
            self._connection.close()
            self._end()

    def _take(self) -> list[Entry] | None:
        """Everything that is queued; empty when those that wait are due, None when the writer is to end."""
        try:
            taken = [self._queue.get(timeout=self._waiting.wait_s)]
        except queue.Empty:
            return []
        taken += [self._queue.get() for _ in range(self._queue.qsize())]
        group = [entry for entry in taken if entry is not None]
        if len(group) < len(taken):
            if not group:
                return None
            self._queue.put(None)  # first these, then the end
        return group

    def _try_again(self) -> None:
        if waiting := self._waiting.take():
            self._in_hand = waiting
            self._commit(waiting)
            self._waiting.tried(len(waiting))

    def _commit(self, group: Sequence[Entry]) -> None:
        """Do a group in one transaction; where that fails, and one of them may be to blame, each in its own."""
        self._ledger.room.shut = self._why_shut()
        try:
            self._begin()
            answers, left = self._attempt_all(group)
            self._connection.execute("COMMIT")
        except (GroupLost, sqlite3.Error) as error:
            self._give_up(group, error)
            return
        self.commits += 1
        self.last_commit_ns = self._clock()
        for entry in left:
            self._waiting.add(entry)
        if self._waiting and sum(entry.lane is not None for entry in group) > len(left):
            self._waiting.hurry()
        resolve(answers)

    def _give_up(self, group: Sequence[Entry], error: GroupLost | sqlite3.Error) -> None:
        """Nothing of a group is on disk: take it apart, make room for it, let it wait or fail it."""
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        cause = error.cause if isinstance(error, GroupLost) else error
        full = is_full(cause)
        made_room = full and self._ballast.give_back()
        if len(group) > 1 and (full or isinstance(error, GroupLost)):
            for entry in group:
                self._commit([entry])
            return
        if made_room:
            self._commit(group)
            return
        if full and group[0].lane is not None:
            self._waiting.add(group[0])
            return
        resolve([(entry.future, None, self._failure(cause)) for entry in group])

    def _begin(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        self._ledger.room.look_again()

    def _attempt_all(self, group: Sequence[Entry]) -> tuple[list[Answer], list[Entry]]:
        """The answers, and what is left because there is no room for it or for another before it in its lane.

        Where nobody fails, nobody needs a savepoint: two statements a job less.
        """
        if not self._waiting:
            try:
                return [(entry.future, entry.job(self._ledger), None) for entry in group], []
            except Exception as error:  # it comes again, and is told to whoever gave the job
                if not self._connection.in_transaction:
                    raise GroupLost(error) from error
                self._connection.execute("ROLLBACK")
                self._begin()
        return self._attempt_each(group)

    def _attempt_each(self, group: Sequence[Entry]) -> tuple[list[Answer], list[Entry]]:
        answers: list[Answer] = []
        left: list[Entry] = []
        full = self._waiting.lanes
        for entry in group:
            if entry.lane is not None and entry.lane in full:
                left.append(entry)
                continue
            value, error = self._attempt(entry.job)
            if entry.lane is not None and isinstance(error, StoreFull):
                full.add(entry.lane)
                left.append(entry)
            else:
                answers.append((entry.future, value, error))
        return answers, left

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
            return None, self._failure(error) if primary_code(error) in FILE_FAILURES else error
        self._connection.execute("RELEASE job")
        return value, None

    def _why_shut(self) -> str:
        """Why no new task is taken, whatever `store.max_bytes` says; empty where nothing stands against it."""
        if self._waiting:
            return "results wait for room on this car's disk"
        if self._ballast.missing:
            return self._ballast.why_missing
        return ""

    def _tell_stuck(self) -> None:
        stuck = bool(self._waiting)
        if stuck is not self._stuck:
            self._stuck = stuck
            self.on_stuck(stuck)

    def _failure(self, error: Exception) -> StoreFailed:
        """`error` as the outcome of one job that is not on disk because of it."""
        failed = StoreFailed.by(self.path, error)
        failed.__cause__ = error
        return failed

    def _end(self) -> None:
        with self._gate:
            self._open = False
            self._ended = True
        lost = list(self._in_hand)
        while not self._queue.empty():
            entry = self._queue.get()
            if entry is not None:
                lost.append(entry)
        closed = StoreClosed("the store was closed before there was room")
        resolve([(entry.future, None, closed) for entry in self._waiting.take()])
        resolve([(entry.future, None, StoreFailed("the store's thread has died")) for entry in lost])
        resolve([(closer, None, None) for closer in self._closers])


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
