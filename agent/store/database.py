"""Opening the database file: one agent at a time, nothing foreign touched, nothing broken written to."""

import fcntl
import os
import sqlite3
import struct
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final, TextIO

from agent.store.errors import StoreDamaged, StoreUnusable, advice, primary_code
from agent.store.schema import APPLICATION_ID, migrate, refuse_newer

MAGIC = b"SQLite format 3\0"
HEADER = struct.Struct(">68xI28x")  # SQLite file format, section 1.3: the application id at offset 68 of 100
PAGE_BYTES = 4096
BROKEN: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
LOG_TAILS: Final = ("-wal", "-shm")


@contextmanager
def one_line_refusals(path: Path) -> Iterator[None]:
    """Turn what the system and SQLite say about `path` into `StoreUnusable`."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise StoreUnusable.by(path, error) from error
    except OSError as error:
        about = Path(error.filename).name if error.filename else path.name
        raise StoreUnusable(path, f"{about}: {error.strerror}", advice(error)) from error


def locked(path: Path) -> TextIO:
    """A file that holds the store for this process until it is closed or the process dies; `sign` it when in use.

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
    return file


def used_before(lock: TextIO) -> bool:
    """Whether an agent has had a store here before."""
    return os.fstat(lock.fileno()).st_size > 0


def sign(lock: TextIO) -> None:
    """Say in the lock who holds it."""
    lock.seek(0)
    lock.truncate()
    lock.write(f"{os.getpid()}\n")
    lock.flush()


def connect(path: Path, max_bytes: int) -> sqlite3.Connection:
    """The store at `path`, created where there is none, in the newest schema; for one thread at a time.

    `StoreDamaged` where what lies there is broken, `StoreUnusable` where it is not ours.
    """
    if is_new(path):
        create(path)
    else:
        path.chmod(0o600)
        refuse_damaged(path)
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
            problem = f"empty, but {log.name} holds {log.stat().st_size} bytes"
            raise StoreDamaged(path, problem, recognised=False)
        return True
    if len(header) < HEADER.size or not header.startswith(MAGIC):
        raise StoreDamaged(path, f"not a database, it begins with {header[:16]!r}", recognised=False)
    (application_id,) = HEADER.unpack(header)
    if application_id != APPLICATION_ID:
        raise StoreUnusable(
            path,
            f"another application's database, its id is {application_id:#010x} and not {APPLICATION_ID:#010x}",
            "set another store.path",
        )
    return False


def read_only(path: Path) -> sqlite3.Connection:
    """The database at `path` with what its write-ahead log holds; no byte of either is changed."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)


def refuse_damaged(path: Path) -> None:
    """Raise `StoreDamaged` unless every page is where it belongs. Reads the whole file: 0.1 s for 500 MB in memory."""
    with closing(read_only(path)) as connection:
        try:
            refuse_newer(connection, path)
            (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        except sqlite3.DatabaseError as error:
            if primary_code(error) not in BROKEN:
                raise
            raise StoreDamaged(path, f"{error} ({error.sqlite_errorname})", recognised=True) from error
    if found != "ok":
        problem = " ".join(str(found).split())
        raise StoreDamaged(path, f"quick_check says: {problem}", recognised=True)


def nothing_more(_: sqlite3.Connection) -> None:
    """Leave a new store empty."""


def create(path: Path, fill: Callable[[sqlite3.Connection], None] = nothing_more) -> None:
    """Make a store and `fill` it. It appears whole under its name or, when the power goes, not at all.

    The log of what it replaces goes first: SQLite would take it for the new one's.
    """
    unfinished = path.with_name(path.name + ".new")
    for leftover in path.parent.glob(f"{unfinished.name}*"):
        leftover.unlink()
    os.close(os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    with closing(sqlite3.connect(unfinished, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        migrate(connection, path)
        fill(connection)
        connection.execute("PRAGMA journal_mode = WAL")
    for tail in LOG_TAILS:
        path.with_name(path.name + tail).unlink(missing_ok=True)
    unfinished.rename(path)
    flush_folder(path.parent)


def flush_folder(folder: Path) -> None:
    """Bring names that were made or changed in a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
