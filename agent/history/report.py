"""The account of the days as one document: what `parkwatt history --json` prints, and table and plot are made of."""

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final
from zoneinfo import ZoneInfo

import msgspec

from agent.history import names
from agent.history.days import ONE_DAY, begins_s, length_s
from agent.protocol.messages import EnergySource, Mode, Time
from agent.protocol.reasons import Reason
from agent.store.history import UNDATED, DaySum

DAYS_SHOWN: Final = 7
LABELS: Final = {str(reason.value): reason.label for reason in Reason}
Sums = Mapping[str, Mapping[str, float]]
"""The amounts of one day by what and name."""


class Lost(msgspec.Struct, frozen=True):
    """Seconds that a reason blocked: as the first in the policy's order, and whether first or not."""

    code: int
    name: str
    first_s: float
    any_s: float


class Energy(msgspec.Struct, frozen=True):
    """Rows whose joules come from one source, and those joules. `idle_j` None: that source does not tell.

    `energy_j` is active energy, `pack_j` the part of it from the traction battery.
    """

    source: EnergySource
    rows: int
    energy_j: float | None
    idle_j: float | None
    pack_j: float | None


class Day(msgspec.Struct, frozen=True):
    """One day. The seconds by mode, `asleep_s` and `unseen_s` add up to `length_s`, for today so far.

    `day` None: the car did not know the date. `asleep_s`: the computer was suspended; `unseen_s`: no agent ran.
    `lost` is sorted by `first_s`, whose sum is what of the day was blocked, draining, settling or ending work.
    """

    day: dt.date | None
    length_s: float
    ready_s: float
    working_s: float
    settling_s: float
    blocked_s: float
    draining_s: float
    preempting_s: float
    asleep_s: float
    unseen_s: float
    lost: list[Lost]
    tasks: dict[str, int]
    rows: int
    energy: list[Energy]
    preemptions: dict[str, int]


class History(msgspec.Struct, frozen=True):
    """The days from the oldest to today, those without records between them too, and what they are together.

    `undated`: what happened while the car did not know the date, since the store was made; None where that is nothing.
    """

    vehicle: str
    time_zone: str
    at: Time
    days: list[Day]
    total: Day
    undated: Day | None


def day_of(sums: Iterable[DaySum], day: dt.date | None, length: float | None) -> Day:
    """The account of one day out of the sums of any; without a length it is as long as what is in it."""
    shown = UNDATED if day is None else day.isoformat()
    amounts: defaultdict[str, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
    for each in sums:
        if each.day == shown:
            amounts[each.what][each.name] += each.amount
    modes_s = amounts[names.MODE]
    seen_s = sum(modes_s.values())
    lasts_s = seen_s if length is None else max(length, seen_s)
    return Day(
        day=day,
        length_s=_seconds(lasts_s),
        **{f"{mode.value}_s": _seconds(modes_s[mode.value]) for mode in Mode},
        asleep_s=_seconds(modes_s[names.ASLEEP]),
        unseen_s=_seconds(lasts_s - seen_s),
        lost=_lost(amounts),
        tasks=_counts(amounts[names.TASKS]),
        rows=round(sum(amounts[names.ROWS].values())),
        energy=_energy(amounts),
        preemptions={_label(code): count for code, count in _counts(amounts[names.PREEMPTED]).items()},
    )


def reported(sums: Sequence[DaySum], *, vehicle: str, time_zone: str, at: dt.datetime, days: int) -> History:
    """The document of the last `days` days up to `at`, as far as they go back."""
    zone = ZoneInfo(time_zone)
    today = at.astimezone(zone).date()
    dates = _dates(sums, today, days)
    told = [day_of(sums, day, so_far_s(day, zone, at)) for day in dates]
    undated = day_of(sums, None, None)
    shown = {day.isoformat() for day in dates}
    together = [each._replace(day=UNDATED) for each in sums if each.day in shown]
    return History(
        vehicle=vehicle,
        time_zone=time_zone,
        at=at,
        days=told,
        total=day_of(together, None, sum(day.length_s for day in told)),
        undated=undated if undated.length_s or undated.rows or undated.tasks else None,
    )


def first_possible(days: int, at: dt.datetime) -> str:
    """The earliest date that the last `days` days may begin with, in whatever zone."""
    return (at - dt.timedelta(days=days)).date().isoformat()


def _dates(sums: Sequence[DaySum], today: dt.date, days: int) -> list[dt.date]:
    """From the oldest day with records to today, and what a clock that was wrong has put into the future."""
    recorded = {dt.date.fromisoformat(each.day) for each in sums if each.day != UNDATED}
    oldest = min(today, *(day for day in recorded if day > today - days * ONE_DAY), today)
    past = [oldest + place * ONE_DAY for place in range((today - oldest).days + 1)]
    return [*past, *sorted(day for day in recorded if day > today)]


def so_far_s(day: dt.date, zone: dt.tzinfo, at: dt.datetime) -> float:
    """Seconds of a day up to `at`."""
    return max(0.0, min(length_s(day, zone), at.timestamp() - begins_s(day, zone)))


def _lost(amounts: Sums) -> list[Lost]:
    found = [
        Lost(int(code), _label(code), _seconds(amounts[names.FIRST][code]), _seconds(any_s))
        for code, any_s in amounts[names.ANY].items()
    ]
    return sorted(found, key=lambda lost: (-lost.first_s, -lost.any_s, lost.code))


def _energy(amounts: Sums) -> list[Energy]:
    return [
        Energy(
            source=EnergySource(source),
            rows=round(rows),
            energy_j=_joules(amounts[names.ENERGY], source),
            idle_j=_joules(amounts[names.IDLE], source),
            pack_j=_joules(amounts[names.PACK], source),
        )
        for source, rows in sorted(amounts[names.ROWS].items())
    ]


def _joules(by_source: Mapping[str, float], source: str) -> float | None:
    return round(by_source[source], 3) if source in by_source else None


def _counts(amounts: Mapping[str, float]) -> dict[str, int]:
    return {name: round(amount) for name, amount in sorted(amounts.items()) if amount}


def _label(code: str) -> str:
    """The reason's name; a newer parkwatt may have written one that is not known here."""
    return LABELS.get(code, f"reason_{code}")


def _seconds(seconds: float) -> float:
    return round(seconds, 3)
