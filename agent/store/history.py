"""What became of the days: sums of hours, tasks, rows and joules by day. Whoever adds them owns their names."""

import sqlite3
from collections.abc import Iterable
from typing import Final, NamedTuple

KEPT_DAYS: Final = 400
"""Distinct days: a car that was told a wrong year once loses one of them."""
UNDATED: Final = ""
"""The day of what happened while the car did not know the date. It sorts before every date."""


class DaySum(NamedTuple):
    """So much of one thing on one day, which is `YYYY-MM-DD` by the car's own time zone, or `UNDATED`."""

    day: str
    what: str
    name: str
    amount: float


class History:
    """The sums of the newest `KEPT_DAYS` days over one connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.execute
        self._executemany = connection.executemany

    def add(self, sums: Iterable[DaySum]) -> None:
        """Raise each sum by its amount."""
        self._executemany(
            """INSERT INTO history (day, what, name, amount) VALUES (?, ?, ?, ?)
                ON CONFLICT (day, what, name) DO UPDATE SET amount = amount + excluded.amount""",
            sums,
        )
        self._execute(
            """DELETE FROM history WHERE day <
                (SELECT DISTINCT day FROM history ORDER BY day DESC LIMIT 1 OFFSET ?)""",
            (KEPT_DAYS - 1,),
        )

    def since(self, day: str) -> list[DaySum]:
        """The sums from `day` on, by growing day, with those that have no date in front."""
        found = self._execute(
            "SELECT day, what, name, amount FROM history WHERE day >= ? OR day = ? ORDER BY day, what, name",
            (day, UNDATED),
        )
        return [DaySum(*row) for row in found]
