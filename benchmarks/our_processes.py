"""What the agent and its workers take of this machine, read from proc(5)."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

KIB_PER_MIB: Final = 1024
TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Census:
    """A process and all its descendants at one instant.

    `cpu_s` also counts the workers that have ended. `sleeps`: voluntary context switches by thread; each is a time
    that the processor had to be woken up for it.
    """

    processes: int
    resident_mib: float
    proportional_mib: float
    cpu_s: float
    sleeps: Mapping[str, int]

    def woken_since(self, before: "Census") -> int:
        """Wake-ups of every thread since then; those of a thread that has ended meanwhile are not seen."""
        return sum(count - before.sleeps.get(thread, 0) for thread, count in self.sleeps.items())


def census(pid: int) -> Census:
    """Count the family of `pid`; it has to run."""
    pids = family(pid)
    return Census(
        processes=len(pids),
        resident_mib=sum(memory_mib(each, "Rss") for each in pids),
        proportional_mib=sum(memory_mib(each, "Pss") for each in pids),
        cpu_s=_ended_children_s(pid) + sum(_cpu_s(each) for each in pids),
        sleeps={thread: count for each in pids for thread, count in _sleeps(each).items()},
    )


def family(pid: int) -> list[int]:
    """The process and all its descendants."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += family(int(child))
    return found


def memory_mib(pid: int, kind: str) -> float:
    """`Rss` or `Pss` of one process."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(f"{kind}:"):
            return int(line.split()[1]) / KIB_PER_MIB
    raise RuntimeError(f"/proc/{pid}/smaps_rollup has no {kind}")


def _sleeps(pid: int) -> dict[str, int]:
    counts = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        for line in (task / "status").read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches:"):
                counts[str(task)] = int(line.split()[1])
    return counts


def _cpu_s(pid: int) -> float:
    utime, stime, _, _ = _times(pid)
    return (utime + stime) / TICKS_PER_S


def _ended_children_s(pid: int) -> float:
    _, _, utime, stime = _times(pid)
    return (utime + stime) / TICKS_PER_S


def _times(pid: int) -> tuple[int, int, int, int]:
    """Fields 14 to 17 of stat: utime, stime, cutime, cstime."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    utime, stime, cutime, cstime = map(int, fields[11:15])
    return utime, stime, cutime, cstime
