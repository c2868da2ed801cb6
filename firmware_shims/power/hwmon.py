"""Meters from the kernel's hardware monitors: counters (`energy*_input`) and powers (`power*_input`, `_average`).

How sensors are written stands in `firmware_shims/sysfs.py`; several are added up.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, Final

from firmware_shims.clock import Clock
from firmware_shims.power.counting import RawCounter
from firmware_shims.power.meter import JouleSource, MeterFailed, MeterReading, Scope
from firmware_shims.power.sampled import PERIOD_S, SampledMeter
from firmware_shims.sysfs import Quantity, Sensor

MICRO: Final = 1e-6
"""The unit of the files; a chip's own step is larger and not told."""
MAX_W: Final = 10_000.0


class HwmonCounter:
    """The sum of sensors that count joules. `root` is where sysfs is mounted."""

    source: ClassVar[JouleSource] = JouleSource.COUNTER
    scope: ClassVar[Scope] = Scope.RAILS
    resolution_j: ClassVar[float] = MICRO

    def __init__(
        self, sensors: Sequence[str], clock: Clock, root: Path = Path("/sys"), resolution_s: float = PERIOD_S
    ) -> None:
        self.name = ", ".join(sensors)
        self.resolution_s = resolution_s
        self._clock = clock
        self._root = root
        self._counters = {
            Sensor(written, Quantity.JOULES): RawCounter(1.0, wraps_at=None, max_w=MAX_W)
            for written in sensors
        }

    def read(self) -> MeterReading:
        """Add up the sensors; raises MeterFailed while one of them does not answer."""
        shown = [answer(sensor, self._root) for sensor in self._counters]
        at_ns = self._clock()
        readings = [
            counter.advance(joules, at_ns)
            for counter, joules in zip(self._counters.values(), shown, strict=True)
        ]
        since_ns = max(reading.since_ns for reading in readings)
        return MeterReading(sum(reading.joules for reading in readings), at_ns, since_ns)

    def close(self) -> None:
        """Nothing is held open."""


def hwmon_power(
    sensors: Sequence[str], clock: Clock, root: Path = Path("/sys"), resolution_s: float = PERIOD_S
) -> SampledMeter:
    """A meter over sensors that show watts. `resolution_s`: the averaging interval, where the chip has one.

    ValueError for what is no such sensor.
    """
    return SampledMeter(
        ", ".join(sensors),
        Scope.RAILS,
        summed(sensors, root),
        clock,
        resolution_w=MICRO,
        resolution_s=resolution_s,
    )


def summed(sensors: Sequence[str], root: Path) -> Callable[[], float]:
    """The watts of sensors added up."""
    asked = [Sensor(written, Quantity.WATTS) for written in sensors]
    return lambda: sum(answer(sensor, root) for sensor in asked)


def answer(sensor: Sensor, root: Path) -> float:
    """What one sensor shows; raises MeterFailed while it does not answer."""
    value = sensor.read(root)
    if value is None:
        there = ", ".join(sensor.others(root)) or "none of its kind"
        fix = f"write in options one of those that are here: {there}"
        raise MeterFailed(f"{sensor.written} does not answer or is not the only one of that name", fix)
    return value
