"""The table of conditions: each is true, false or unknown, and has its own reason, windows and hysteresis.

To add a guard: write a `judge` and add a line to `CONDITIONS`.
"""

import enum
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from agent.policy.orders import Orders
from agent.policy.settings import PolicySettings
from agent.protocol.reasons import Reason
from firmware_shims import vss
from firmware_shims.reading import Quality, Snapshot, Value


class Cause(enum.Enum):
    """Decides how work ends when a condition breaks: at once, or at the end of a batch."""

    OWNER = "owner"
    SAFETY = "safety"
    ECONOMIC = "economic"


@dataclass(frozen=True, slots=True)
class Judged:
    """One look at a condition: `holds` None means unknown. Value and limit are for people."""

    holds: bool | None
    value: Value | None = None
    limit: float | str | None = None


@dataclass(frozen=True, slots=True)
class View:
    """What a condition may look at. `held` says that it held until now: the stop threshold applies."""

    snapshot: Snapshot
    settings: PolicySettings
    declared: frozenset[str]
    compute_w: float
    orders: Orders
    unix_s: float | None = None
    held: bool = False


@dataclass(frozen=True, slots=True)
class Condition:
    """One line of the table.

    `window_s`: how long it must have held without a break before it counts. `grace_s`: how long it may be
    false (never unknown) after that before it breaks. `required`: signals without which it stays unknown;
    `optional`: judged too wherever a configured source declares them.
    """

    reason: Reason
    cause: Cause
    judge: Callable[[View], Judged]
    window_s: Callable[[PolicySettings], float]
    grace_s: Callable[[PolicySettings], float] = lambda _: 0.0
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


def _judge(view: View, path: str, fits: Callable[[Value], bool], limit: float | str) -> Judged:
    """One signal against its limit; unknown unless the reading is good.

    `fits` is written so that NaN and a value of the wrong type do not fit.
    """
    reading = view.snapshot[path]
    if reading.quality is not Quality.GOOD or reading.value is None:
        return Judged(None, path, f"a good reading, it is {reading.quality.value}")
    return Judged(fits(reading.value), reading.value, limit)


def _every(looks: Iterable[Judged]) -> Judged:
    """Three-valued AND: one look that is false decides, whatever the others are."""
    looks = tuple(looks)
    for decisive in (False, None):
        for look in looks:
            if look.holds is decisive:
                return look
    return looks[0]


def _within(low: float, high: float) -> Callable[[Value], bool]:
    return lambda value: not isinstance(value, bool | str) and low <= value <= high


def _at_least(limit: float) -> Callable[[Value], bool]:
    return _within(limit, math.inf)


def _at_most(limit: float) -> Callable[[Value], bool]:
    return _within(-math.inf, limit)


_OWNER_REQUIRED = (vss.LOW_VOLTAGE_STATE, vss.DRIVER_DOOR)
_OWNER_OPTIONAL = (*vss.DOORS[1:], vss.DRIVER_SEAT, vss.BRAKE)
_AWAY_STATES = frozenset({"OFF", "LOCK"})
_STANDSTILL_KMH = 0.5


def _owner_absent(view: View) -> Judged:
    """Doors closed, seat empty, brake released, power off; a touch of any of them is the owner."""
    sensors = (*_OWNER_REQUIRED[1:], *(path for path in _OWNER_OPTIONAL if path in view.declared))
    return _every(
        (
            _judge(view, vss.LOW_VOLTAGE_STATE, lambda value: value in _AWAY_STATES, "OFF or LOCK"),
            *(
                _judge(
                    view,
                    path,
                    lambda value: value in (False, 0),
                    f"{path.removeprefix('Vehicle.')} false or 0",
                )
                for path in sensors
            ),
        )
    )


def _parked(view: View) -> Judged:
    return _every(
        (
            _judge(view, vss.GEAR, lambda value: value == vss.GEAR_PARK, f"gear {vss.GEAR_PARK} (park)"),
            _judge(
                view,
                vss.SPEED,
                _within(-_STANDSTILL_KMH, _STANDSTILL_KMH),
                f"|speed| <= {_STANDSTILL_KMH:g} km/h",
            ),
        )
    )


def _grid_powered(view: View) -> Judged:
    """AC power that carries the computer, and a pack that is not discharging: never a plug bit."""
    needed_w = view.settings.grid_ac_factor * view.compute_w
    pack_a = view.settings.grid_pack_min_a
    return _every(
        (
            _judge(view, vss.CHARGE_LINE_POWER, _at_least(needed_w), f"charge line >= {needed_w:g} W"),
            _judge(view, vss.PACK_CURRENT, _at_least(pack_a), f"pack current >= {pack_a:g} A"),
        )
    )


def _above_floor(view: View) -> Judged:
    limit_pct = view.settings.soc_floor_pct
    return _judge(view, vss.SOC, _at_least(limit_pct), limit_pct)


def _state_of_charge(view: View) -> Judged:
    limit_pct = view.settings.soc_stop_pct if view.held else view.settings.soc_start_pct
    return _judge(view, vss.SOC, _at_least(limit_pct), limit_pct)


def _pack_temperature(view: View) -> Judged:
    low_c, high_c = view.settings.pack_stop_c if view.held else view.settings.pack_start_c
    return _every(
        (
            _judge(view, vss.PACK_TEMPERATURE_MAX, _at_most(high_c), high_c),
            _judge(view, vss.PACK_TEMPERATURE_MIN, _at_least(low_c), low_c),
        )
    )


def _chip_temperature(view: View) -> Judged:
    stop_c, resume_c = view.settings.chip_stop_c, view.settings.chip_resume_c
    if not view.held:
        return _judge(view, vss.CHIP_TEMPERATURE, _at_most(resume_c), resume_c)
    return _judge(
        view, vss.CHIP_TEMPERATURE, lambda value: _at_most(stop_c)(value) and value != stop_c, stop_c
    )


def _not_draining(view: View) -> Judged:
    return Judged(not view.orders.draining, view.orders.draining, "no drain by the fleet")


def _settle_s(settings: PolicySettings) -> float:
    return settings.settle_s


CONDITIONS: tuple[Condition, ...] = (
    Condition(
        Reason.OWNER_PRESENT,
        Cause.OWNER,
        _owner_absent,
        _settle_s,
        required=_OWNER_REQUIRED,
        optional=_OWNER_OPTIONAL,
    ),
    Condition(Reason.NOT_PARKED, Cause.OWNER, _parked, _settle_s, required=(vss.GEAR, vss.SPEED)),
    Condition(
        Reason.NOT_GRID_POWERED,
        Cause.SAFETY,
        _grid_powered,
        lambda settings: settings.grid_proof_s,
        lambda settings: settings.grid_lost_s,
        required=(vss.CHARGE_LINE_POWER, vss.PACK_CURRENT),
    ),
    Condition(Reason.CHARGE_LOW, Cause.SAFETY, _above_floor, lambda _: 0.0, required=(vss.SOC,)),
    Condition(Reason.CHARGE_LOW, Cause.ECONOMIC, _state_of_charge, _settle_s, required=(vss.SOC,)),
    Condition(
        Reason.PACK_TEMPERATURE,
        Cause.SAFETY,
        _pack_temperature,
        _settle_s,
        required=(vss.PACK_TEMPERATURE_MIN, vss.PACK_TEMPERATURE_MAX),
    ),
    Condition(
        Reason.CHIP_TEMPERATURE,
        Cause.SAFETY,
        _chip_temperature,
        lambda _: 0.0,
        required=(vss.CHIP_TEMPERATURE,),
    ),
    Condition(Reason.DRAINING, Cause.ECONOMIC, _not_draining, lambda _: 0.0),
)

REQUIRED_SIGNALS: frozenset[str] = frozenset(path for condition in CONDITIONS for path in condition.required)
"""Signals without which no car is ever allowed to work."""
