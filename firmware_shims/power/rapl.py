"""RAPL: the processor packages' own energy counters, as Linux shows them under powercap.

The tree holds a zone for each package with zones of its parts below it, the same packages a second time by MMIO
(`intel-rapl-mmio`), and sometimes the platform (`psys`). Only `package-*` of `intel-rapl` is taken, so nothing
counts twice. AMD processors show the same tree under the same name. Memory (`dram`) is no part of a package.

Sources: Documentation/power/powercap/powercap.rst of the Linux kernel; Intel SDM volume 3, "RAPL interfaces":
updated about each millisecond, in steps of 2^-14 J by default. `energy_uj` is for root only since CVE-2020-8694.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from firmware_shims.clock import Clock
from firmware_shims.power.counting import RawCounter
from firmware_shims.power.meter import JouleSource, MeterFailed, MeterReading, Scope

MICROJOULE: Final = 1e-6
MAX_W: Final = 1000.0
"""No package draws more; the usual counter of 262 kJ is then good for 4 minutes between two looks."""
ZONES: Final = "class/powercap/intel-rapl:*"


@dataclass(frozen=True, slots=True)
class _Zone:
    file: Path
    counter: RawCounter


class RaplMeter:
    """The sum of all packages. `root` is where sysfs is mounted."""

    source: ClassVar[JouleSource] = JouleSource.COUNTER
    scope: ClassVar[Scope] = Scope.PACKAGE
    resolution_j: ClassVar[float] = 2**-14
    resolution_s: ClassVar[float] = 0.001

    def __init__(self, clock: Clock, root: Path = Path("/sys")) -> None:
        self.name = "rapl"
        self._clock = clock
        self._root = root
        self._zones: list[_Zone] = []

    def read(self) -> MeterReading:
        """Add up the packages; raises MeterFailed while one of them does not answer."""
        try:
            self._zones = self._zones or self._found()
            raws = [int(zone.file.read_bytes()) for zone in self._zones]
        except PermissionError as error:
            fix = f"let the agent's user read {error.filename}: chgrp and chmod g+r at boot"
            raise MeterFailed(f"{error.filename}: permission denied", fix) from error
        except (OSError, ValueError) as error:
            self._zones = []
            raise MeterFailed(
                f"RAPL does not answer: {error}", "load intel_rapl_msr, or take another meter"
            ) from error
        at_ns = self._clock()
        readings = [zone.counter.advance(raw, at_ns) for zone, raw in zip(self._zones, raws, strict=True)]
        since_ns = max(reading.since_ns for reading in readings)
        return MeterReading(sum(reading.joules for reading in readings), at_ns, since_ns)

    def close(self) -> None:
        """Nothing is held open."""

    def _found(self) -> list[_Zone]:
        folders = {folder: (folder / "name").read_text().strip() for folder in sorted(self._root.glob(ZONES))}
        packages = {folder: name for folder, name in folders.items() if name.startswith("package-")}
        if not packages:
            has = f"only {', '.join(sorted(folders.values()))}" if folders else "no RAPL"
            fix = "load intel_rapl_msr (virtual machines have none), or take another meter"
            raise MeterFailed(f"{self._root / 'class/powercap'}: {has} here", fix)
        self.name = f"rapl {', '.join(packages.values())}"
        return [_zone(folder) for folder in packages]


def _zone(folder: Path) -> _Zone:
    wraps_at = int((folder / "max_energy_range_uj").read_bytes())
    return _Zone(folder / "energy_uj", RawCounter(MICROJOULE, wraps_at=wraps_at, max_w=MAX_W))
