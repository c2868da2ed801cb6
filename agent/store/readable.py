"""Reads what can be read of a table in a broken database."""

import sqlite3
from collections.abc import Iterator
from typing import Any, Final

KEYS: Final = (1, 2**62)
FAILURES_MOST: Final = 10_000
"""Each page that cannot be read costs some 120, and a table in ruins must not cost a night."""


class Readable:
    """Rows of broken tables, by their integer key. `complete` until something could not be read."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.complete = True
        self._connection = connection

    def rows(self, columns: str, table: str, key: str) -> Iterator[tuple[Any, ...]]:
        """Every row that can be read, by growing key, which is the first of `columns`.

        Around what cannot be read the range of keys is halved again and again.
        """
        query = f"SELECT {columns} FROM {table} WHERE {key} BETWEEN ? AND ? ORDER BY {key}"  # noqa: S608 - our own
        spans = [KEYS]
        failures = 0
        while spans and failures < FAILURES_MOST:
            begin, end = spans.pop()
            try:
                for row in self._connection.execute(query, (begin, end)):
                    yield row
                    begin = row[0] + 1
            except sqlite3.DatabaseError:
                self.complete = False
                failures += 1
                middle = (begin + end) // 2
                if begin < end:
                    spans += [(middle + 1, end), (begin, middle)]

    def one(self, query: str, key: object) -> tuple[Any, ...] | None:
        """The one row of a query by key; None where there is none, or it cannot be read."""
        try:
            found: tuple[Any, ...] | None = self._connection.execute(query, (key,)).fetchone()
        except sqlite3.DatabaseError:
            self.complete = False
            return None
        return found
