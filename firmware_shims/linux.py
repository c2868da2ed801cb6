"""Sensors of the computer itself out of sysfs; so far the chip's temperature, from thermal zones by their type.

[signals.options]
chip_zones = ["cpu-thermal", "gpu-thermal"]   # `type` of the zones, never their number; the hottest one counts

Source: Documentation/driver-api/thermal/sysfs-api.rst of the Linux kernel. A zone's `temp` is in millidegrees.
"""

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from firmware_shims import vss
from firmware_shims.clock import Clock
from firmware_shims.reading import Quality, Reading, Sink

PERIOD_S: Final = 0.2
STALE_AFTER_S: Final = 2.0
ZONES: Final = "class/thermal"


class LinuxSensors:
    """A `Source` that reads the chip's temperature five times a second. `root` is where sysfs is mounted."""

    def __init__(self, name: str, chip_zones: Sequence[str], clock: Clock, root: Path = Path("/sys")) -> None:
        self.name = name
        self.stale_after_s: Mapping[str, float] = {vss.CHIP_TEMPERATURE: STALE_AFTER_S}
        self._wanted = frozenset(chip_zones)
        self._clock = clock
        self._root = root

    def chip_c(self) -> float | None:
        """Degrees Celsius of the hottest zone; None while any of them does not answer."""
        zones = {_text(folder / "type"): folder for folder in (self._root / ZONES).glob("thermal_zone*")}
        found = [_celsius(zones[kind] / "temp") for kind in self._wanted if kind in zones]
        answers = [value for value in found if value is not None]
        return max(answers) if len(answers) == len(self._wanted) else None

    def run(self, sink: Sink, stop: threading.Event) -> None:
        """Read until stopped; a sensor that does not answer is an invalid reading, never a cold chip."""
        while not stop.is_set():
            value = self.chip_c()
            quality = Quality.INVALID if value is None else Quality.GOOD
            now_ns = self._clock()
            sink.update([Reading(vss.CHIP_TEMPERATURE, value, self.name, now_ns, quality)])
            sink.heard(self.name, now_ns)
            stop.wait(PERIOD_S)


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


def _celsius(path: Path) -> float | None:
    text = _text(path)
    try:
        return None if text is None else int(text) / 1000
    except ValueError:
        return None
