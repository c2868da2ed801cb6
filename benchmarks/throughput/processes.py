"""What the kernel says of processes, ours and the others': processor time, memory, and who keeps the machine busy."""

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

NS: Final = 1_000_000_000
SCHEDULED_CLOCK: Final = 2
"""CPUCLOCK_SCHED of the kernel's include/linux/posix-timers_types.h: nanoseconds that a whole process has run."""
KIB: Final = 1024
IDLE_FIELDS: Final = frozenset({3, 4})
"""Of /proc/stat's line `cpu`: idle and iowait (proc(5)). What a hypervisor stole counts as busy."""
GUEST_FIELDS: Final = 8
"""From here on the line repeats what user and nice hold already."""


def cpu_s(pid: int) -> float:
    """Processor seconds of all threads of a process until now (clock_getcpuclockid(3)); OSError when it is gone."""
    return time.clock_gettime_ns((~pid << 3) | SCHEDULED_CLOCK) / NS


def peak_rss_bytes(pid: int) -> int:
    """The most memory that a process has had resident: VmHWM (proc(5)); OSError when it is gone."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * KIB


@dataclass(frozen=True, slots=True)
class Busy:
    """Processor seconds until now: of the whole machine, and of the benchmark's own processes."""

    machine_s: float
    ours_s: float
    at_s: float

    @classmethod
    def now(cls, pids: Iterable[int] = ()) -> "Busy":
        """Look; `pids` are the benchmark's processes beside this one."""
        fields = Path("/proc/stat").read_text().splitlines()[0].split()[1 : 1 + GUEST_FIELDS]
        ticks = sum(int(value) for place, value in enumerate(fields) if place not in IDLE_FIELDS)
        ours = time.process_time() + sum(cpu_s(pid) for pid in pids)
        return cls(ticks / os.sysconf("SC_CLK_TCK"), ours, time.monotonic())


def others_share(before: Busy, after: Busy) -> float:
    """Which share of the machine's processor time between two looks went to others, from 0 to 1."""
    available_s = (after.at_s - before.at_s) * (os.cpu_count() or 1)
    others_s = (after.machine_s - before.machine_s) - (after.ours_s - before.ours_s)
    return min(1.0, max(0.0, others_s / available_s)) if available_s > 0 else 0.0
