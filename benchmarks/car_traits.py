"""Who the simulated cars are: where they live, what they are made of, what their owners do and have allowed."""

import datetime as dt
import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final, TypeVar
from zoneinfo import ZoneInfo

from agent.policy.settings import PolicySettings
from firmware_shims import vss

T = TypeVar("T")
LIFE_DAYS: Final = 20
DAY_S: Final = 86_400
_YEARS: Final = (dt.date(2025, 1, 1), dt.date(2026, 12, 1))
BASE_SIGNALS: Final = frozenset(
    {
        vss.LOW_VOLTAGE_STATE,
        vss.DRIVER_DOOR,
        vss.GEAR,
        vss.SPEED,
        vss.CHARGE_LINE_POWER,
        vss.PACK_CURRENT,
        vss.SOC,
        vss.PACK_TEMPERATURE_MIN,
        vss.PACK_TEMPERATURE_MAX,
        vss.CHIP_TEMPERATURE,
    }
)
"""Signals that every car has; the rest are drawn."""
_FURTHER_SIGNALS: Final = (
    (0.7, vss.DOORS[1:]),
    (0.7, (vss.DRIVER_SEAT,)),
    (0.6, (vss.BRAKE,)),
    (0.6, (vss.DRIVER_LOCK,)),
    (0.6, (vss.CABLE_CONNECTED,)),
    (0.6, (vss.TIME_TO_COMPLETE,)),
    (0.7, (vss.AMBIENT_TEMPERATURE,)),
    (0.6, (vss.LOW_VOLTAGE_BATTERY,)),
    (0.4, (vss.COMPUTE_RAIL,)),
    (0.15, (vss.GRID_LIMIT,)),
)


@dataclass(frozen=True, slots=True)
class Climate:
    """A place with its clocks. Celsius: the mean, how far seasons and hours swing; `hottest` is a day of the year."""

    zone: str
    mean_c: float
    season_c: float
    day_c: float
    hottest: int

    def ambient_c(self, day_of_year: int, hour: float) -> float:
        """Of an ordinary day."""
        season = math.cos(2 * math.pi * (day_of_year - self.hottest) / 365)
        return self.mean_c + self.season_c * season + self.day_c * math.cos(math.pi * (hour - 15) / 12)


CLIMATES: Final = (
    Climate("America/Sao_Paulo", 21, 4, 6, 20),
    Climate("Europe/Berlin", 10, 10, 5, 200),
    Climate("Europe/Oslo", 4, 13, 4, 200),
    Climate("America/Los_Angeles", 17, 5, 6, 220),
    Climate("America/Phoenix", 24, 11, 8, 200),
)


@dataclass(frozen=True, slots=True)
class Window:
    """Hours of the day in which an owner lets the car work. `days`: 0 is Monday; it may end on the next day."""

    text: str
    days: tuple[int, ...]
    from_h: int
    to_h: int


_EVERY_DAY, _WORKDAYS = tuple(range(7)), tuple(range(5))
SCHEDULES: Final = (
    (Window("mon-sun 22:00-06:00", _EVERY_DAY, 22, 6),),
    (Window("mon-sun 00:00-05:00", _EVERY_DAY, 0, 5),),
    (
        Window("mon-fri 09:00-17:00", _WORKDAYS, 9, 17),
        Window("sat-sun 00:00-24:00", (5, 6), 0, 24),
    ),
)


@dataclass(frozen=True, slots=True)
class Sensors:
    """How the car reads itself: steps, errors and the longest delay of a reading."""

    soc_step_pct: float
    soc_error_pct: float
    current_error_a: float
    line_step_w: float
    time_error: float
    period_s: float


@dataclass(frozen=True, slots=True)
class Charging:
    """Watts at home and at work (0: no wallbox), how often the owner plugs in, how the supply behaves."""

    home_w: float
    work_w: float
    plugs_in: float
    target_pct: float
    supply: str
    from_h: float | None
    recharges_below_pct: float | None
    holds_by_grid: bool


@dataclass(frozen=True, slots=True)
class Habits:
    """What the owner does. Shares are 0 to 1."""

    commutes: bool
    leaves_h: float
    locks: bool
    sentry_w: float
    announces: float
    visits_per_day: float


@dataclass(frozen=True, slots=True)
class Machine:
    """Pack, computer and low-voltage supply. `chip_rise_c`: what full work adds in the end."""

    awake_w: float

    pack_wh: float
    compute_w: float
    chip_rise_c: float
    chip_tau_s: float
    converter_v: float
    sleeps_after_s: float
    sun_c: float


@dataclass(frozen=True, slots=True)
class Traits:
    """One car. `begins`: local midnight, where its simulated days begin."""

    seed: str
    climate: Climate
    begins: dt.datetime
    declared: frozenset[str]
    sensors: Sensors
    charging: Charging
    habits: Habits
    machine: Machine
    pack_budget_pct: float
    schedule: tuple[Window, ...]
    require_consent: bool

    @property
    def settings(self) -> PolicySettings:
        """What this owner's agent.toml says."""
        return PolicySettings(
            require_grid_proof=not self.pack_budget_pct,
            pack_budget_pct_per_day=self.pack_budget_pct,
            schedule=tuple(window.text for window in self.schedule),
            time_zone=self.climate.zone,
            require_consent=self.require_consent,
        )


def dice(*seeds: object) -> Random:
    """A stream of random numbers of its own, the same everywhere for the same seeds."""
    return Random("/".join(str(seed) for seed in seeds))  # noqa: S311 - repeatable, not secret


def draw(seed: int, number: int) -> Traits:
    """Car `number` of the fleet of this seed."""
    name = f"{seed}/{number}"
    rng = dice(name, "traits")
    climate = rng.choice(CLIMATES)
    day = _YEARS[0] + dt.timedelta(days=rng.randrange((_YEARS[1] - _YEARS[0]).days))
    declared = BASE_SIGNALS.union(*(paths for share, paths in _FURTHER_SIGNALS if rng.random() < share))
    opted_in = rng.random() < 0.15
    return Traits(
        seed=name,
        climate=climate,
        begins=dt.datetime.combine(day, dt.time(), ZoneInfo(climate.zone)),
        declared=declared,
        sensors=_sensors(rng),
        charging=_charging(rng),
        habits=_habits(rng, opted_in),
        machine=_machine(rng),
        pack_budget_pct=5.0 if opted_in else 0.0,
        schedule=rng.choice(SCHEDULES) if rng.random() < 0.2 else (),
        require_consent=rng.random() < 0.3,
    )


def _sensors(rng: Random) -> Sensors:
    lies = rng.random() < 0.03
    return Sensors(
        soc_step_pct=rng.choice((0.1, 0.1, 1.0)),
        soc_error_pct=rng.uniform(-0.5, 0.5),
        current_error_a=rng.uniform(2, 8) if lies else rng.uniform(-0.3, 0.3),
        line_step_w=rng.choice((1.0, 100.0)),
        time_error=rng.uniform(-0.03, 0.03),
        period_s=rng.choice((0.01, 0.1, 1.0)),
    )


def _charging(rng: Random) -> Charging:
    return Charging(
        home_w=_weighted(
            rng, ((0.12, 0.0), (0.1, 1400.0), (0.2, 2300.0), (0.18, 3700.0), (0.2, 7400.0), (0.2, 11_000.0))
        ),
        work_w=_weighted(rng, ((0.55, 0.0), (0.15, 3700.0), (0.15, 7400.0), (0.15, 11_000.0))),
        plugs_in=rng.choice((0.25, 0.6, 0.9, 1.0)),
        target_pct=rng.choice((60.0, 70.0, 80.0, 80.0, 90.0)),
        supply=_weighted(rng, ((0.6, "steady"), (0.2, "managed"), (0.15, "solar"), (0.05, "flaky"))),
        from_h=rng.choice((22.0, 23.5, 1.0)) if rng.random() < 0.2 else None,
        recharges_below_pct=rng.choice((3.0, 5.0)) if rng.random() < 0.5 else None,
        holds_by_grid=rng.random() < 0.2,
    )


def _habits(rng: Random, opted_in: bool) -> Habits:
    return Habits(
        commutes=rng.random() < 0.65,
        leaves_h=rng.gauss(7.7, 0.8),
        locks=rng.random() < 0.93,
        # A car that sleeps shows nothing: energy from the pack is for those that stay awake, guarding or not.
        sentry_w=_weighted(
            rng,
            ((0.2, 0.0), (0.3, 250.0), (0.5, 2.0)) if opted_in else ((0.7, 0.0), (0.25, 250.0), (0.05, 2.0)),
        ),
        announces=rng.choice((0.0, 0.0, 0.5, 1.0)),
        visits_per_day=rng.choice((0.1, 0.3, 1.5)),
    )


def _machine(rng: Random) -> Machine:
    return Machine(
        awake_w=rng.uniform(20, 220),
        pack_wh=rng.uniform(35_000, 90_000),
        compute_w=_weighted(rng, ((0.2, 36.0), (0.4, 72.0), (0.25, 150.0), (0.15, 250.0))),
        chip_rise_c=rng.uniform(20, 60),
        chip_tau_s=rng.uniform(120, 900),
        converter_v=13.0 if rng.random() < 0.02 else rng.uniform(13.5, 14.4),
        sleeps_after_s=rng.uniform(180, 1200),
        sun_c=0.0 if rng.random() < 0.4 else rng.uniform(5, 40),
    )


def _weighted(rng: Random, shares: Sequence[tuple[float, T]]) -> T:
    return rng.choices([value for _, value in shares], [share for share, _ in shares])[0]
