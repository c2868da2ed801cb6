"""How much memory of its own this process has in use, so that a backend can say what a model takes of it."""

import ctypes
from pathlib import Path
from typing import Final

KIB: Final = 1024


def resident_bytes() -> int:
    """Resident memory without what is shared with other processes (RssAnon and RssFile of proc(5)).

    The tensors' arena is shared memory and not counted; pages of a mapped model file are.
    """
    sizes = dict(
        line.split(":", 1)
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("Rss")
    )
    return sum(int(sizes[name].split()[0]) * KIB for name in ("RssAnon", "RssFile"))


def grown_bytes(before_bytes: int, file_bytes: int) -> int:
    """What a load that began at `before_bytes` has taken: the growth, and at least the size of the file.

    What an earlier program freed may be used again without growth, hence the floor.
    """
    give_freed_memory_back()  # what compiling has used and freed is not the program's
    return max(resident_bytes() - before_bytes, file_bytes)


def give_freed_memory_back() -> None:
    """Return what this process has freed to the system: after a program was closed that is megabytes.

    The C library keeps it otherwise. Only glibc has malloc_trim(3); others keep less.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
