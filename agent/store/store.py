"""The store as the service sees it: open it, give it jobs, close it."""

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable, Hashable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from agent.store.aside import kept
from agent.store.ballast import Ballast
from agent.store.database import connect, locked, one_line_refusals, sign, used_before
from agent.store.errors import StoreDamaged, is_full
from agent.store.facts import Facts
from agent.store.notes import Notes
from agent.store.salvage import NOTE, replace_damaged
from agent.store.waiting import Job, T
from agent.store.writer import Writer
from firmware_shims.clock import Clock, boottime_ns

log = logging.getLogger(__name__)


class Store:
    """A durable ledger that no loop ever waits for. `boot` counts the starts of the agent on it.

    `salvage` says what became of a store that was broken, for as long as that lies beside this one.
    """

    def __init__(self, writer: Writer, ballast: Ballast, lock: TextIO, boot: int, salvage: str) -> None:
        self.boot = boot
        self.salvage = salvage
        self.ballast = ballast
        self.writer = writer
        self._lock = lock

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        max_bytes: int,
        ballast_bytes: int = 0,
        clock: Clock = boottime_ns,
        wall: Callable[[], float] = time.time,
    ) -> Self:
        """The store at `path`, or `StoreUnusable`. Blocks for some milliseconds: call it before serving.

        `max_bytes` bounds the database; its write-ahead log adds about 4 MB, and the ballast its own size. A
        broken store is set aside and replaced by one with what could be read of it: that may take seconds.
        """
        with one_line_refusals(path), ExitStack() as undo:
            lock = undo.enter_context(locked(path))
            ballast = Ballast(path.with_name(path.name + ".ballast"), ballast_bytes)
            try:
                connection, boot = _begun(path, max_bytes, lock, wall)
            except (sqlite3.Error, OSError) as error:
                if not (is_full(error) and ballast.give_back()):
                    raise
                connection, boot = _begun(path, max_bytes, lock, wall)
            undo.callback(connection.close)
            ballast.lay()
            told = Notes(connection).read(NOTE) if kept(path) else None
            undo.pop_all()
        return cls(Writer(connection, path, ballast, clock), ballast, lock, boot, (told or b"").decode())

    def run(self, job: Job[T]) -> asyncio.Future[T]:
        """Do `job` in a transaction; see `Writer.run`."""
        return self.writer.run(job)

    def owe(self, job: Job[T], lane: Hashable) -> asyncio.Future[T]:
        """Do `job` in a transaction as soon as there is room for it; see `Writer.owe`."""
        return self.writer.owe(job, lane)

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


def _begun(
    path: Path, max_bytes: int, lock: TextIO, wall: Callable[[], float]
) -> tuple[sqlite3.Connection, int]:
    """A store that has counted this start."""
    connection, salvaged = _whole(path, max_bytes, lock, wall)
    try:
        if salvaged:
            Notes(connection).write(NOTE, salvaged.encode())
        boot = Facts(connection).next_boot()
        sign(lock)
    except BaseException:
        connection.close()
        raise
    return connection, boot


def _whole(
    path: Path, max_bytes: int, lock: TextIO, wall: Callable[[], float]
) -> tuple[sqlite3.Connection, str]:
    """The store, and what there is to say where a broken one of ours had to make way for it."""
    try:
        return connect(path, max_bytes), ""
    except StoreDamaged as damage:
        if not (damage.recognised or used_before(lock)):
            raise
        problem = damage.problem
    salvaged = replace_damaged(path, problem, wall())
    log.error("%s", salvaged)
    return connect(path, max_bytes), salvaged
