"""A car for tests: readings by hand, a clock by hand."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from firmware_shims import vss
from firmware_shims.reading import Quality, Reading, Sink, Snapshot, Value

NS = 1_000_000_000

PARKED_AND_CHARGING: Mapping[str, Value] = {
    vss.LOW_VOLTAGE_STATE: "OFF",
    **dict.fromkeys(vss.DOORS, False),
    vss.DRIVER_SEAT: False,
    vss.BRAKE: 0.0,
    vss.GEAR: vss.GEAR_PARK,
    vss.SPEED: 0.0,
    vss.CHARGE_LINE_POWER: 7200.0,
    vss.PACK_CURRENT: 15.0,
    vss.SOC: 64.0,
    vss.PACK_TEMPERATURE_MIN: 22.0,
    vss.PACK_TEMPERATURE_MAX: 24.0,
    vss.CHIP_TEMPERATURE: 45.0,
}
"""Just what the guards cannot do without, and every door."""

FULLY_EQUIPPED: Mapping[str, Value] = {
    **PARKED_AND_CHARGING,
    vss.DRIVER_LOCK: True,
    vss.CABLE_CONNECTED: True,
    vss.LOW_VOLTAGE_BATTERY: 13.6,
    vss.AMBIENT_TEMPERATURE: 18.0,
    vss.COMPUTE_RAIL: "ON",
    vss.GRID_LIMIT: 11_000.0,
    vss.TIME_TO_COMPLETE: 0.0,
}
"""A car that tells everything that any guard looks at."""


@dataclass
class HandClock:
    """A clock that goes only when told."""

    now_ns: int = 1000 * NS

    def __call__(self) -> int:
        return self.now_ns

    def forward(self, seconds: float) -> int:
        self.now_ns += int(seconds * NS)
        return self.now_ns


@dataclass
class Car:
    """Values and qualities of every signal, changed by hand."""

    values: dict[str, Value] = field(default_factory=lambda: dict(PARKED_AND_CHARGING))
    qualities: dict[str, Quality] = field(default_factory=dict)

    def readings(self, now_ns: int, source: str = "car") -> list[Reading]:
        return [
            Reading(path, value, source, now_ns, self.qualities.get(path, Quality.GOOD))
            for path, value in self.values.items()
        ]

    def snapshot(self, now_ns: int) -> Snapshot:
        return Snapshot(now_ns, {reading.path: reading for reading in self.readings(now_ns)})


@dataclass
class HandSource:
    """A source that is driven by calls of the test."""

    name: str = "car"
    stale_after_s: Mapping[str, float] = field(
        default_factory=lambda: dict.fromkeys(PARKED_AND_CHARGING, 0.5)
    )

    def run(self, sink: Sink, stop: threading.Event) -> None:
        raise NotImplementedError
