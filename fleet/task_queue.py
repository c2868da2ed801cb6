import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO, TypeVar

from fleet.queue_file import connect, locked, one_line_refusals
from fleet.queue_ledger import Ledger

T = TypeVar("T")
Step = Callable[[Ledger], T]
Entry = tuple[Step[Any], asyncio.Future[Any]]


class QueueFailed(Exception):  # noqa: N818 - reads as the outcome of a step
    """Nothing of this step is on disk: the disk or the file failed, or the queue is closed."""


class TaskQueue:
    """A durable ledger of tasks that no loop waits for: one thread writes, in groups. For one event loop.

    After the first failure everything fails: what is on disk stands, and the next start goes on from there.
    """

    def __init__(self, connection: sqlite3.Connection, lock: TextIO) -> None:
        self._connection = connection
        self._lock = lock
        self._ledger = Ledger(connection)
        self._thread = ThreadPoolExecutor(1, "queue")
        self._waiting: list[Entry] = []
        self._committing: asyncio.Future[list[Any]] | None = None
        self._ended = ""

    @classmethod
    def open(cls, path: Path) -> Self:
        """The queue at `path`, made where there is none, or `QueueUnusable`. Blocks for some milliseconds."""
        with one_line_refusals(path), ExitStack() as undo:
            lock = undo.enter_context(locked(path))
            connection = connect(path)
            undo.pop_all()
        return cls(connection, lock)

    def run(self, step: Step[T]) -> asyncio.Future[T]:
        """Do `step` in a transaction; the future has its value once everything it did is on disk.

        Steps are done in the order of the calls. One that raises costs its whole group, and the queue: it is
        a fault of the disk or of the program. Cancelling the future does not take the step back.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        if self._ended:
            future.set_exception(QueueFailed(self._ended))
            return future
        self._waiting.append((step, future))
        if self._committing is None:
            self._commit_waiting()
        return future

    async def close(self) -> None:
        """Commit what is waiting, then give the file free for another dispatcher."""
        while self._committing is not None:
            await asyncio.wait([self._committing])
        self._ended = self._ended or "the queue is closed"
        self._thread.shutdown()
        self._connection.close()
        self._lock.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _commit_waiting(self) -> None:
        group, self._waiting = self._waiting, []
        steps = [step for step, _ in group]
        self._committing = asyncio.get_running_loop().run_in_executor(self._thread, self._commit, steps)
        self._committing.add_done_callback(partial(self._committed, group))

    def _commit(self, steps: Sequence[Step[Any]]) -> list[Any]:
        """In the thread: all of them in one transaction."""
        with self._connection:  # commits, or rolls back when a step raises
            self._connection.execute("BEGIN IMMEDIATE")
            return [step(self._ledger) for step in steps]

    def _committed(self, group: Sequence[Entry], done: asyncio.Future[list[Any]]) -> None:
        self._committing = None
        error = done.exception()
        if error is not None:
            self._fail([*group, *self._waiting], error)
            return
        for (_, future), value in zip(group, done.result(), strict=True):
            if not future.done():  # else nobody waits for it any more
                future.set_result(value)
        if self._waiting:
            self._commit_waiting()

    def _fail(self, entries: Sequence[Entry], error: BaseException) -> None:
        self._waiting = []
        self._ended = f"the queue has failed: {error}"
        for _, future in entries:
            if not future.done():
                failed = QueueFailed(self._ended)
                failed.__cause__ = error
                future.set_exception(failed)
