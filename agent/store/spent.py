"""What the results of a task took, for as long as the task is remembered: its results go when the fleet has them."""

import sqlite3
from typing import NamedTuple


class Spent(NamedTuple):
    """What rows took whose joules are from one `source`; the sums of two sources are never one. Joules None: unknown.

    `at` is when the last of them were answered, in unix seconds.
    """

    source: str
    rows: int
    device_s: float
    energy_j: float | None
    at: float


class SpentByTask:
    """Sums by task and source over one connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.execute

    def add(self, result: int, spent: Spent) -> None:
        """Add what one result took; `result` is the key that `Ledger.emit` has given it."""
        self._execute(
            """INSERT INTO spent (task, source, rows, device_s, energy_j, at)
                SELECT task, ?, ?, ?, ?, ? FROM results WHERE key = ?
                ON CONFLICT (task, source) DO UPDATE SET
                    rows = rows + excluded.rows,
                    device_s = device_s + excluded.device_s,
                    energy_j = coalesce(energy_j + excluded.energy_j, energy_j, excluded.energy_j),
                    at = excluded.at""",
            (*spent, result),
        )

    def of(self, task: int) -> list[Spent]:
        """The sums of the task with this key."""
        found = self._execute(
            "SELECT source, rows, device_s, energy_j, at FROM spent WHERE task = ? ORDER BY source", (task,)
        )
        return [Spent(*row) for row in found]
