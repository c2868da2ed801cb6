"""What a value of each signal of `vss.py` may be, in the units of that file: its type, its range or its words."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from firmware_shims import vss
from firmware_shims.reading import Value

Read = Callable[[object], Value | None]
"""What a value as it came means; None for a wrong type, a value out of range and one that says "unknown"."""


@dataclass(frozen=True, slots=True)
class Kind:
    """The values that a signal may have. `words` say to people which these are."""

    words: str
    read: Read


def _number(low: float, high: float, unit: str) -> Kind:
    def read(value: object) -> Value | None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        return value if low <= value <= high else None  # no NaN either

    return Kind(f"a number from {low:.15g} to {high:.15g} {unit}", read)


def _word(*words: str) -> Kind:
    def read(value: object) -> Value | None:
        return value if isinstance(value, str) and value in words else None

    return Kind(f"one of {', '.join(words)}", read)


def _truth(value: object) -> Value | None:
    return value if isinstance(value, bool) else None


def _gear(value: object) -> Value | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and -128 <= value <= 127 else None


TRUTH: Final = Kind("true or false", _truth)
_A_WEEK_S: Final = 604_800
_CELSIUS: Final = _number(-60, 150, "degrees Celsius")

KINDS: Final[Mapping[str, Kind]] = {
    vss.LOW_VOLTAGE_STATE: _word("LOCK", "OFF", "ACC", "ON", "START"),
    vss.SPEED: _number(-500, 500, "km/h"),
    vss.GEAR: Kind("a whole number from -128 to 127", _gear),
    **dict.fromkeys(vss.DOORS, TRUTH),
    vss.DRIVER_LOCK: TRUTH,
    vss.DRIVER_SEAT: TRUTH,
    vss.BRAKE: _number(0, 100, "%"),
    vss.SOC: _number(0, 100, "%"),
    vss.PACK_CURRENT: _number(-5000, 5000, "A"),
    vss.PACK_VOLTAGE: _number(0, 2000, "V"),
    vss.PACK_TEMPERATURE_MIN: _CELSIUS,
    vss.PACK_TEMPERATURE_MAX: _CELSIUS,
    vss.IS_CHARGING: TRUTH,
    vss.CABLE_CONNECTED: TRUTH,
    vss.TIME_TO_COMPLETE: _number(0, _A_WEEK_S, "s"),
    vss.LOW_VOLTAGE_BATTERY: _number(0, 60, "V"),
    vss.AMBIENT_TEMPERATURE: _CELSIUS,
    vss.LATITUDE: _number(-90, 90, "degrees"),
    vss.LONGITUDE: _number(-180, 180, "degrees"),
    vss.CHARGE_LINE_POWER: _number(-1e6, 1e6, "W"),
    vss.CHIP_TEMPERATURE: _CELSIUS,
    vss.COMPUTE_RAIL: _word("ON", "GOING_DOWN", "FAULT", "OFF"),
    vss.GRID_LIMIT: _number(0, 1e6, "W"),
}
"""Every signal of `vss.py`."""
