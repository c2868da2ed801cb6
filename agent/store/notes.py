"""What parts of the agent keep for themselves over a restart, each under a name of its own."""

import sqlite3


class Notes:
    """Named bytes over one connection. Whoever writes a note owns its form."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.execute

    def read(self, name: str) -> bytes | None:
        """Return the bytes that were written last; None before any."""
        found = self._execute("SELECT body FROM notes WHERE name = ?", (name,)).fetchone()
        return bytes(found[0]) if found else None

    def write(self, name: str, body: bytes) -> None:
        """Replace what stood under this name."""
        self._execute(
            """INSERT INTO notes VALUES (?, ?)
                ON CONFLICT (name) DO UPDATE SET body = excluded.body WHERE body <> excluded.body""",
            (name, body),
        )
