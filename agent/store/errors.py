"""What can go wrong with the store, by who can answer it."""

import errno
import sqlite3
from pathlib import Path
from typing import Final

from agent.protocol.messages import TaskState

KEEP: Final = (
    "move it and its -wal away together, what they still hold may be readable, or set another store.path"
)
ADVICE: Final = {
    sqlite3.SQLITE_BUSY: "close the program that has it open",
    sqlite3.SQLITE_CANTOPEN: "make it a file that the agent's user may write, in a folder that it may write",
    sqlite3.SQLITE_CORRUPT: "start the agent again: it moves the file aside and saves what it can read of it",
    sqlite3.SQLITE_FULL: "free space on its disk",
    sqlite3.SQLITE_IOERR: "check its disk",
    sqlite3.SQLITE_READONLY: "make it and its folder writable for the agent's user",
}

NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
SAME_AS: Final = {
    errno.EIO: sqlite3.SQLITE_IOERR,
    errno.EROFS: sqlite3.SQLITE_READONLY,
}
"""What SQLite would have said to what the system says."""


def primary_code(error: BaseException) -> int | None:
    """SQLite's result code without its extension; None for what SQLite did not say."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def is_full(error: BaseException) -> bool:
    """Whether SQLite or the system says that there is no room.

    The memory that SQLite shares between connections is a file beside the store, and has an error of its own.
    """
    if isinstance(error, OSError):
        return error.errno in NO_ROOM
    shared_memory = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_IOERR_SHMSIZE
    return shared_memory or primary_code(error) == sqlite3.SQLITE_FULL


def advice(error: BaseException) -> str:
    """What a person can do about what SQLite or the system says."""
    if is_full(error):
        code = sqlite3.SQLITE_FULL
    elif isinstance(error, OSError):
        code = SAME_AS.get(error.errno or 0, sqlite3.SQLITE_CANTOPEN)
    else:
        code = primary_code(error) or sqlite3.SQLITE_ERROR
    return ADVICE.get(code, KEEP)


class StoreUnusable(Exception):  # noqa: N818 - says what is so; a person answers it before the agent can start
    """The store cannot be opened. One line: what, where, value, limit, what to do."""

    def __init__(self, path: Path, problem: str, advice: str) -> None:
        super().__init__(f"store.path {path}: {problem}; {advice}")

    @classmethod
    def by(cls, path: Path, error: sqlite3.Error) -> "StoreUnusable":
        """What SQLite said when the store was opened."""
        return StoreUnusable(path, f"{error} ({error.sqlite_errorname})", advice(error))


class StoreDamaged(StoreUnusable):
    """What lies there is broken. `recognised`: it still says that it is a store of ours."""

    def __init__(self, path: Path, problem: str, *, recognised: bool) -> None:
        super().__init__(path, problem, ADVICE[sqlite3.SQLITE_CORRUPT] if recognised else KEEP)
        self.problem = problem
        self.recognised = recognised


class StoreFailed(Exception):  # noqa: N818 - reads as the outcome of a job
    """Nothing of this job is on disk: the disk, the file or the writer failed."""

    @classmethod
    def by(cls, path: Path, error: Exception) -> "StoreFailed":
        """What SQLite said while the agent ran. A full store has nothing of this car in its text: the fleet reads it."""
        if is_full(error):
            return StoreFull(str(error))
        name = getattr(error, "sqlite_errorname", type(error).__name__)
        return StoreFailed(f"store.path {path}: {error} ({name}); {advice(error)}")


class StoreFull(StoreFailed):
    """Nothing of this job is on disk: `store.max_bytes` or the disk's end is reached (reason 1031)."""


class StoreClosed(StoreFailed):
    """Nothing of this job is on disk: the agent stops. What was owed is found again at the next start."""


class UnknownTask(LookupError):  # noqa: N818 - reads as the outcome of a job
    """No such task and attempt: never accepted, or forgotten since."""

    def __init__(self, task_id: str, attempt: int) -> None:
        super().__init__(f"task {task_id} attempt {attempt} is not known")


class TaskEnded(Exception):  # noqa: N818 - an outcome that whoever works on the task must expect
    """The task has reached a final state, perhaps just now by a newer attempt: nothing more is added to it."""

    def __init__(self, task_id: str, attempt: int, state: TaskState) -> None:
        super().__init__(f"task {task_id} attempt {attempt} has ended: {state.value}")
        self.state = state


class RowsRefused(ValueError):  # noqa: N818 - reads as the outcome of a job
    """Rows outside their task, answered twice, or missing behind a final result: a bug in the caller."""
