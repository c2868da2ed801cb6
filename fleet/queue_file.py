"""The file of a dispatcher's queue: one dispatcher at a time, nothing foreign touched, nothing replaced."""

import fcntl
import os
import sqlite3
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TextIO

MAGIC: Final = b"SQLite format 3\0"
HEADER: Final = struct.Struct(">68xI28x")  # SQLite file format, section 1.3: the application id at offset 68
APPLICATION_ID: Final = 0x70_77_66_71
"""Tells a queue from any other database, the agent's store included."""
KEEP: Final = (
    "move it and its -wal away together, what they still hold may be readable, or name another queue"
)
ADVICE: Final = {
    sqlite3.SQLITE_BUSY: "close the program that has it open",
    sqlite3.SQLITE_CANTOPEN: "name a file in a folder that this user may write",
    sqlite3.SQLITE_FULL: "free space on its disk",
    sqlite3.SQLITE_IOERR: "check its disk",
    sqlite3.SQLITE_READONLY: "make it and its folder writable for this user",
}

# A task's bytes are apart from what changes with its state: SQLite rewrites a whole record on update.
MIGRATIONS: Final[Sequence[Sequence[str]]] = (
    (
        """CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID""",
        """CREATE TABLE tasks (
            key INTEGER PRIMARY KEY,
            id TEXT NOT NULL UNIQUE,
            digest BLOB NOT NULL CHECK (length(digest) = 32),
            priority INTEGER NOT NULL,
            expires_at REAL NOT NULL,
            rows_from INTEGER NOT NULL,
            rows_to INTEGER NOT NULL CHECK (0 <= rows_from AND rows_from < rows_to),
            first_attempt INTEGER NOT NULL,
            attempt INTEGER NOT NULL,
            state TEXT NOT NULL CHECK (state IN ('open', 'done', 'failed', 'taken')),
            code INTEGER,
            text TEXT NOT NULL DEFAULT '',
            ended_at REAL
        )""",
        """CREATE INDEX tasks_by_state ON tasks (state, expires_at)""",
        """CREATE TABLE bodies (
            task INTEGER PRIMARY KEY REFERENCES tasks (key),
            head BLOB NOT NULL,
            tail BLOB NOT NULL
        )""",
        """CREATE TABLE attempts (
            task INTEGER NOT NULL REFERENCES tasks (key),
            number INTEGER NOT NULL,
            vehicle TEXT NOT NULL,
            region TEXT NOT NULL,
            head BLOB NOT NULL,
            out INTEGER NOT NULL DEFAULT 1,
            code INTEGER,
            PRIMARY KEY (task, number)
        ) WITHOUT ROWID""",
        """CREATE TABLE rows (
            task INTEGER NOT NULL REFERENCES tasks (key),
            row_from INTEGER NOT NULL,
            row_to INTEGER NOT NULL CHECK (row_from < row_to),
            body BLOB NOT NULL
        )""",
        """CREATE INDEX rows_task ON rows (task, row_from, row_to)""",
    ),
)
"""Statements from one schema version to the next."""


class QueueUnusable(Exception):  # noqa: N818 - says what is so; a person answers it
    """The queue cannot be opened. One line: what, where, value, limit, what to do."""

    def __init__(self, path: Path, problem: str, advice: str) -> None:
        super().__init__(f"queue {path}: {problem}; {advice}")


@contextmanager
def one_line_refusals(path: Path) -> Iterator[None]:
    """Turn what the system and SQLite say about `path` into `QueueUnusable`."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        advice = ADVICE.get(error.sqlite_errorcode & 0xFF, KEEP)
        raise QueueUnusable(path, f"{error} ({error.sqlite_errorname})", advice) from error
    except OSError as error:
        raise QueueUnusable(path, str(error.strerror), ADVICE[sqlite3.SQLITE_CANTOPEN]) from error


def locked(path: Path) -> TextIO:
    """A file that holds the queue for this process until it is closed or the process dies.

    It lies beside the database: closing any descriptor of the database itself would drop SQLite's own locks
    (fcntl(2), "Record locking").
    """
    beside = path.with_name(path.name + ".lock")
    file = os.fdopen(os.open(beside, os.O_RDWR | os.O_CREAT, 0o600), "r+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        with file:
            holder = file.readline().strip()
        raise QueueUnusable(
            path, f"in use by process {holder or '(starting)'}", "stop that dispatcher, or name another queue"
        ) from None
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


def connect(path: Path) -> sqlite3.Connection:
    """The queue at `path`, made where there is none, in the newest schema; for one thread at a time."""
    refuse_foreign(path)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=1)
    try:
        migrate(connection, path)
        for pragma in (
            "journal_mode = WAL",
            "synchronous = FULL",  # with a write-ahead log: a commit is on disk before it returns
            "foreign_keys = ON",
        ):
            connection.execute(f"PRAGMA {pragma}")
    except BaseException:
        connection.close()
        raise
    return connection


def refuse_foreign(path: Path) -> None:
    """Raise QueueUnusable for what is no queue. Looks at the bytes: SQLite would already change a foreign database."""
    header = b""
    if path.exists():
        with path.open("rb") as file:
            header = file.read(HEADER.size)
    if not header:
        log = path.with_name(path.name + "-wal")
        if log.exists() and log.stat().st_size:  # SQLite would delete it
            raise QueueUnusable(path, f"empty, but {log.name} holds {log.stat().st_size} bytes", KEEP)
        return
    if len(header) < HEADER.size or not header.startswith(MAGIC):
        raise QueueUnusable(path, f"not a database, it begins with {header[:16]!r}", "name another file")
    (found,) = HEADER.unpack(header)
    if found != APPLICATION_ID:
        whose = f"another application's database, its id is {found:#010x} and not {APPLICATION_ID:#010x}"
        raise QueueUnusable(path, whose, "name another file")


def migrate(
    connection: sqlite3.Connection, path: Path, migrations: Sequence[Sequence[str]] = MIGRATIONS
) -> None:
    """Bring the file forward to the newest schema in one transaction; a newer one is refused."""
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    if found > len(migrations):
        problem = (
            f"schema version {found} is newer than {len(migrations)}, the newest that this parkwatt knows"
        )
        raise QueueUnusable(path, problem, "install the parkwatt that wrote it, or name another file")
    if found == len(migrations):
        return
    with connection:  # commits, or rolls back when a statement fails
        connection.execute("BEGIN IMMEDIATE")
        for statements in migrations[found:]:
            for statement in statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(migrations)}")
