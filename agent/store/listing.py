"""The tasks that the store remembers, for people to look at; changes nothing and reads no body."""

import sqlite3
from dataclasses import dataclass
from typing import Any

from agent.store.spent import Spent, SpentByTask


@dataclass(frozen=True, slots=True)
class Listed:
    """One task. `rows_done` counts what is committed or answered; wall times (`_at`) are unix seconds.

    `changed_at` stamps its newest state, for one that is done its last result. `unsettled`: results that the fleet
    has not confirmed.
    """

    id: str
    attempt: int
    state: str
    reason_code: int | None
    reason_text: str
    priority: int
    rows_done: int
    rows_asked: int
    received_at: float
    expires_at: float
    changed_at: float
    unsettled: int
    spent: tuple[Spent, ...]


SELECT_LISTED = """SELECT key, id, attempt, state, reason_code, reason_text, priority,
    coalesce(rows_answered,
        (SELECT coalesce(sum(row_to - row_from), 0) FROM results WHERE task = tasks.key)
        + (SELECT coalesce(sum(row_to - row_from), 0) FROM rows WHERE task = tasks.key)),
    rows_to - rows_from, received_at, expires_at, state_at,
    (SELECT count(size) FROM results WHERE task = tasks.key)
    FROM tasks """


class Listing:
    """Reads tasks over one connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.execute
        self._spent = SpentByTask(connection)

    def open(self) -> list[Listed]:
        """What the agent still owes work for, in the order in which it is due."""
        return self._found("WHERE open ORDER BY priority DESC, expires_at, key", ())

    def ended(self, most: int) -> list[Listed]:
        """The tasks that ended and came last, newest first."""
        return self._found("WHERE NOT open ORDER BY key DESC LIMIT ?", (most,))

    def _found(self, where: str, values: tuple[int, ...]) -> list[Listed]:
        return [self._listed(key, row) for key, *row in self._execute(SELECT_LISTED + where, values)]

    def _listed(self, key: int, row: list[Any]) -> Listed:
        spent = tuple(self._spent.of(key))
        state_at, unsettled = row[-2:]
        changed_at = max((state_at, *(each.at for each in spent)))
        return Listed(*(*row[:-2], changed_at, unsettled, spent))
