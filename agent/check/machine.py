"""What the agent needs of the machine itself: a kernel that can confine workers, a clock, an interpreter, packages."""

import datetime as dt
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from agent import wall_clock
from agent.check.finding import Finding, broken, works
from agent.check.packages import Package, packages, rivals
from agent.version import version
from backends import landlock, syscall_filter

SECCOMP: Final = Path("/proc/sys/kernel/seccomp/actions_avail")
"""There where the kernel has seccomp's filters (seccomp(2))."""


def confinement() -> Iterator[Finding]:
    """Whether the kernel has what keeps a hostile model inside its worker."""
    try:
        yield works(
            "machine",
            "Landlock",
            f"interface {landlock.abi()} of the kernel: workers see only their own files",
        )
    except OSError as error:
        fix = "run a kernel from 5.13 on with CONFIG_SECURITY_LANDLOCK, and landlock in its lsm= list"
        yield broken(
            "machine",
            "Landlock",
            f"not to be had ({error.strerror}): workers could read the agent's files",
            fix,
        )
    architecture = os.uname().machine
    if not SECCOMP.exists():
        fix = "run a kernel with CONFIG_SECCOMP_FILTER"
        yield broken("machine", "seccomp", "not to be had: workers could open connections", fix)
    elif architecture not in syscall_filter.AUDIT_ARCH:
        known = ", ".join(syscall_filter.AUDIT_ARCH)
        text = f"no filter for {architecture}: workers could open connections"
        yield broken("machine", "seccomp", text, f"run it on one of {known}")
    else:
        yield works("machine", "seccomp", "workers open no connections and start no programs")


def clock(now_s: float, floor_s: float) -> Finding:
    """Whether the wall clock can be right; `floor_s` is the newest signed time that the store holds, 0 without any."""
    now = dt.datetime.fromtimestamp(now_s, dt.UTC)
    shown = f"{now:%Y-%m-%d %H:%M:%S} UTC"
    fix = "set the clock: let systemd-timesyncd or chrony do it, and give the RTC its battery"
    if wall_clock.trusted(now_s, floor_s) is None:
        passed = dt.datetime.fromtimestamp(max(floor_s, wall_clock.FIRST_S), dt.UTC)
        text = f"it shows {shown}, and {passed:%Y-%m-%d %H:%M} has passed: certificates and the schedule go wrong"
        return broken("machine", "clock", text, fix)
    return works("machine", "clock", f"{shown}, not before the newest signed message")


def software() -> Iterator[Finding]:
    """Interpreter and packages as they are installed here, against what this parkwatt asks for."""
    found = packages()
    wanting = [package for package in found if package.problem]
    for package in wanting:
        fix = f"pip install '{package.requirement}', or install parkwatt again"
        yield broken("software", package.name, package.problem, fix)
    for names in rivals():
        text = f"{' and '.join(names)} are both installed, and are one import package"
        yield broken(
            "software", names[0], text, f"pip uninstall {' '.join(names)}, then install the one that is meant"
        )
    if not wanting:
        yield works("software", f"parkwatt {version()}", f"{_interpreter()}; {', '.join(map(_shown, found))}")


def _interpreter() -> str:
    return f"Python {platform.python_version()} on {os.uname().machine} at {sys.prefix}"


def _shown(package: Package) -> str:
    return f"{package.name} {package.version}"
