"""The folder in which a worker may write, and what becomes of it when nobody is left to remove it."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

PREFIX: Final = "parkwatt-worker-"
OPEN_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


class Scratch:
    """A folder below the temporary directory, empty at first, for one worker; `path` is where.

    Whoever is killed cannot tidy up, but loses its lock on the folder (flock(2)): the next one that makes a
    folder here removes those without one.
    """

    def __init__(self) -> None:
        for left_behind in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
            _remove_unless_locked(left_behind)
        self.path, self._lock = _locked_folder()

    def cleanup(self) -> None:
        """Remove the folder with what is in it; once."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def _locked_folder() -> tuple[str, int]:
    while True:
        path = tempfile.mkdtemp(prefix=PREFIX)
        with contextlib.suppress(FileNotFoundError):  # removed before it had its lock: another one
            lock = os.open(path, OPEN_FOLDER)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if os.fstat(lock).st_nlink:
                return path, lock
            os.close(lock)


def _remove_unless_locked(folder: Path) -> None:
    with contextlib.suppress(OSError), _opened(folder) as lock:  # locked, gone meanwhile, or of another user
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder)


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, OPEN_FOLDER)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
