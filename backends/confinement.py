"""A worker gives up what running models does not need, once its runtime is there and before it sees a model.

Every limit is tried on its own: a kernel that lacks one keeps the others, and the supervisor is told.
Processes are bounded by the filter, which refuses new ones, and threads by the memory of their stacks:
RLIMIT_NPROC counts all of a user's tasks, the agent's too, and would fail whoever comes last.
"""

import glob
import math
import os
import resource
import signal
import site
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from backends import landlock, syscall_filter
from backends.kernel import Needs
from backends.libc import PR_SET_NO_NEW_PRIVS, drop_capabilities, prctl, yield_disks
from backends.limits import Limit, Limits

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec

OPEN_FILES: Final = 1024
SYSTEM: Final = ("/usr", "/lib", "/lib64", "/etc/ld.so.cache")
"""Libraries that are loaded late, and where the dynamic linker finds them."""
MACHINE: Final = ("/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/sys/devices/system/cpu", "/dev/urandom")
"""Where runtimes look up how many processors there are, and of what kind."""
GIB: Final = 1024**3


def confine(limits: Limits, needs: Needs, scratch: str) -> tuple[Limit, ...]:
    """Set every limit that can be had; tells of each whether it holds."""
    threads = len(os.listdir("/proc/self/task")) - 1  # noqa: PTH208 - only their number
    started_before = f"{threads} threads that its probe started are outside" if threads else ""
    return (
        _tried("first to go when memory runs out", _die_first),
        _tried(f"memory {limits.memory_bytes / GIB:.3g} GiB", lambda: _bound_memory(limits, needs)),
        _tried(
            f"files of {needs.file_bytes // 1024**2} MiB, {OPEN_FILES} open, no core dumps",
            lambda: _bound_files(needs.file_bytes),
        ),
        _tried("processor time of each call", lambda: ProcessorTime().allow(limits.load_s)),
        _tried("last in line for disks", yield_disks),
        _tried("no new privileges", lambda: prctl(PR_SET_NO_NEW_PRIVS, 1)),
        _tried("no capabilities", drop_capabilities, started_before),
        _files(limits, needs, scratch, started_before),
        _tried("no network, processes or signals to others (seccomp)", syscall_filter.install),
    )


class ProcessorTime:
    """What this process may use of it, all its threads together: the kernel ends it after that (RLIMIT_CPU).

    Set anew for each call, because over a night a healthy worker uses hours. The kernel counts whole seconds, so a
    short call most often finds it as it should be.
    """

    def __init__(self) -> None:
        self._until_s: int | None = None

    def allow(self, seconds: float) -> float:
        """Let it use so much more; returns what it has used."""
        used_s = time.process_time()
        until_s = math.ceil(used_s + seconds) + 1
        if until_s != self._until_s:
            _, most = resource.getrlimit(resource.RLIMIT_CPU)
            resource.setrlimit(resource.RLIMIT_CPU, (until_s, most))
            self._until_s = until_s
        return used_s


def let_timers_end_it() -> None:
    """Undo what the agent's own surroundings may have done to the signals that end a worker."""
    mortal = {signal.SIGALRM, signal.SIGXCPU}
    for each in mortal:
        signal.signal(each, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, mortal)


def _tried(name: str, hold: Callable[[], object], but: str = "") -> Limit:
    try:
        hold()
    except OSError as error:
        return Limit(name, error.strerror or str(error))
    return Limit(name, but)


def _die_first() -> None:
    Path("/proc/self/oom_score_adj").write_text("1000")


def _bound_memory(limits: Limits, needs: Needs) -> None:
    """Bound the address space, or, for who reserves far more of it than it fills, private writable memory.

    A mapping that is shared with nobody escapes the second.
    """
    pages = [int(word) for word in Path("/proc/self/statm").read_text().split()]
    size, _, _, _, _, data, _ = (each * resource.getpagesize() for each in pages)
    if needs.reserves_addresses:
        _lower(resource.RLIMIT_DATA, data + limits.memory_bytes)
    else:
        _lower(resource.RLIMIT_AS, size + limits.memory_bytes)


def _bound_files(file_bytes: int) -> None:
    _lower(resource.RLIMIT_FSIZE, file_bytes)
    _lower(resource.RLIMIT_NOFILE, OPEN_FILES)
    _lower(resource.RLIMIT_CORE, 0)
    # a dump that the system pipes to a program of its own ignores the limit: leave nothing in it
    Path("/proc/self/coredump_filter").write_text("0")


def _lower(which: int, most: int) -> None:
    _, hard = resource.getrlimit(which)
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    resource.setrlimit(which, (most, most))


def _files(limits: Limits, needs: Needs, scratch: str, but: str) -> Limit:
    read = (*_code(), *SYSTEM, *MACHINE, *limits.model_folders, *_matching(needs.read))
    try:
        version = landlock.restrict(read, scratch, ("/dev/null", *_matching(needs.devices)))
    except OSError as error:
        return Limit("only its own files (Landlock)", error.strerror or str(error))
    return Limit(f"only its own files (Landlock ABI {version})", but)


def _matching(patterns: tuple[str, ...]) -> Iterator[str]:
    for pattern in patterns:
        yield from glob.glob(pattern)  # noqa: PTH207 - the patterns are absolute


def _code() -> list[str]:
    """Where code may come from: the interpreter, installed packages, and what is in use. Not the working directory."""
    prefixes = {sys.prefix, sys.base_prefix, *site.getsitepackages(), site.getusersitepackages()}
    covered = tuple(f"{prefix}/" for prefix in prefixes)
    places: set[str] = set()
    for name, module in list(sys.modules.items()):
        spec: ModuleSpec | None = getattr(module, "__spec__", None)
        if "." in name or spec is None:
            continue
        places.update(spec.submodule_search_locations or ([str(spec.origin)] if spec.has_location else []))
    return [*prefixes, *(place for place in places if not place.startswith(covered))]
