"""What the agent owes: tasks, the rows that are done, the results that the fleet has not confirmed.

Every operation is synchronous, belongs inside one transaction and knows no clock: times are given.
"""

import sqlite3
import zlib
from collections.abc import Iterable
from typing import Final

from agent.protocol.messages import TaskState
from agent.store.dead_letters import DeadLetters
from agent.store.errors import RowsRefused, TaskEnded, UnknownTask
from agent.store.facts import Facts
from agent.store.history import History
from agent.store.listing import Listing
from agent.store.notes import Notes
from agent.store.ranges import Range, gaps, merged
from agent.store.records import Acceptance, Counts, NewTask, Outcome, PendingRows, TaskRow, Unsettled
from agent.store.room import Room
from agent.store.spent import SpentByTask

SELECT_TASKS = """SELECT id, attempt, digest, rows_from, rows_to, received_ns, received_at, priority, expires_at,
    lease_s, traceparent, reason_code, reason_text, state_at, rows_answered, told, state FROM tasks """

DELETE_SETTLED = """DELETE FROM results
    WHERE task = (SELECT key FROM tasks WHERE id = ? AND attempt = ? AND NOT open)
        AND row_from = ? AND row_to = ? AND size IS NOT NULL"""
EMPTY_SETTLED = """UPDATE results SET size = NULL, body = NULL
    WHERE task = (SELECT key FROM tasks WHERE id = ? AND attempt = ? AND open)
        AND row_from = ? AND row_to = ? AND size IS NOT NULL"""

KEEP_S: Final = 86_400.0
"""How long an identity is remembered after its task has expired."""
Settlement = tuple[str, int, int, int]
"""(id, attempt, from, to) of a result."""


class Ledger:
    """Tasks, rows and results over one connection, with what is kept beside them under names of its own.

    Operations on a task raise `UnknownTask`, and `TaskEnded` where they need an open one.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.facts = Facts(connection)
        self.notes = Notes(connection)
        self.dead_letters = DeadLetters(connection)
        self.history = History(connection)
        self.spent = SpentByTask(connection)
        self.listing = Listing(connection)
        self.room = Room(connection)
        self._execute = connection.execute

    def accept(self, task: NewTask) -> Acceptance:
        """Take a task over, or say why not. An open older attempt ends in the same transaction.

        Raises `StoreFull` for a new one that would not leave the reserve free (see `Room`).
        """
        newest = self._task("WHERE id = ? ORDER BY attempt DESC LIMIT 1", task.id)
        if newest and newest.attempt > task.attempt:
            return Acceptance(Outcome.STALE, newest)
        if newest and newest.attempt == task.attempt:
            repeated = newest.digest == task.digest
            return Acceptance(Outcome.REPEAT if repeated else Outcome.CONFLICT, newest)
        self.room.claim_for_task(len(task.body))
        accepted = self._insert(task)
        if newest is None or not newest.state.is_open:
            return Acceptance(Outcome.NEW, accepted)
        self.set_state(newest.id, newest.attempt, TaskState.SUPERSEDED, at=task.received_at)
        return Acceptance(Outcome.SUPERSEDES, accepted, self.task(newest.id, newest.attempt))

    def task(self, task_id: str, attempt: int) -> TaskRow | None:
        """The task, open or remembered; None when it is not known."""
        return self._task("WHERE id = ? AND attempt = ?", task_id, attempt)

    def open_tasks(self) -> list[TaskRow]:
        """What the agent owes work for: highest priority, then nearest deadline, then first come."""
        return self._tasks("WHERE open ORDER BY priority DESC, expires_at, key")

    def body(self, task_id: str, attempt: int) -> bytes:
        """The bytes of an open task as they came."""
        key, _ = self._open(task_id, attempt)
        (body,) = self._execute("SELECT body FROM bodies WHERE task = ?", (key,)).fetchone()
        return bytes(body)

    def set_state(
        self,
        task_id: str,
        attempt: int,
        state: TaskState,
        reason_code: int | None = None,
        reason_text: str = "",
        *,
        at: float,
    ) -> None:
        """Record a state of an open task at unix seconds `at`; `done` is recorded by `emit` alone.

        A final one is owed to the fleet until `told`. The body, and rows that were not emitted, go with it.
        """
        if state is TaskState.DONE:
            raise ValueError(f"task {task_id} attempt {attempt}: done is recorded by its final result")
        key, _ = self._open(task_id, attempt)
        answered = None if state.is_open else self._answered(key)
        self._execute(
            """UPDATE tasks SET state = ?, reason_code = ?, reason_text = ?, state_at = ?, rows_answered = ?,
                told = ? WHERE key = ?""",
            (state.value, reason_code, reason_text, at, answered, state.is_open, key),
        )
        if not state.is_open:
            self._forget_work(key)

    def told(self, task_id: str, attempt: int) -> None:
        """The broker has acknowledged the final state: it need not be said again."""
        self._execute("UPDATE tasks SET told = 1 WHERE id = ? AND attempt = ?", (task_id, attempt))

    def untold(self) -> list[TaskRow]:
        """Ended tasks whose end the broker has not acknowledged, oldest first."""
        return self._tasks("WHERE NOT told ORDER BY key")

    def commit_rows(
        self, task_id: str, attempt: int, row_from: int, row_to: int, *, outputs: bytes, usage: bytes
    ) -> None:
        """Keep finished rows until they go out in a result; `RowsRefused` for rows that are done already.

        Raises `StoreFull` where they would take the room that results need to go out (see `Room`).
        """
        key, _ = self._open(task_id, attempt, (row_from, row_to))
        self._refuse_done(task_id, key, (row_from, row_to))
        self.room.claim_for_rows(len(outputs) + len(usage))
        self._execute("INSERT INTO rows VALUES (?, ?, ?, ?, ?)", (key, row_from, row_to, outputs, usage))

    def pending_rows(self, task_id: str, attempt: int) -> list[PendingRows]:
        """Committed rows of an open task that are in no result yet, in order."""
        key, _ = self._open(task_id, attempt)
        found = self._execute(
            "SELECT row_from, row_to, outputs, usage FROM rows WHERE task = ? ORDER BY row_from", (key,)
        )
        return [PendingRows(*row) for row in found]

    def rows_done(self, task_id: str, attempt: int) -> list[Range]:
        """Committed, emitted and settled rows of an open task, merged."""
        key, _ = self._open(task_id, attempt)
        return self._done(key)

    def missing(self, task_id: str, attempt: int) -> list[Range]:
        """The rows of an open task that are still to be computed."""
        key, (rows_from, rows_to) = self._open(task_id, attempt)
        return gaps(self._done(key), rows_from, rows_to)

    def emit(
        self, task_id: str, attempt: int, row_from: int, row_to: int, body: bytes, *, final: bool
    ) -> int:
        """Put a result into the outbox in place of the pending rows it covers; returns its key.

        Pending rows that it covers in part go as well: a batch may be split over messages, and what a crash takes
        of the next one is missing and computed again. `final` says that with these every row is answered, and
        makes the task `done`. `RowsRefused` when that is not so, and for rows that are in a result already.
        """
        rows = (row_from, row_to)
        key, task_rows = self._open(task_id, attempt, rows)
        self._execute(
            "DELETE FROM rows WHERE task = ? AND row_from < ? AND row_to > ?", (key, row_to, row_from)
        )
        self._refuse_done(task_id, key, rows)
        inserted = self._execute(
            "INSERT INTO results (task, row_from, row_to, size, body, crc) VALUES (?, ?, ?, ?, ?, ?)",
            (key, row_from, row_to, len(body), body, zlib.crc32(body)),
        )
        self.room.took(len(body))
        asked = task_rows[1] - task_rows[0]
        answered = asked if rows == task_rows else self._answered(key)
        if final is not (answered == asked):
            raise RowsRefused(
                f"task {task_id}: {final=}, but with {rows} it has {answered} of {asked} answered"
            )
        if final:
            self._execute(
                "UPDATE tasks SET state = ?, rows_answered = ? WHERE key = ?",
                (TaskState.DONE.value, answered, key),
            )
            self._forget_work(key)
        return int(inserted.lastrowid or 0)

    def unsettled(self, after_key: int, limit: int) -> list[Unsettled]:
        """The next results behind `after_key` (0 to begin) that the fleet has not confirmed."""
        found = self._execute(
            """SELECT results.key, id, attempt, row_from, row_to, size
                FROM results JOIN tasks ON tasks.key = results.task
                WHERE results.key > ? AND size IS NOT NULL ORDER BY results.key LIMIT ?""",
            (after_key, limit),
        )
        return [Unsettled(*row) for row in found]

    def unsettled_of(self, task_id: str, attempt: int) -> list[int]:
        """The keys of the results of one task that the fleet has not confirmed, oldest first."""
        found = self._execute(
            """SELECT results.key FROM tasks JOIN results ON results.task = tasks.key
                WHERE id = ? AND attempt = ? AND size IS NOT NULL ORDER BY results.key""",
            (task_id, attempt),
        )
        return [int(key) for (key,) in found]

    def newest_result(self) -> int:
        """The key of the newest result that the fleet has not confirmed; 0 when there is none."""
        (key,) = self._execute("SELECT coalesce(max(key), 0) FROM results WHERE size IS NOT NULL").fetchone()
        return int(key)

    def result_body(self, key: int) -> bytes | None:
        """The bytes of an unsettled result; None when it has been settled meanwhile."""
        found = self._execute(
            "SELECT body FROM results WHERE key = ? AND size IS NOT NULL", (key,)
        ).fetchone()
        return bytes(found[0]) if found else None

    def settle(self, results: Iterable[Settlement]) -> int:
        """Forget the bytes of results that the fleet has; how many there were. Unknown ones are ignored.

        While its task is open a result leaves its range behind, or its rows would be computed again.
        """
        settled = 0
        for result in results:
            forgotten = self._execute(DELETE_SETTLED, result).rowcount
            settled += forgotten or self._execute(EMPTY_SETTLED, result).rowcount
        return settled

    def prune(self, now_at: float, keep_s: float = KEEP_S, limit: int = 1_000) -> int:
        """Forget ended tasks that owe nothing and expired `keep_s` ago; how many, at most `limit`.

        Until then their identity stands against replays; from then on their expiry does.
        """
        forgotten = self._execute(
            """DELETE FROM tasks WHERE key IN (
                SELECT key FROM tasks WHERE expires_at < ? AND told AND NOT open
                    AND NOT EXISTS (SELECT 1 FROM results WHERE task = tasks.key)
                ORDER BY expires_at LIMIT ?)""",
            (now_at - keep_s, limit),
        )
        return forgotten.rowcount

    def counts(self) -> Counts:
        """The store in numbers; reads no body."""
        (open_tasks,) = self._execute("SELECT count(*) FROM tasks WHERE open").fetchone()
        owed, owed_bytes = self._execute("SELECT count(size), coalesce(sum(size), 0) FROM results").fetchone()
        return Counts(open_tasks, owed, owed_bytes, self.room.used_bytes)

    def _tasks(self, where: str, *values: str | int) -> list[TaskRow]:
        found = self._execute(SELECT_TASKS + where, values)
        return [TaskRow(*(*values, bool(told), TaskState(state))) for *values, told, state in found]

    def _task(self, where: str, *values: str | int) -> TaskRow | None:
        found = self._tasks(where, *values)
        return found[0] if found else None

    def _insert(self, task: NewTask) -> TaskRow:
        inserted = self._execute(
            """INSERT INTO tasks (id, attempt, digest, rows_from, rows_to, received_ns, received_at, priority,
                expires_at, lease_s, traceparent, state, state_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
            (
                task.id,
                task.attempt,
                task.digest,
                task.rows_from,
                task.rows_to,
                task.received_ns,
                task.received_at,
                task.priority,
                task.expires_at,
                task.lease_s,
                task.traceparent,
                TaskState.ACCEPTED.value,
                task.received_at,
            ),
        )
        self._execute("INSERT INTO bodies VALUES (?, ?)", (inserted.lastrowid, task.body))
        return TaskRow(
            id=task.id,
            attempt=task.attempt,
            digest=task.digest,
            rows_from=task.rows_from,
            rows_to=task.rows_to,
            received_ns=task.received_ns,
            received_at=task.received_at,
            priority=task.priority,
            expires_at=task.expires_at,
            lease_s=task.lease_s,
            traceparent=task.traceparent,
            reason_code=None,
            reason_text="",
            state_at=task.received_at,
            rows_answered=None,
            told=True,
            state=TaskState.ACCEPTED,
        )

    def _open(self, task_id: str, attempt: int, rows: Range | None = None) -> tuple[int, Range]:
        """The key and the rows of an open task, which contain `rows`."""
        found = self._execute(
            "SELECT key, rows_from, rows_to, state FROM tasks WHERE id = ? AND attempt = ?",
            (task_id, attempt),
        ).fetchone()
        if found is None:
            raise UnknownTask(task_id, attempt)
        key, rows_from, rows_to, state = found
        if not TaskState(state).is_open:
            raise TaskEnded(task_id, attempt, TaskState(state))
        if rows and not rows_from <= rows[0] < rows[1] <= rows_to:
            raise RowsRefused(f"rows {rows} of task {task_id} are not within its [{rows_from}, {rows_to})")
        return key, (rows_from, rows_to)

    def _done(self, key: int) -> list[Range]:
        return merged(
            self._execute(
                """SELECT row_from, row_to FROM rows WHERE task = :task
                    UNION ALL SELECT row_from, row_to FROM results WHERE task = :task""",
                {"task": key},
            )
        )

    def _refuse_done(self, task_id: str, key: int, rows: Range) -> None:
        done = self._execute(
            """SELECT row_from, row_to FROM rows WHERE task = :task AND row_from < :end AND row_to > :begin
                UNION ALL SELECT row_from, row_to FROM results
                WHERE task = :task AND row_from < :end AND row_to > :begin LIMIT 1""",
            {"task": key, "begin": rows[0], "end": rows[1]},
        ).fetchone()
        if done:
            raise RowsRefused(f"rows {rows} of task {task_id} overlap {done}, which is done")

    def _answered(self, key: int) -> int:
        (rows,) = self._execute(
            "SELECT coalesce(sum(row_to - row_from), 0) FROM results WHERE task = ?", (key,)
        ).fetchone()
        return int(rows)

    def _forget_work(self, key: int) -> None:
        """Leave of an ended task its identity and the results that are owed."""
        self._execute("DELETE FROM bodies WHERE task = ?", (key,))
        self._execute("DELETE FROM rows WHERE task = ?", (key,))
        self._execute("DELETE FROM results WHERE task = ? AND size IS NULL", (key,))
