"""Where a KUKSA broker has the signals of `vss.py`: paths, types and units of VSS 4, 5 and 6.

Nobody has to say which version a broker carries: it is asked for each path, the newest first. Overlay signals are
looked for under the names of `vss.py`.

Source: COVESA VSS 4.0, 5.1 and 6.0. `OccupancyStatus` is OCCUPIED, EMPTY or UNKNOW (as the standard spells it).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from firmware_shims import vss
from firmware_shims.reading import Value
from firmware_shims.vss_values import KINDS, TRUTH, Read

QUICK_S: Final = 3.0
"""Three times the second in which kuksa-can-provider refreshes a signal that it was told nothing else about."""
SLOW_S: Final = 10.0
"""For what cannot change within seconds: charge, temperatures, the 12 V battery."""

UNITS: Final[Mapping[str, Mapping[str, float]]] = {
    "": {"": 1},
    "km/h": {"km/h": 1, "m/s": 3.6},
    "percent": {"percent": 1},
    "A": {"A": 1, "mA": 0.001},
    "V": {"V": 1, "mV": 0.001},
    "W": {"W": 1, "kW": 1000},
    "s": {"s": 1, "min": 60, "h": 3600},
    "celsius": {"celsius": 1, "Celsius": 1},
    "degrees": {"degrees": 1, "degree": 1},
}
"""Factors into the unit of `vss.py`, by the unit that the broker states."""


def _occupancy(value: object) -> Value | None:
    return {"OCCUPIED": True, "EMPTY": False}.get(value) if isinstance(value, str) else None


@dataclass(frozen=True, slots=True)
class Leaf:
    """One place where a broker may have a signal. `unit` is that of `vss.py`."""

    path: str
    read: Read
    unit: str = ""

    def factor(self, unit: str) -> float | None:
        """Factor from the unit that the broker states; None for one that is no unit of this quantity.

        A broker that states none means the standard's.
        """
        return UNITS[self.unit].get(unit or self.unit)


@dataclass(frozen=True, slots=True)
class Signal:
    """A signal of `vss.py`: where it may be, newest VSS first, and the age at which it is stale unless configured."""

    leaves: tuple[Leaf, ...]
    stale_after_s: float = QUICK_S


def _same(path: str, unit: str = "", stale_after_s: float = QUICK_S) -> Signal:
    return Signal((Leaf(path, KINDS[path].read, unit),), stale_after_s)


_SEAT: Final = "Vehicle.Cabin.Seat.Row1.DriverSide"
_CABLE_BEFORE_VSS_5: Final = "Vehicle.Powertrain.TractionBattery.Charging.IsChargingCableConnected"

SIGNALS: Final[Mapping[str, Signal]] = {
    vss.LOW_VOLTAGE_STATE: _same(vss.LOW_VOLTAGE_STATE),
    vss.SPEED: _same(vss.SPEED, "km/h"),
    vss.GEAR: _same(vss.GEAR),
    **{door: _same(door) for door in vss.DOORS},
    vss.DRIVER_LOCK: _same(vss.DRIVER_LOCK),
    vss.DRIVER_SEAT: Signal(
        (Leaf(f"{_SEAT}.OccupancyStatus", _occupancy), Leaf(vss.DRIVER_SEAT, TRUTH.read))
    ),
    vss.BRAKE: _same(vss.BRAKE, "percent"),
    vss.SOC: _same(vss.SOC, "percent", SLOW_S),
    vss.PACK_CURRENT: _same(vss.PACK_CURRENT, "A"),
    vss.PACK_VOLTAGE: _same(vss.PACK_VOLTAGE, "V"),
    vss.PACK_TEMPERATURE_MIN: _same(vss.PACK_TEMPERATURE_MIN, "celsius", SLOW_S),
    vss.PACK_TEMPERATURE_MAX: _same(vss.PACK_TEMPERATURE_MAX, "celsius", SLOW_S),
    vss.IS_CHARGING: _same(vss.IS_CHARGING),
    vss.CABLE_CONNECTED: Signal(
        (Leaf(vss.CABLE_CONNECTED, TRUTH.read), Leaf(_CABLE_BEFORE_VSS_5, TRUTH.read))
    ),
    vss.TIME_TO_COMPLETE: _same(vss.TIME_TO_COMPLETE, "s", SLOW_S),
    vss.LOW_VOLTAGE_BATTERY: _same(vss.LOW_VOLTAGE_BATTERY, "V", SLOW_S),
    vss.AMBIENT_TEMPERATURE: _same(vss.AMBIENT_TEMPERATURE, "celsius", SLOW_S),
    vss.LATITUDE: _same(vss.LATITUDE, "degrees"),
    vss.LONGITUDE: _same(vss.LONGITUDE, "degrees"),
    vss.CHARGE_LINE_POWER: _same(vss.CHARGE_LINE_POWER, "W"),
    vss.CHIP_TEMPERATURE: _same(vss.CHIP_TEMPERATURE, "celsius"),
    vss.COMPUTE_RAIL: _same(vss.COMPUTE_RAIL),
    vss.GRID_LIMIT: _same(vss.GRID_LIMIT, "W"),
}


@dataclass(frozen=True, slots=True)
class Carried:
    """A signal at the place where this broker has it."""

    signal: str
    leaf: Leaf
    factor: float

    def value(self, raw: object) -> Value | None:
        """The value in the unit of `vss.py`; None when it cannot be trusted."""
        if self.factor != 1 and isinstance(raw, int | float) and not isinstance(raw, bool):
            raw *= self.factor
        return self.leaf.read(raw)


def locate(signal: str, unit_of: Callable[[str], str | None]) -> Carried | None:
    """Where the broker has `signal`; None when it does not, or in a unit of another quantity.

    `unit_of` asks the broker for the unit of a path: None when it does not have the path.
    """
    for leaf in SIGNALS[signal].leaves:
        unit = unit_of(leaf.path)
        if unit is not None:
            factor = leaf.factor(unit)
            return None if factor is None else Carried(signal, leaf, factor)
    return None
