"""The processors of this machine in the order in which a few threads are best put on them."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

SYSFS: Final = Path("/sys/devices/system/cpu")
SPEED: Final = ("cpu_capacity", "cpufreq/cpuinfo_max_freq")
"""Where Linux tells slow cores from fast ones: Arm's capacity, else the highest clock."""


def kinds(allowed: Sequence[int], sysfs: Path = SYSFS) -> list[tuple[int, ...]]:
    """Cores of one speed together, the fastest kind first; of each physical core one hyperthread before the others."""
    by_speed: dict[int, list[int]] = {}
    for core in sorted(allowed):
        by_speed.setdefault(_speed(sysfs / f"cpu{core}"), []).append(core)
    return [
        tuple(sorted(cores, key=lambda core: (_turn(sysfs, core, allowed), core)))
        for _, cores in sorted(by_speed.items(), reverse=True)
    ]


def allowed_here() -> list[int]:
    """The cores that this process may use."""
    return sorted(os.sched_getaffinity(0))


def _speed(core: Path) -> int:
    """0 where the machine does not tell, as most virtual ones do not: then all are of one kind."""
    for name in SPEED:
        try:
            return int((core / name).read_text())
        except (OSError, ValueError):
            continue
    return 0


def _turn(sysfs: Path, core: int, allowed: Sequence[int]) -> int:
    """Which hyperthread of its physical core it is."""
    try:
        listed = (sysfs / f"cpu{core}/topology/thread_siblings_list").read_text()
        siblings = {each for part in listed.strip().split(",") for each in _range(part)}
    except (OSError, ValueError):
        return 0
    return sorted(siblings & {*allowed} | {core}).index(core)


def _range(part: str) -> range:
    first, _, last = part.partition("-")
    return range(int(first), int(last or first) + 1)
