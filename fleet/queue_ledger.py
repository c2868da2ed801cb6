"""The tables of a queue. Each method is one step; what it does is whole or not at all, by the caller's transaction."""

import datetime as dt
import hashlib
import sqlite3
from typing import Final

import msgspec

from agent.protocol import framing
from agent.protocol.messages import Task
from agent.protocol.reasons import Reason, Refused
from agent.protocol.trace import untraced
from fleet.answer import Rows, TaskFailed, check_alike
from fleet.coverage import Coverage
from fleet.queue_records import Added, Assignment, Finished, Kept, OpenTask, Sent

KEEP_ENDED_S: Final = 86_400
"""A taken task's id is remembered for so long after its deadline: as long as vehicles remember it."""
PRUNED_AT_ONCE: Final = 100
CRASHES: Final = (Reason.BACKEND_CRASHED, Reason.BACKEND_HUNG, Reason.OUT_OF_MEMORY)
_ROWS: Final = msgspec.msgpack.Decoder(Rows)


class Ledger:
    """A queue over one connection; times are unix seconds. A transaction around each call is the caller's."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.execute

    def fact(self, name: str, default: str) -> str:
        """What stands under `name`, which is `default` from the first call on."""
        self._execute("INSERT OR IGNORE INTO facts VALUES (?, ?)", (name, default))
        (value,) = self._execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return str(value)

    # Tasks

    def add(self, task: Task, tail: bytes, rows: tuple[int, int], expires_at: float) -> Added:
        """Take a task over; its `attempt` is the first, its times and its audience are not looked at.

        Who repeats a call does so in a new span: the trace is no part of what makes work the same.
        """
        head = framing.encode(task)
        digest = hashlib.sha256(framing.encode(untraced(task)) + b"\n" + tail).digest()
        known = self._execute("SELECT digest FROM tasks WHERE id = ?", (task.id,)).fetchone()
        if known is not None:
            return Added.REPEAT if known[0] == digest else Added.CONFLICT
        added = self._execute(
            """INSERT INTO tasks (id, digest, priority, expires_at, rows_from, rows_to, first_attempt, attempt,
                state) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'open')""",
            (task.id, digest, task.priority, expires_at, *rows, task.attempt, task.attempt - 1),
        )
        self._execute("INSERT INTO bodies VALUES (?, ?, ?)", (added.lastrowid, head, tail))
        return Added.NEW

    def left(self) -> list[tuple[OpenTask, Assignment | None]]:
        """Every task that has not ended, oldest first, with its newest attempt while that may be under way."""
        found = self._execute(
            """SELECT key, head, expires_at, attempt FROM tasks JOIN bodies ON task = key
                WHERE state = 'open' ORDER BY key"""
        ).fetchall()
        tasks = [self._open_task(*row) for row in found]
        return [
            (task, None if task.out is None else self.assignment(task.task.id, task.out)) for task in tasks
        ]

    def open_task(self, task_id: str) -> OpenTask | None:
        """The task; None when it has ended."""
        found = self._execute(
            """SELECT key, head, expires_at, attempt FROM tasks JOIN bodies ON task = key
                WHERE id = ? AND state = 'open'""",
            (task_id,),
        ).fetchone()
        return self._open_task(*found) if found else None

    def end(self, task_id: str, code: Reason, text: str, now_at: float) -> bool:
        """End a task without all of its rows; False when it has ended already."""
        ended = self._execute(
            "UPDATE tasks SET state = 'failed', code = ?, text = ?, ended_at = ? WHERE id = ? AND state = 'open'",
            (code, text, now_at, task_id),
        )
        return ended.rowcount > 0

    # Attempts

    def begin(self, task_id: str, vehicle: str, region: str, *, issued_at: float) -> Assignment | None:
        """Make the next attempt, for the rows that are missing; None when the task has ended."""
        found = self._execute(
            """SELECT key, rows_from, rows_to, expires_at, attempt + 1, head FROM tasks JOIN bodies ON task = key
                WHERE id = ? AND state = 'open'""",
            (task_id,),
        ).fetchone()
        if found is None:
            return None
        key, rows_from, rows_to, expires_at, number, head = found
        coverage = self._coverage(key, rows_from, rows_to)
        task = msgspec.structs.replace(
            msgspec.json.decode(head, type=Task),
            attempt=number,
            audience=vehicle,
            issued_at=utc(issued_at),
            expires_at=utc(expires_at),
        )
        if coverage.rows_done:
            task.rows = coverage.hull
        self._execute("UPDATE tasks SET attempt = ? WHERE key = ?", (number, key))
        self._execute(
            "INSERT INTO attempts (task, number, vehicle, region, head) VALUES (?, ?, ?, ?, ?)",
            (key, number, vehicle, region, framing.encode(task)),
        )
        return self.assignment(task_id, number)

    def assignment(self, task_id: str, number: int) -> Assignment:
        """An attempt that was made, to be said (again)."""
        vehicle, region, head, tail = self._execute(
            """SELECT vehicle, region, attempts.head, tail FROM tasks JOIN attempts ON attempts.task = key
                JOIN bodies ON bodies.task = key WHERE id = ? AND number = ?""",
            (task_id, number),
        ).fetchone()
        task = msgspec.json.decode(head, type=Task)
        return Assignment(Sent(task_id, number, vehicle, region), task, head + b"\n" + tail)

    def over(self, task_id: str, number: int, code: int | None) -> None:
        """The vehicle has ended this attempt, with `code` where it gave one, or has been told to."""
        self._execute(
            """UPDATE attempts SET out = 0, code = coalesce(?, code)
                WHERE number = ? AND task = (SELECT key FROM tasks WHERE id = ?)""",
            (code, number, task_id),
        )

    def left_over(self) -> list[str]:
        """Ended tasks that a vehicle may still be at work on."""
        found = self._execute(
            "SELECT DISTINCT id FROM tasks JOIN attempts ON task = key WHERE out AND state <> 'open'"
        )
        return [task_id for (task_id,) in found]

    def left_over_of(self, task_id: str) -> list[Sent]:
        """The attempts at one of those that may be under way."""
        found = self._execute(
            """SELECT id, number, vehicle, region FROM tasks JOIN attempts ON task = key
                WHERE out AND state <> 'open' AND id = ? ORDER BY number""",
            (task_id,),
        )
        return [Sent(*row) for row in found]

    # Rows

    def keep(self, task_id: str, vehicle: str, rows: Rows, now_at: float) -> Kept:
        """Keep the rows that are still missing, of any attempt that was made at this vehicle."""
        found = self._execute(
            """SELECT key, rows_from, rows_to FROM tasks JOIN attempts ON task = key
                WHERE id = ? AND state = 'open' AND number = ? AND vehicle = ?""",
            (task_id, rows.attempt, vehicle),
        ).fetchone()
        if found is None:
            return Kept.UNWANTED
        key, rows_from, rows_to = found
        try:
            self._check(key, rows, (rows_from, rows_to))
        except Refused as refused:
            self.end(task_id, refused.reason, refused.text, now_at)
            return Kept.ENDED
        coverage = self._coverage(key, rows_from, rows_to)
        parts = coverage.take(rows.begin, rows.end)
        for part in parts:
            body = msgspec.msgpack.encode(rows.cut(*part))
            self._execute("INSERT INTO rows VALUES (?, ?, ?, ?)", (key, *part, body))
        if coverage.missing:
            return Kept.TAKEN if parts else Kept.UNWANTED
        self._execute("UPDATE tasks SET state = 'done', ended_at = ? WHERE key = ?", (now_at, key))
        return Kept.ENDED

    # Ends

    def untaken(self) -> list[str]:
        """Ended tasks that the application has not taken, in the order in which they ended."""
        found = self._execute("SELECT id FROM tasks WHERE state IN ('done', 'failed') ORDER BY ended_at, key")
        return [task_id for (task_id,) in found]

    def finished(self, task_id: str) -> Finished | None:
        """An ended task with its rows; None when it is open or has been taken."""
        found = self._execute(
            """SELECT key, head, state, code, text, attempt - first_attempt + 1 FROM tasks JOIN bodies ON task = key
                WHERE id = ? AND state IN ('done', 'failed')""",
            (task_id,),
        ).fetchone()
        if found is None:
            return None
        key, head, state, code, text, attempts = found
        kept = self._execute("SELECT body FROM rows WHERE task = ? ORDER BY row_from", (key,))
        rows = [_ROWS.decode(body) for (body,) in kept]
        rows_done = sum(piece.end - piece.begin for piece in rows)
        failure = TaskFailed(Reason(code), text, rows_done) if state == "failed" else None
        model = msgspec.json.decode(head, type=Task).model
        return Finished(task_id, model, rows, attempts, failure)

    def taken(self, task_id: str, now_at: float) -> bool:
        """Forget an ended task but for its id; False when it was not there to be taken."""
        found = self._execute(
            "SELECT key FROM tasks WHERE id = ? AND state IN ('done', 'failed')", (task_id,)
        ).fetchone()
        if found is None:
            return False
        for table in ("rows", "bodies"):
            self._execute(f"DELETE FROM {table} WHERE task = ?", found)  # noqa: S608 - our own two names
        self._execute("DELETE FROM attempts WHERE task = ? AND NOT out", found)
        self._execute("UPDATE tasks SET state = 'taken' WHERE key = ?", found)
        self._prune(now_at)
        return True

    def _prune(self, now_at: float) -> None:
        old = self._execute(
            "SELECT key FROM tasks WHERE state = 'taken' AND expires_at < ? ORDER BY expires_at LIMIT ?",
            (now_at - KEEP_ENDED_S, PRUNED_AT_ONCE),
        ).fetchall()
        for key in old:
            self._execute("DELETE FROM attempts WHERE task = ?", key)
            self._execute("DELETE FROM tasks WHERE key = ?", key)

    def _open_task(self, key: int, head: bytes, expires_at: float, attempt: int) -> OpenTask:
        task = msgspec.json.decode(head, type=Task)
        out = self._execute(
            "SELECT number FROM attempts WHERE task = ? AND number = ? AND out", (key, attempt)
        ).fetchone()
        (crashes,) = self._execute(
            "SELECT count(*) FROM attempts WHERE task = ? AND code IN (?, ?, ?)", (key, *CRASHES)
        ).fetchone()
        (rows_from, rows_to) = self._execute(
            "SELECT rows_from, rows_to FROM tasks WHERE key = ?", (key,)
        ).fetchone()
        coverage = self._coverage(key, rows_from, rows_to)
        missing = coverage.rows - coverage.rows_done
        return OpenTask(key, task, missing, expires_at, crashes, out[0] if out else None)

    def _coverage(self, key: int, rows_from: int, rows_to: int) -> Coverage:
        coverage = Coverage(rows_from, rows_to)
        for part in self._execute("SELECT row_from, row_to FROM rows WHERE task = ?", (key,)):
            coverage.take(*part)
        return coverage

    def _check(self, key: int, rows: Rows, asked: tuple[int, int]) -> None:
        if not asked[0] <= rows.begin < rows.end <= asked[1]:
            text = f"rows [{rows.begin}, {rows.end}) were not asked for: [{asked[0]}, {asked[1]}) were"
            raise Refused(Reason.BAD_TENSOR, text)
        first = self._execute("SELECT body FROM rows WHERE task = ? LIMIT 1", (key,)).fetchone()
        if first is not None:
            check_alike(_ROWS.decode(first[0]), rows)


def utc(at: float) -> dt.datetime:
    """The time in UTC."""
    return dt.datetime.fromtimestamp(at, dt.UTC)
