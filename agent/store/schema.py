"""The tables and how an older file grows into them."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from agent.store.errors import StoreUnusable

APPLICATION_ID = 0x70_77_61_74
"""Stands in the file's header (SQLite file format, offset 68) and tells our store from any other database."""

Migration = Sequence[str]
"""Statements from one schema version to the next, run in one transaction."""

# Bodies are apart from the rows that change with a task's state: SQLite rewrites a whole record on update.
# A result whose size is null has been settled while its task is open: its rows stay answered, its bytes go.
# Keys of results are never reused (AUTOINCREMENT), because whoever pages through the outbox holds on to one.
MIGRATIONS: Sequence[Migration] = (
    (
        """CREATE TABLE facts (name TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID""",
        """CREATE TABLE tasks (
            key INTEGER PRIMARY KEY,
            id TEXT NOT NULL,
            attempt INTEGER NOT NULL,
            digest BLOB NOT NULL CHECK (length(digest) = 32),
            rows_from INTEGER NOT NULL,
            rows_to INTEGER NOT NULL CHECK (0 <= rows_from AND rows_from < rows_to),
            received_ns INTEGER NOT NULL,
            received_at REAL NOT NULL,
            priority INTEGER NOT NULL,
            expires_at REAL NOT NULL,
            lease_s REAL NOT NULL,
            state TEXT NOT NULL,
            reason_code INTEGER,
            reason_text TEXT NOT NULL DEFAULT '',
            state_at REAL NOT NULL,
            rows_answered INTEGER,
            told INTEGER NOT NULL DEFAULT 1,
            open INTEGER AS (state IN ('accepted', 'running', 'preempted')),
            UNIQUE (id, attempt)
        )""",
        """CREATE INDEX tasks_open ON tasks (priority DESC, expires_at, key) WHERE open""",
        """CREATE INDEX tasks_untold ON tasks (key) WHERE NOT told""",
        """CREATE INDEX tasks_expiry ON tasks (expires_at)""",
        """CREATE TABLE bodies (
            task INTEGER PRIMARY KEY REFERENCES tasks (key),
            body BLOB NOT NULL
        )""",
        """CREATE TABLE rows (
            task INTEGER NOT NULL REFERENCES tasks (key),
            row_from INTEGER NOT NULL,
            row_to INTEGER NOT NULL CHECK (row_from < row_to),
            outputs BLOB NOT NULL,
            usage BLOB NOT NULL
        )""",
        """CREATE INDEX rows_task ON rows (task, row_from, row_to)""",
        """CREATE TABLE results (
            key INTEGER PRIMARY KEY AUTOINCREMENT,
            task INTEGER NOT NULL REFERENCES tasks (key),
            row_from INTEGER NOT NULL,
            row_to INTEGER NOT NULL CHECK (row_from < row_to),
            size INTEGER,
            body BLOB
        )""",
        """CREATE INDEX results_task ON results (task, row_from, row_to, size)""",
    ),
    ("""CREATE TABLE notes (name TEXT PRIMARY KEY, body BLOB NOT NULL)""",),
    (
        """CREATE TABLE dead_letters (
            key INTEGER PRIMARY KEY,
            at REAL NOT NULL,
            topic TEXT NOT NULL,
            reason_code INTEGER NOT NULL,
            text TEXT NOT NULL,
            size INTEGER NOT NULL,
            sha256 BLOB NOT NULL,
            head TEXT NOT NULL
        )""",
        """CREATE TABLE dead_letter_counts (reason_code INTEGER PRIMARY KEY, messages INTEGER NOT NULL)""",
        """ALTER TABLE results ADD COLUMN crc INTEGER""",  # CRC-32 of the body, for when the file is broken
    ),
    (
        """CREATE TABLE history (
            key INTEGER PRIMARY KEY,
            day TEXT NOT NULL,
            what TEXT NOT NULL,
            name TEXT NOT NULL,
            amount REAL NOT NULL,
            UNIQUE (day, what, name)
        )""",
        """CREATE TABLE spent (
            task INTEGER NOT NULL REFERENCES tasks (key) ON DELETE CASCADE,
            source TEXT NOT NULL,
            rows INTEGER NOT NULL,
            device_s REAL NOT NULL,
            energy_j REAL,
            at REAL NOT NULL,
            PRIMARY KEY (task, source)
        ) WITHOUT ROWID""",
        """ALTER TABLE tasks ADD COLUMN traceparent TEXT""",
    ),
)


def refuse_newer(connection: sqlite3.Connection, path: Path, known: int = len(MIGRATIONS)) -> int:
    """The schema version of the file; `StoreUnusable` where it is newer than the `known` ones."""
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    if found > known:
        raise StoreUnusable(
            path,
            f"schema version {found} is newer than {known}, the newest that this parkwatt knows",
            "install the parkwatt that wrote it, or set store.path to another file",
        )
    return int(found)


def migrate(connection: sqlite3.Connection, path: Path, migrations: Sequence[Migration] = MIGRATIONS) -> None:
    """Bring the file forward to the newest schema, one transaction a version; a newer one is refused."""
    found = refuse_newer(connection, path, len(migrations))
    for version, statements in enumerate(migrations[found:], start=found + 1):
        with connection:  # commits, or rolls back when a statement fails
            connection.execute("BEGIN IMMEDIATE")
            for statement in statements:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {version}")
