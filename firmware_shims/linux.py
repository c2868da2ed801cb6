"""Sensors of the computer itself: how hot it is, what its supply gives, what it draws.

[signals.options.sensors]      # a VSS path = the sensor that feeds it, or several for a temperature: the hottest counts
"Vehicle.Compute.Chip.Temperature" = ["thermal:cpu-thermal", "hwmon:tegra/GPU"]
"Vehicle.LowVoltageBattery.CurrentVoltage" = "power_supply:12v"

How sensors are written stands in `firmware_shims/sysfs.py`. The last word of the path says what is measured:
Temperature (degrees Celsius), Voltage (V), Power (W) or Energy (J).
"""

import logging
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec

from firmware_shims import options as shim_options
from firmware_shims.clock import Clock
from firmware_shims.reading import Quality, Reading, Sink
from firmware_shims.sysfs import Quantity, Sensor

PERIOD_S: Final = 0.15
STALE_AFTER_S: Final = 2.0

logger = logging.getLogger(__name__)


class LinuxOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`root` is where sysfs is mounted."""

    sensors: Annotated[
        dict[str, str | Annotated[list[str], msgspec.Meta(min_length=1)]], msgspec.Meta(min_length=1)
    ]
    root: str = "/sys"


class LinuxSensors:
    """A `Source` that reads every sensor about six times a second."""

    def __init__(
        self, name: str, sensors: Mapping[str, Sequence[Sensor]], clock: Clock, root: Path = Path("/sys")
    ) -> None:
        self.name = name
        self.stale_after_s: Mapping[str, float] = dict.fromkeys(sensors, STALE_AFTER_S)
        self._sensors = sensors
        self._clock = clock
        self._root = root
        self._silent: set[Sensor] = set()

    def run(self, sink: Sink, stop: threading.Event) -> None:
        """Read until stopped; a sensor that does not answer is an invalid reading, never a cold chip."""
        while not stop.is_set():
            sink.update(self.readings())
            sink.heard(self.name, self._clock())
            stop.wait(PERIOD_S)

    def readings(self) -> list[Reading]:
        """What every path is now; a path is unknown while any of its sensors does not answer."""
        found = []
        for path, sensors in self._sensors.items():
            answers = [self._ask(sensor) for sensor in sensors]
            known = [answer for answer in answers if answer is not None]
            value = max(known) if len(known) == len(answers) else None
            quality = Quality.INVALID if value is None else Quality.GOOD
            found.append(Reading(path, value, self.name, self._clock(), quality))
        return found

    def _ask(self, sensor: Sensor) -> float | None:
        """Read one sensor, and tell the operator when it falls silent or comes back."""
        value = sensor.read(self._root)
        if value is None and sensor not in self._silent:
            self._silent.add(sensor)
            there = ", ".join(sensor.others(self._root)) or "none of its kind"
            logger.warning("signals %s: %s does not answer; here: %s", self.name, sensor.written, there)
        elif value is not None and sensor in self._silent:
            self._silent.remove(sensor)
            logger.info("signals %s: %s answers", self.name, sensor.written)
        return value


def open_sensors(name: str, map_name: str | None, options: Mapping[str, Any], clock: Clock) -> LinuxSensors:
    """The source that `[signals.options]` describes. ValueError with one line for options that cannot work."""
    shim_options.refuse_map(map_name, "the computer's own sensors have no bus and take no map")
    wanted = shim_options.read(options, LinuxOptions)
    sensors = {path: _sensors(path, written) for path, written in wanted.sensors.items()}
    return LinuxSensors(name, sensors, clock, Path(wanted.root))


def _sensors(path: str, written: str | list[str]) -> list[Sensor]:
    several = [written] if isinstance(written, str) else written
    quantity = next((quantity for quantity in Quantity if path.endswith(quantity.value)), None)
    if quantity is None:
        words = ", ".join(quantity.value for quantity in Quantity)
        raise ValueError(f"options.sensors: {path} cannot be fed: the path must end in one of {words}")
    if len(several) > 1 and quantity is not Quantity.CELSIUS:
        raise ValueError(
            f"options.sensors: {path} has {len(several)} sensors; only a temperature takes several"
        )
    try:
        return [Sensor(sensor, quantity) for sensor in several]
    except ValueError as error:
        raise ValueError(f"options.sensors: {path}: {error}") from error
