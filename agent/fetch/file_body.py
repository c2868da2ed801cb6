"""A body from a file of this computer."""

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from threading import Event
from typing import BinaryIO, Final

from agent.fetch.errors import CalledOff, NotFetched
from agent.fetch.landing import Landing

CHUNK_BYTES: Final = 1 << 20


def read(path: Path, folders: Sequence[Path] | None, landing: Landing, off: Event) -> None:
    """Copy the file into `landing`, until `off` is set. With `folders` it has to lie in one of them, links followed."""
    with _opened(path, folders) as file:
        landing.begin(os.fstat(file.fileno()).st_size, None)
        while landing.nbytes < landing.size:
            if off.is_set():
                raise CalledOff
            chunk = _chunk(path, file, min(CHUNK_BYTES, landing.size - landing.nbytes))
            if not chunk:
                raise NotFetched(f"{path}: ended after {landing.nbytes} of {landing.size} bytes")
            landing.take(chunk)


def _opened(path: Path, folders: Sequence[Path] | None) -> BinaryIO:
    """Find the file, judge what was found, and open just that: no link can be turned in between (O_PATH, open(2))."""
    try:
        found = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            here = f"/proc/self/fd/{found}"
            if not stat.S_ISREG(os.fstat(found).st_mode):
                raise NotFetched(f"{path}: not a regular file")
            real = Path(os.readlink(here))  # noqa: PTH115 - Path.readlink of a magic link is the same call
            if folders is not None and not any(real.is_relative_to(folder.resolve()) for folder in folders):
                raise NotFetched(f"{path}: leads out of the folders from which files may come")
            return open(here, "rb")  # noqa: PTH123 - not where it is named; the caller closes it
        finally:
            os.close(found)
    except OSError as error:
        raise NotFetched(f"{path}: {error.strerror}") from error


def _chunk(path: Path, file: BinaryIO, size: int) -> bytes:
    try:
        return file.read(size)
    except OSError as error:
        raise NotFetched(f"{path}: {error.strerror}") from error
