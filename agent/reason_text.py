"""What was seen and what is needed, of a reason against work, as people read it."""

from typing import Final

from agent.protocol.reasons import Reason

UNITS: Final = {
    Reason.CHARGE_LOW: " %",
    Reason.PACK_TEMPERATURE: " C",
    Reason.AMBIENT_TEMPERATURE: " C",
    Reason.CHIP_TEMPERATURE: " C",
    Reason.LOW_VOLTAGE: " V",
    Reason.GRID_LIMIT: " W",
    Reason.DEPARTURE_SOON: " s",
    Reason.PACK_BUDGET: " %",
}
UNITS_OF_LIMITS: Final = frozenset({"W", "A", "km/h"})
"""Where a reason has several limits, each names its own as its last word."""


def seen(reason: Reason, value: float | str | bool | None, limit: float | str | None) -> str:
    """The value and its limit; a condition of words says by itself what is not so."""
    if reason is Reason.SETTLING:
        return f"{limit}"
    if isinstance(value, bool) and limit is not None:
        return f"needs {_shown(limit)}"
    if reason is Reason.UNKNOWN_SIGNAL:
        return f"{_shown(value)}: needs {_shown(limit)}".replace("it is never", "it never came")
    unit = UNITS.get(reason) or _unit_of(limit)
    shown = _shown(value) + (unit if isinstance(value, float | int) else "")
    if limit is None:
        return shown
    if isinstance(limit, str):
        return f"{shown}, needs {limit}{unit if limit[-1:].isdigit() else ''}"
    return f"{shown}, limit {_shown(limit)}{unit}"


def _unit_of(limit: float | str | None) -> str:
    last = limit.rpartition(" ")[2] if isinstance(limit, str) else ""
    return f" {last}" if last in UNITS_OF_LIMITS else ""


def _shown(value: float | str | bool | None) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else f"{value:g}"
