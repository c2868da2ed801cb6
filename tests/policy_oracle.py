"""What must never be while work is allowed, written down from the table of guards and not from the policy's code."""

import datetime as dt
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from cars import NS, Car

from agent.policy.orders import Orders
from agent.policy.settings import PolicySettings
from firmware_shims import vss
from firmware_shims.reading import Quality

DAY_HOURS: Final = range(6, 18)
DAYTIME: Final = "mon-sun 06:00-18:00"
"""The one schedule that the oracle can read, in UTC."""
LATE_NS: Final = 2_000_000
"""What time alone breaks may be noticed so much later."""


class UnknownError(Exception):
    """A signal that cannot be trusted."""


@dataclass(frozen=True)
class Facts:
    """One instant of a car; asking for what is not known raises UnknownError."""

    car: Car
    orders: Orders
    settings: PolicySettings
    compute_w: float
    unix_s: float | None

    def has(self, path: str) -> bool:
        return path in self.car.values

    def state(self, path: str) -> object:
        if not self.has(path) or self.car.qualities.get(path, Quality.GOOD) is not Quality.GOOD:
            raise UnknownError(path)
        return self.car.values[path]

    def number(self, path: str) -> float:
        """NaN, with which every comparison is false, for what is no number."""
        value = self.state(path)
        usable = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 1e12
        return float(value) if usable and isinstance(value, int | float) else math.nan

    def zero(self, path: str) -> bool:
        value = self.state(path)
        return not isinstance(value, str) and value == 0

    def one(self, path: str) -> bool:
        value = self.state(path)
        return not isinstance(value, str) and value == 1

    @property
    def clock_s(self) -> float:
        if self.unix_s is None:
            raise UnknownError("wall clock")
        return self.unix_s


Rule = Callable[[Facts], bool]


def owner_away(f: Facts) -> bool:
    untouched = [f.zero(path) for path in (*vss.DOORS, vss.DRIVER_SEAT, vss.BRAKE) if f.has(path)]
    locked = not f.has(vss.DRIVER_LOCK) or not f.settings.require_locked or f.one(vss.DRIVER_LOCK)
    return f.state(vss.LOW_VOLTAGE_STATE) in ("OFF", "LOCK") and all(untouched) and locked


def parked(f: Facts) -> bool:
    return f.state(vss.GEAR) == 126 and -0.5 <= f.number(vss.SPEED) <= 0.5


def allowed_by_people(f: Facts) -> bool:
    consent = f.orders.consent is True or (f.orders.consent is None and not f.settings.require_consent)
    return consent and not f.orders.paused and not f.orders.draining


def on_grid(f: Facts) -> bool:
    power_w, current_a = f.number(vss.CHARGE_LINE_POWER), f.number(vss.PACK_CURRENT)
    return power_w >= f.settings.grid_ac_factor * f.compute_w and current_a >= f.settings.grid_pack_min_a


def cable(f: Facts) -> bool:
    return not f.has(vss.CABLE_CONNECTED) or f.one(vss.CABLE_CONNECTED)


def charge(start: bool) -> Rule:
    def rule(f: Facts) -> bool:
        least = f.settings.soc_start_pct if start else max(f.settings.soc_stop_pct, f.settings.soc_floor_pct)
        return f.number(vss.SOC) >= least

    return rule


def pack(start: bool) -> Rule:
    def rule(f: Facts) -> bool:
        low_c, high_c = f.settings.pack_start_c if start else f.settings.pack_stop_c
        return low_c <= f.number(vss.PACK_TEMPERATURE_MIN) and f.number(vss.PACK_TEMPERATURE_MAX) <= high_c

    return rule


def ambient(start: bool) -> Rule:
    def rule(f: Facts) -> bool:
        low_c, high_c = f.settings.ambient_start_c if start else (-math.inf, f.settings.ambient_stop_c)
        return not f.has(vss.AMBIENT_TEMPERATURE) or low_c <= f.number(vss.AMBIENT_TEMPERATURE) <= high_c

    return rule


def chip(start: bool) -> Rule:
    def rule(f: Facts) -> bool:
        chip_c = f.number(vss.CHIP_TEMPERATURE)
        return chip_c <= f.settings.chip_resume_c if start else chip_c < f.settings.chip_stop_c

    return rule


def supply(f: Facts) -> bool:
    floor = not f.has(vss.LOW_VOLTAGE_BATTERY) or f.number(vss.LOW_VOLTAGE_BATTERY) >= f.settings.lv_floor_v
    return floor and (not f.has(vss.COMPUTE_RAIL) or f.state(vss.COMPUTE_RAIL) == "ON")


def grid_leaves(f: Facts) -> bool:
    fixed_w = math.inf if f.settings.grid_limit_w is None else f.settings.grid_limit_w
    sent_w = f.number(vss.GRID_LIMIT) if f.has(vss.GRID_LIMIT) else math.inf
    return sent_w >= f.compute_w and fixed_w >= f.compute_w


def daytime(f: Facts) -> bool:
    return not f.settings.schedule or dt.datetime.fromtimestamp(f.clock_s, dt.UTC).hour in DAY_HOURS


def not_leaving(f: Facts) -> bool:
    if f.orders.departure_s is None:
        return True
    left_s = f.orders.departure_s - f.clock_s
    charge_s = f.number(vss.TIME_TO_COMPLETE) if f.has(vss.TIME_TO_COMPLETE) else 0.0
    return left_s > f.settings.departure_lead_s + max(0.0, charge_s) or left_s < -3600


@dataclass(frozen=True)
class Guarded:
    """`stop`: must hold while work is allowed. `start`: must have held since before `window_s`."""

    stop: Rule
    start: Rule
    window_s: Callable[[PolicySettings], float]


def settle_s(settings: PolicySettings) -> float:
    return settings.settle_s


def at_once(_: PolicySettings) -> float:
    return 0.0


ALWAYS: Final[Mapping[str, Guarded]] = {
    "owner": Guarded(owner_away, owner_away, settle_s),
    "parked": Guarded(parked, parked, settle_s),
    "people": Guarded(allowed_by_people, allowed_by_people, at_once),
    "charge": Guarded(charge(False), charge(True), settle_s),
    "pack": Guarded(pack(False), pack(True), settle_s),
    "ambient": Guarded(ambient(False), ambient(True), settle_s),
    "chip": Guarded(chip(False), chip(True), at_once),
    "supply": Guarded(supply, supply, at_once),
    "grid limit": Guarded(grid_leaves, grid_leaves, settle_s),
    "schedule": Guarded(daytime, daytime, settle_s),
    "departure": Guarded(not_leaving, not_leaving, settle_s),
}
GRID: Final[Mapping[str, Guarded]] = {
    "cable": Guarded(cable, cable, lambda settings: settings.grid_proof_s),
    "grid": Guarded(on_grid, on_grid, lambda settings: settings.grid_proof_s),
}


def outcome(rule: Rule, facts: Facts) -> bool | None:
    try:
        return rule(facts)
    except UnknownError:
        return None


@dataclass
class Filter:
    """The 12 V supply behind a first-order low-pass; None while it is not known."""

    volts: float | None = None
    input_v: float | None = None
    at_ns: int = 0

    def step(self, input_v: float | None, now_ns: int, tau_s: float) -> None:
        if input_v is None or self.volts is None or self.input_v is None:
            self.volts = input_v
        else:
            fade = math.exp(-(now_ns - self.at_ns) / NS / tau_s)
            self.volts = self.input_v + (self.volts - self.input_v) * fade
        self.input_v, self.at_ns = input_v, now_ns


@dataclass
class Hold:
    """How long something has held, and how much of its grace dips have used up."""

    since_ns: int | None = None
    dip_ns: int | None = None
    spent_ns: int = 0
    mended_ns: int = 0

    def look(
        self, stop: bool | None, start: bool | None, now_ns: int, window_s: float, grace_s: float
    ) -> None:
        """`stop` and `start`: whether what must hold, for work to go on and to begin, does. None: unknown."""
        window_ns, grace_ns = int(window_s * NS), int(grace_s * NS) + LATE_NS
        if stop:
            if self.dip_ns is not None:
                self.spent_ns, self.mended_ns, self.dip_ns = self.failed_ns(now_ns), now_ns, None
            if self.since_ns is None and start:
                self.since_ns, self.spent_ns = now_ns, 0
            return
        if self.dip_ns is None and now_ns - self.mended_ns >= window_ns:
            self.spent_ns = 0
        self.dip_ns = now_ns if self.dip_ns is None else self.dip_ns
        proven = self.since_ns is not None and self.dip_ns - self.since_ns >= window_ns
        if stop is None or not proven or self.failed_ns(now_ns) > grace_ns:
            self.since_ns = None

    def failed_ns(self, now_ns: int) -> int:
        return self.spent_ns + (0 if self.dip_ns is None else now_ns - self.dip_ns)


@dataclass
class Oracle:
    """Follows a history; says what is wrong with work going on, or beginning, at an instant."""

    holds: dict[str, Hold] = field(
        default_factory=lambda: {name: Hold() for name in (*ALWAYS, *GRID, "12 V")}
    )
    supply: Filter = field(default_factory=Filter)

    def look(self, f: Facts, now_ns: int) -> None:
        """Take one instant into account."""
        for name, guarded in {**ALWAYS, **GRID}.items():
            grace_s = f.settings.grid_lost_s if name == "grid" else 0.0
            stop, start = outcome(guarded.stop, f), outcome(guarded.start, f)
            if name == "grid" and not (known(f, vss.CHARGE_LINE_POWER) and known(f, vss.PACK_CURRENT)):
                stop = None
            self.holds[name].look(stop, start, now_ns, guarded.window_s(f.settings), grace_s)
        if f.has(vss.LOW_VOLTAGE_BATTERY):
            volts = f.number(vss.LOW_VOLTAGE_BATTERY) if known(f, vss.LOW_VOLTAGE_BATTERY) else math.nan
            self.supply.step(None if math.isnan(volts) else volts, now_ns, f.settings.lv_filter_s)
            volts = math.nan if self.supply.volts is None else self.supply.volts
            stop = None if math.isnan(volts) else volts >= f.settings.lv_stop_v
            start = volts >= f.settings.lv_start_v
            self.holds["12 V"].look(stop, start, now_ns, f.settings.settle_s, f.settings.lv_stop_s)

    def wrong(self, f: Facts) -> set[str]:
        """What forbids that work goes on at the instant that was looked at last."""
        found = {name for name, guarded in ALWAYS.items() if not outcome(guarded.stop, f)}
        graced = [*(["12 V"] if f.has(vss.LOW_VOLTAGE_BATTERY) else []), *_proof(f)]
        return found | {name for name in graced if self.holds[name].since_ns is None}

    def too_early(self, f: Facts, now_ns: int) -> set[str]:
        """What forbids that work begins at this instant."""
        windows_s = {name: guarded.window_s(f.settings) for name, guarded in {**ALWAYS, **_proof(f)}.items()}
        if f.has(vss.LOW_VOLTAGE_BATTERY):
            windows_s["12 V"] = f.settings.settle_s
        return {name for name, window_s in windows_s.items() if not self._held(name, now_ns, window_s)}

    def _held(self, name: str, now_ns: int, window_s: float) -> bool:
        since_ns = self.holds[name].since_ns
        return since_ns is not None and now_ns - since_ns >= int(window_s * NS)


def known(f: Facts, path: str) -> bool:
    return f.car.qualities.get(path, Quality.GOOD) is Quality.GOOD


def _proof(f: Facts) -> Mapping[str, Guarded]:
    return GRID if f.settings.require_grid_proof else {}
