"""Messages that could not be taken: how many for each reason, and the newest of them."""

import sqlite3
from collections.abc import Iterable, Mapping
from typing import Final

from agent.store.records import DeadLetter

KEPT: Final = 100


class DeadLetters:
    """The newest `KEPT` letters over one connection, and counts that never shrink."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.execute
        self._executemany = connection.executemany

    def add(self, letters: Iterable[DeadLetter], counts: Mapping[int, int]) -> None:
        """Keep `letters`, oldest first, and raise the count of each reason code."""
        self._executemany(
            """INSERT INTO dead_letters (at, topic, reason_code, text, size, sha256, head)
                VALUES (?, ?, ?, ?, ?, ?, ?)""",
            ((e.at, e.topic, e.reason_code, e.text, e.size_bytes, e.sha256, e.head) for e in letters),
        )
        self._execute(
            "DELETE FROM dead_letters WHERE key <= (SELECT max(key) FROM dead_letters) - ?", (KEPT,)
        )
        self._executemany(
            """INSERT INTO dead_letter_counts VALUES (?, ?)
                ON CONFLICT (reason_code) DO UPDATE SET messages = messages + excluded.messages""",
            counts.items(),
        )

    def newest(self) -> list[DeadLetter]:
        """The letters that are kept, oldest first."""
        found = self._execute(
            "SELECT at, topic, reason_code, text, size, sha256, head FROM dead_letters ORDER BY key"
        )
        return [DeadLetter(*row) for row in found]

    def counts(self) -> dict[int, int]:
        """Messages by reason code, since the store was made."""
        return dict(self._execute("SELECT reason_code, messages FROM dead_letter_counts").fetchall())
