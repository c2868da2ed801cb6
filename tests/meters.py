"""A computer to be measured: its sysfs as the kernel writes it, and a meter that is turned by hand."""

import contextlib
import os
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

from cars import NS, HandClock

from firmware_shims.clock import boottime_ns
from firmware_shims.power.meter import JouleSource, MeterFailed, MeterReading, Scope

NOBODY = 65_534


@dataclass
class Sysfs:
    """`/sys` below `root`."""

    root: Path

    def package(self, zone: str, name: str, energy_uj: int = 0, range_uj: int = 262_143_328_850) -> Path:
        """A zone of RAPL; returns its counter."""
        folder = self._folder(
            f"class/powercap/{zone}", name=name, energy_uj=energy_uj, max_energy_range_uj=range_uj
        )
        return folder / "energy_uj"

    def chip(self, number: int, name: str, **files: object) -> Path:
        """A chip of hwmon."""
        return self._folder(f"class/hwmon/hwmon{number}", name=name, **files)

    def monitor(self, *rails: tuple[str, int, int]) -> Path:
        """An INA3221: label, millivolts and milliamperes of each channel, and the sum that its driver adds."""
        files: dict[str, object] = {"in7_label": "sum of shunt voltages", "in7_input": 3}
        for channel, (label, millivolts, milliamperes) in enumerate(rails, start=1):
            files[f"in{channel}_label"] = label
            files[f"in{channel}_input"] = millivolts
            files[f"curr{channel}_input"] = milliamperes
        return self.chip(4, "ina3221", **files)

    def _folder(self, place: str, **files: object) -> Path:
        folder = self.root / place
        folder.mkdir(parents=True)
        for file, text in files.items():
            (folder / file).write_text(f"{text}\n")
        return folder


@contextlib.contextmanager
def open_to_all() -> Iterator[Path]:
    """A folder that everybody may look into; pytest's own are for its user only."""
    with tempfile.TemporaryDirectory(prefix="parkwatt-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@contextlib.contextmanager
def without_rights() -> Iterator[None]:
    """What only root may read is refused in here."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@dataclass
class HandMeter:
    """A meter whose joules the test adds. `broken`: why it fails; `reset`: it has just lost count."""

    clock: HandClock
    name: str = "hand"
    source: JouleSource = JouleSource.COUNTER
    scope: Scope = Scope.COMPUTER
    resolution_j: float = 1e-6
    resolution_s: float = 0.01
    joules: float = 0.0
    broken: str = ""
    since_ns: int = 0
    reads: int = 0
    closed: int = 0
    FIX: ClassVar[str] = "plug it in"

    def read(self) -> MeterReading:
        self.reads += 1
        if self.broken:
            raise MeterFailed(self.broken, self.FIX)
        return MeterReading(self.joules, self.clock(), self.since_ns)

    def close(self) -> None:
        self.closed += 1

    def draw(self, watts: float, seconds: float) -> None:
        """Let time pass at this power."""
        self.joules += watts * int(seconds * NS) / NS
        self.clock.forward(seconds)


class RunningCounter:
    """The RAPL counter of a computer that draws `watts`, counting by itself inside `with`."""

    def __init__(self, sysfs: Sysfs, watts: float) -> None:
        self.watts = watts
        self.file = sysfs.package("intel-rapl:0", "package-0")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._count)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _count(self) -> None:
        joules, at_ns = 0.0, boottime_ns()
        while not self._stop.wait(0.002):
            before_ns, at_ns = at_ns, boottime_ns()
            joules += self.watts * (at_ns - before_ns) / NS
            fresh = self.file.with_name("fresh")
            fresh.write_text(f"{int(joules * 1e6)}\n")
            fresh.replace(self.file)  # never half a number
