"""The store as the service sees it: open it, give it jobs, close it."""

import asyncio
import sqlite3
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from agent.store.database import connect, locked, one_line_refusals
from agent.store.facts import Facts
from agent.store.writer import Job, T, Writer
from firmware_shims.clock import Clock, boottime_ns


class Store:
    """A durable ledger that no loop ever waits for. `boot` counts the starts of the agent on it."""

    def __init__(self, connection: sqlite3.Connection, lock: TextIO, boot: int, clock: Clock) -> None:
        self.boot = boot
        self.writer = Writer(connection, clock)
        self._lock = lock

    @classmethod
    def open(cls, path: Path, *, max_bytes: int, clock: Clock = boottime_ns) -> Self:
        """The store at `path`, or `StoreUnusable`. Blocks for some milliseconds: call it before serving.

        `max_bytes` bounds the database; its write-ahead log adds about 4 MB.
        """
        with one_line_refusals(path), ExitStack() as undo:
            lock = undo.enter_context(locked(path))
            connection = connect(path, max_bytes)
            undo.callback(connection.close)
            boot = Facts(connection).next_boot()
            undo.pop_all()
        return cls(connection, lock, boot, clock)

    def run(self, job: Job[T]) -> asyncio.Future[T]:
        """Do `job` in a transaction; see `Writer.run`."""
        return self.writer.run(job)

    async def close(self) -> None:
        """Commit what is queued, then give the file free for another agent."""
        await self.writer.close()
        self._lock.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
