"""A broken store is replaced by a new one with everything that can still be read of it and means something.

Saved are the results that the fleet has not confirmed, the ends it has not heard of, the tasks that are open, the
identities that stand against replays, the facts, the notes and the account of the days. Rows that were done and in no
result yet are computed again. What is kept was checked: a task's bytes by their hash, a result's by their CRC.
"""

import datetime as dt
import enum
import hashlib
import sqlite3
import zlib
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from agent.protocol import framing
from agent.protocol.messages import Attempt, Id, Result, Row, TaskState
from agent.protocol.reasons import Reason, Refused
from agent.store.aside import mark_read, set_aside
from agent.store.database import HEADER, MAGIC, create, read_only
from agent.store.history import DaySum
from agent.store.ledger import Ledger
from agent.store.readable import Readable

NOTE: Final = "salvage"
LOST: Final = "the car's store was damaged"


class _Task(NamedTuple):
    """A row of `tasks` as it has to be, in the order of its columns."""

    key: int
    id: Id
    attempt: Attempt
    digest: bytes
    rows_from: Row
    rows_to: Row
    received_ns: int
    received_at: float
    priority: int
    expires_at: float
    lease_s: float
    state: TaskState
    reason_code: Reason | None
    reason_text: str
    state_at: float
    rows_answered: int | None
    told: bool


@dataclass(slots=True)
class Tally:
    """What was saved of a broken store, and whether that is all that was in it."""

    results: int = 0
    ends: int = 0
    open_tasks: int = 0
    results_lost: int = 0
    tasks_lost: int = 0
    complete: bool = True

    def described(self) -> str:
        """For people."""
        saved = f"saved {self.results} results, {self.ends} ends and {self.open_tasks} open tasks"
        if self.complete and not (self.results_lost or self.tasks_lost):
            return f"{saved}, which is everything that the fleet waits for"
        return (
            f"{saved}; known to be lost are {self.results_lost} results and {self.tasks_lost} open tasks,"
            " and what stood where nothing can be read"
        )


class Salvage:
    """Copies from the broken database to the new one, both open."""

    def __init__(self, broken: sqlite3.Connection, new: sqlite3.Connection, now_s: float) -> None:
        self.tally = Tally()
        self._readable = Readable(broken)
        self._new = new.execute
        self._ledger = Ledger(new)
        self._now_s = now_s

    def copy(self, boot_at_least: int) -> None:
        """Copy all of it. A `boot` that cannot be read becomes `boot_at_least`."""
        self._copy_facts(boot_at_least)
        self._copy_notes()
        self._copy_history()
        self._copy_tasks()
        self._copy_results()
        self._copy_bodies()
        (self.tally.ends,) = self._new("SELECT count(*) FROM tasks WHERE NOT told").fetchone()
        self.tally.complete = self._readable.complete

    def _copy_facts(self, boot_at_least: int) -> None:
        names = ("boot", "time_floor", "drain", "resume", "paused", "consent", "departure_s")
        for name in names:
            (value,) = self._readable.one("SELECT value FROM facts WHERE name = ?", name) or (None,)
            if name == "boot" and not isinstance(value, int):
                value = boot_at_least
            if isinstance(value, int | float):
                self._new("INSERT INTO facts VALUES (?, ?)", (name, value))

    def _copy_notes(self) -> None:
        for _, name, body in self._readable.rows("rowid, name, body", "notes", "rowid"):
            if isinstance(name, str) and isinstance(body, bytes) and name != NOTE:
                self._new("INSERT OR IGNORE INTO notes VALUES (?, ?)", (name, body))

    def _copy_history(self) -> None:
        """The account of the days; a store of an older schema has none."""
        if self._readable.one("SELECT 1 FROM sqlite_master WHERE name = ?", "history") is None:
            return
        for _, *values in self._readable.rows("key, day, what, name, amount", "history", "key"):
            try:
                each = msgspec.convert(values, DaySum)
            except msgspec.ValidationError:
                self._readable.complete = False
            else:
                self._ledger.history.add([each])

    def _copy_tasks(self) -> None:
        for row in self._readable.rows(", ".join(_Task._fields), "tasks", "key"):
            try:
                self._insert_task(msgspec.convert(row, _Task, strict=False))
            except msgspec.ValidationError:
                self._readable.complete = False

    def _insert_task(self, task: _Task) -> None:
        marks = ", ".join("?" * len(task))
        query = f"INSERT OR IGNORE INTO tasks ({', '.join(_Task._fields)}) VALUES ({marks})"  # noqa: S608 - our own
        values = (value.value if isinstance(value, enum.Enum) else value for value in task)
        if not self._new(query, tuple(values)).rowcount:
            self._readable.complete = False

    def _copy_results(self) -> None:
        """Unconfirmed results with their bytes, and what confirmed ones of open tasks have left behind."""
        columns = "key, task, row_from, row_to, size"
        for key, task, begin, end, size in self._readable.rows(columns, "results", "key"):
            body = crc = None
            if size is not None:
                found = self._readable.one("SELECT body, crc FROM results WHERE key = ?", key)
                body, crc = found or (None, None)
                if not self._vouches(body, crc, task, begin, end):
                    self._lose_result(task, end - begin)
                    continue
                self.tally.results += 1
            values = key, task, begin, end, size, body, crc
            self._new("INSERT OR IGNORE INTO results VALUES (?, ?, ?, ?, ?, ?, ?)", values)

    def _vouches(self, body: object, crc: object, task: int, begin: int, end: int) -> bool:
        """Whether a result is whole, and of this task and these rows; a task that was lost is known again by it."""
        if not isinstance(body, bytes) or zlib.crc32(body) != crc:
            return False
        try:
            result, _ = framing.decode_result(body)
        except Refused:
            return False
        known = self._new("SELECT id, attempt FROM tasks WHERE key = ?", (task,)).fetchone()
        if known is None:
            self._insert_task(self._remembered(result, task))
            known = (result.id, result.attempt)
        return known == (result.id, result.attempt) and result.rows == (begin, end)

    def _remembered(self, result: Result, key: int) -> _Task:
        """As much of a lost task as its results need to be confirmed; the fleet's own lease ends it."""
        return _Task(
            key=key,
            id=result.id,
            attempt=result.attempt,
            digest=bytes(32),
            rows_from=0,
            rows_to=result.rows[1],
            received_ns=0,
            received_at=self._now_s,
            priority=0,
            expires_at=self._now_s,
            lease_s=1.0,
            state=TaskState.RELEASED,
            reason_code=Reason.RESTARTED,
            reason_text=LOST,
            state_at=self._now_s,
            rows_answered=None,
            told=True,
        )

    def _lose_result(self, task: int, rows: int) -> None:
        """A task whose answer is gone was not done: the fleet is told, and asks for the missing rows."""
        self.tally.results_lost += 1
        self._readable.complete = False
        self._new(
            """UPDATE tasks SET state = ?, reason_code = ?, reason_text = ?, state_at = ?, told = 0,
                rows_answered = max(0, rows_answered - ?) WHERE key = ? AND state = ?""",
            (
                *(TaskState.RELEASED.value, Reason.RESTARTED.value, LOST, self._now_s, rows),
                *(task, TaskState.DONE.value),
            ),
        )

    def _copy_bodies(self) -> None:
        """Open tasks go on where their bytes are what was accepted; the others are given back."""
        for row in self._ledger.open_tasks():
            (key,) = self._new(
                "SELECT key FROM tasks WHERE id = ? AND attempt = ?", (row.id, row.attempt)
            ).fetchone()
            (body,) = self._readable.one("SELECT body FROM bodies WHERE task = ?", key) or (None,)
            if isinstance(body, bytes) and hashlib.sha256(body).digest() == row.digest:
                self._new("INSERT INTO bodies VALUES (?, ?)", (key, body))
                self.tally.open_tasks += 1
            else:
                self.tally.tasks_lost += 1
                self._ledger.set_state(
                    row.id, row.attempt, TaskState.RELEASED, Reason.RESTARTED, LOST, at=self._now_s
                )


def replace_damaged(path: Path, problem: str, now_s: float) -> str:
    """Put a new store in the place of the broken one, with what could be saved; the line that says so.

    `now_s` are unix seconds. May be interrupted anywhere and done again.
    """
    aside = set_aside(path, dt.datetime.fromtimestamp(now_s, dt.UTC))
    boot_at_least = unix_minutes(max(now_s, aside.stat().st_mtime))
    tally = Tally(complete=False)

    def fill(new: sqlite3.Connection) -> None:
        nonlocal tally
        if readable(aside):
            with closing(read_only(aside)) as broken, new:
                new.execute("BEGIN IMMEDIATE")
                salvage = Salvage(broken, new, now_s)
                salvage.copy(boot_at_least)
                tally = salvage.tally
        else:
            new.execute("INSERT INTO facts VALUES ('boot', ?)", (boot_at_least,))

    create(path, fill)
    if tally.complete:
        aside = mark_read(aside)
    return f"store.path {path} was broken: {problem}; it lies at {aside} now; {tally.described()}"


def unix_minutes(unix_s: float) -> int:
    """A `boot` that is surely larger than any that was counted: nobody starts an agent each minute since 1970."""
    return int(unix_s // 60)


def readable(path: Path) -> bool:
    """Whether SQLite can be let near it: of an empty file it would delete the log."""
    with path.open("rb") as file:
        header = file.read(HEADER.size)
    return len(header) == HEADER.size and header.startswith(MAGIC)
