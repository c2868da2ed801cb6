"""Opening the database file: one agent at a time, nothing foreign touched, nothing ever replaced."""

import fcntl
import os
import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TextIO

from agent.store.errors import StoreUnusable
from agent.store.schema import APPLICATION_ID, migrate

MAGIC = b"SQLite format 3\0"
HEADER = struct.Struct(">68xI28x")  # SQLite file format, section 1.3: the application id at offset 68 of 100
PAGE_BYTES = 4096
KEEP = "move it and its -wal away together, what they still hold may be readable, or set another store.path"
ADVICE = {
    sqlite3.SQLITE_BUSY: "close the program that has it open",
    sqlite3.SQLITE_CANTOPEN: "make it a file that the agent's user may write, in a folder that it may write",
    sqlite3.SQLITE_FULL: "free space on its disk",
    sqlite3.SQLITE_IOERR: "check its disk",
    sqlite3.SQLITE_READONLY: "make it and its folder writable for the agent's user",
}


@contextmanager
def one_line_refusals(path: Path) -> Iterator[None]:
    """Turn what the system and SQLite say about `path` into `StoreUnusable`."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        advice = ADVICE.get(error.sqlite_errorcode & 0xFF, KEEP)
        raise StoreUnusable(path, f"{error} ({error.sqlite_errorname})", advice) from error
    except OSError as error:
        about = Path(error.filename).name if error.filename else path.name
        raise StoreUnusable(path, f"{about}: {error.strerror}", ADVICE[sqlite3.SQLITE_CANTOPEN]) from error


def locked(path: Path) -> TextIO:
    """A file that holds the store for this process until it is closed or the process dies.

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
        raise StoreUnusable(
            path, f"in use by process {holder or '(starting)'}", "stop that agent, or set another store.path"
        ) from None
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


def connect(path: Path, max_bytes: int) -> sqlite3.Connection:
    """The store at `path`, created where there is none, in the newest schema; for one thread at a time."""
    if is_new(path):
        create(path)
    path.chmod(0o600)
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=1)
    try:
        for pragma in (
            "synchronous = FULL",  # with a write-ahead log: a commit is on disk before it returns
            "foreign_keys = ON",
            "cache_size = -256",  # KiB; saves 1.8 MiB of a blocked car's memory
            "temp_store = MEMORY",  # what a savepoint keeps for its rollback goes to no file
            "secure_delete = FAST",  # Debian's default writes every deleted byte once more
            "wal_autocheckpoint = 1000",  # pages: the log stays at 4 MB, a single large commit aside,
            "journal_size_limit = 4194304",  # and shrinks to that again
            f"max_page_count = {max_bytes // PAGE_BYTES}",
        ):
            connection.execute(f"PRAGMA {pragma}")
        migrate(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def is_new(path: Path) -> bool:
    """Whether there is nothing here yet. Looks at the bytes: SQLite would already change a foreign database."""
    header = b""
    if path.exists():
        with path.open("rb") as file:
            header = file.read(HEADER.size)
    if not header:
        log = path.with_name(path.name + "-wal")
        if log.exists() and log.stat().st_size:  # SQLite would delete it
            raise StoreUnusable(path, f"empty, but {log.name} holds {log.stat().st_size} bytes", KEEP)
        return True
    if len(header) < HEADER.size or not header.startswith(MAGIC):
        raise StoreUnusable(path, f"not a database, it begins with {header[:16]!r}", KEEP)
    (application_id,) = HEADER.unpack(header)
    if application_id != APPLICATION_ID:
        raise StoreUnusable(
            path,
            f"another application's database, its id is {application_id:#010x} and not {APPLICATION_ID:#010x}",
            "set another store.path",
        )
    return False


def create(path: Path) -> None:
    """Make an empty store. It appears whole under its name or, when the power goes, not at all."""
    unfinished = path.with_name(path.name + ".new")
    for leftover in path.parent.glob(f"{unfinished.name}*"):
        leftover.unlink()
    os.close(os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    with closing(sqlite3.connect(unfinished, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        migrate(connection, path)
        connection.execute("PRAGMA journal_mode = WAL")
    unfinished.rename(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
