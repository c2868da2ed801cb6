"""Why a worker ended, as far as the kernel tells: the reason codes of a backend that let its task down."""

import signal
from pathlib import Path
from typing import Final

from backends.kernel import OUT_OF_MEMORY

BACKEND_CRASHED: Final = 1021  # agent.protocol.reasons
BACKEND_HUNG: Final = 1022


def oom_kills() -> int:
    """How many processes the kernel has killed for want of memory since boot, here or in any control group."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def judged(returncode: int, killed_by_us: bool, oom_kills_before: int) -> tuple[int, str]:
    """The reason code of an end that nobody had asked for, and in words what its number does not say."""
    match -returncode:
        case signal.SIGXCPU:
            return BACKEND_HUNG, ": it used up the processor time of its call"
        case signal.SIGALRM:
            return BACKEND_CRASHED, ": its supervisor gave no sign of life"
        case signal.SIGKILL if not killed_by_us and oom_kills() > oom_kills_before:
            return OUT_OF_MEMORY, ": the kernel had no memory left"
    return BACKEND_CRASHED, ""
