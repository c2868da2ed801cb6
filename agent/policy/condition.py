"""What a condition is: a named question about the car with its own reason, windows and hysteresis."""

import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, TypeGuard

import msgspec

from agent.policy.low_pass import LowPass
from agent.policy.orders import Orders
from agent.policy.pack_use import PackUse
from agent.policy.settings import PolicySettings
from agent.protocol.reasons import Reason
from firmware_shims.reading import Quality, Snapshot, Value


class Cause(enum.Enum):
    """Decides how work ends when a condition breaks: at once, or at the end of a batch."""

    OWNER = "owner"
    SAFETY = "safety"
    ECONOMIC = "economic"


class Judged(msgspec.Struct, frozen=True):
    """One look at a condition: `holds` None means unknown. Value and limit are for people.

    `again_s`: after so many seconds time alone may turn this look. A condition that does not apply to this car holds
    without a limit.
    """

    holds: bool | None
    value: Value | None = None
    limit: float | str | None = None
    again_s: float | None = None


DOES_NOT_APPLY = Judged(True)
MOST: Final = 1e12
"""No quantity of a car is larger; infinity, and what arithmetic would overflow on, is none."""


class View(msgspec.Struct, frozen=True):
    """What a condition may look at. Built anew for every look.

    `compute_w`: what all backends together may draw, `least_w` the smallest of them. `unix_s`: the wall clock, None
    when it cannot be trusted. `grid_proven`: grid power has been proven, window and grace included. `allowed` and
    `on_pack`: what the verdict before this one said. `supply_v`: the low-voltage supply behind its filter. `region`: the
    code of the region that the car's position is held against, None for none; `outside`: it was last seen outside.
    """

    snapshot: Snapshot
    settings: PolicySettings
    declared: frozenset[str]
    compute_w: float
    least_w: float
    orders: Orders
    unix_s: float | None
    now_ns: int
    grid_proven: bool
    allowed: bool
    on_pack: bool
    pack_use: PackUse
    supply_v: LowPass | None
    starts_ns: tuple[int, ...]
    region: str | None
    outside: bool


Judge = Callable[[View, bool], Judged]
"""(view, held) -> look. `held`: the condition held until now, so that its stop threshold applies."""


@dataclass(frozen=True, slots=True, eq=False)
class Condition:
    """One line of the table.

    `window_s`: how long it must have held without a break before it counts; `resume_s` the same after it has ended
    work. `grace_s`: how long it may be false (never unknown) after that before it breaks. `required`: signals
    without which it stays unknown; `optional`: judged too wherever a configured source declares them.
    """

    name: str
    reason: Reason
    cause: Cause
    judge: Judge
    window_s: Callable[[PolicySettings], float] = lambda _: 0.0
    resume_s: Callable[[PolicySettings], float] | None = None
    grace_s: Callable[[PolicySettings], float] = lambda _: 0.0
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


def judged(view: View, path: str, fits: Callable[[Value], bool], limit: float | str) -> Judged:
    """One signal against its limit; unknown unless the reading is good.

    `fits` is written so that NaN and a value of the wrong type do not fit.
    """
    reading = view.snapshot[path]
    if reading.quality is not Quality.GOOD or reading.value is None:
        return unknown(path, reading.quality)
    return Judged(fits(reading.value), reading.value, limit)


def unknown(path: str, quality: Quality) -> Judged:
    """The look at a signal that cannot be trusted."""
    return Judged(None, path, f"a good reading, it is {quality.value}")


def every(looks: Iterable[Judged]) -> Judged:
    """Three-valued AND: one look that is false decides, whatever the others are."""
    looks = tuple(looks)
    for decisive in (False, None):
        for look in looks:
            if look.holds is decisive:
                return look
    return looks[0]


def within(low: float, high: float) -> Callable[[Value], bool]:
    """A number from `low` to `high`."""
    return lambda value: _is_quantity(value) and low <= value <= high


def at_least(limit: float) -> Callable[[Value], bool]:
    """A number that is not below `limit`."""
    return within(limit, MOST)


def at_most(limit: float) -> Callable[[Value], bool]:
    """A number that is not above `limit`."""
    return within(-MOST, limit)


def above(limit: float) -> Callable[[Value], bool]:
    """A number above `limit`."""
    return lambda value: _is_quantity(value) and value > limit


def below(limit: float) -> Callable[[Value], bool]:
    """A number below `limit`."""
    return lambda value: _is_quantity(value) and value < limit


def number(snapshot: Snapshot, path: str) -> float | None:
    """The good value of a signal as a number, else None."""
    value = snapshot.good(path)
    return value if _is_quantity(value) else None


def _is_quantity(value: Value | None) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MOST
