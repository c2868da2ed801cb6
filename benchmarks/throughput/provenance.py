"""On what machine, with what, and when figures were measured."""

import datetime as dt
import os
import platform
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Final

from benchmarks.throughput.results import MeterUsed, Provenance

DISTRIBUTIONS: Final = (
    "parkwatt",
    "numpy",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "ai-edge-litert",
    "tflite-runtime",
    "mlcommons-loadgen",
)
CLOCK_SOURCE: Final = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")
GOVERNOR: Final = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
GIT_S: Final = 10


def taken(
    command: Sequence[str], meter: MeterUsed | None, why_no_meter: str, others_before: float | None
) -> Provenance:
    """Look at the machine now, before anything is measured."""
    commit, dirty = _commit(Path(__file__).parent)
    return Provenance(
        cpu_model=_cpu_model(),
        cores=os.cpu_count() or 1,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        architecture=platform.machine(),
        hypervisor="hypervisor" in _cpu_field("flags").split(),
        kernel=platform.release(),
        governor=_line(GOVERNOR),
        clock_source=_line(CLOCK_SOURCE),
        python=platform.python_version(),
        versions=_versions(),
        git_commit=commit,
        git_dirty=dirty,
        load_before=os.getloadavg()[0],
        others_before=others_before,
        meter=meter,
        why_no_meter=why_no_meter,
        began_at=now(),
        command=tuple(command),
    )


def now() -> str:
    """RFC 3339, UTC, whole seconds."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _cpu_model() -> str:
    """As the kernel has it; ARM's kernels say it in the device tree, if at all."""
    name = _cpu_field("model name") or _line(Path("/proc/device-tree/model")).strip("\0")
    return name or platform.processor() or platform.machine()


def _cpu_field(name: str) -> str:
    """Of the first processor in /proc/cpuinfo; empty when it is not there."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    fields = (line.partition(":") for line in lines)
    return next((value.strip() for key, _, value in fields if key.strip() == name), "")


def _line(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _versions() -> dict[str, str]:
    found = {}
    for name in DISTRIBUTIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _commit(folder: Path) -> tuple[str, bool | None]:
    """Of the checkout that this file lies in, and whether it differs; empty and None outside of one."""
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return commit, bool(_git(folder, "status", "--porcelain"))
    except (OSError, subprocess.SubprocessError):
        return "", None


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True, timeout=GIT_S
    )
    return done.stdout.strip()
