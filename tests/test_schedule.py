"""The owner's weekly windows against a calendar that is read minute by minute."""

import datetime as dt
import zoneinfo
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent.policy.schedule import DAYS, WeeklySchedule
from agent.policy.settings import PolicySettings

MINUTE_S: Final = 60
DAY_MIN: Final = 1440
YEAR_BEGINS_S: Final = int(dt.datetime(2026, 1, 1, tzinfo=dt.UTC).timestamp())
ZONES: Final = ("Europe/Berlin", "America/Sao_Paulo", "Australia/Lord_Howe", "America/St_Johns")


class Window(NamedTuple):
    """A window in figures: days of the week from Monday, minutes of the day; `end` <= `begin` is the day after."""

    days: tuple[int, ...]
    begin: int
    end: int

    @property
    def text(self) -> str:
        first, last = DAYS[self.days[0]], DAYS[self.days[-1]]
        days = first if len(self.days) == 1 else f"{first}-{last}"
        return f"{days} {_clock(self.begin)}-{_clock(self.end)}"

    def holds(self, weekday: int, minute: int) -> bool:
        if self.begin < self.end:
            return weekday in self.days and self.begin <= minute < self.end
        return (weekday in self.days and minute >= self.begin) or (
            (weekday - 1) % 7 in self.days and minute < self.end
        )


def _clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


NIGHTS = Window((0, 1, 2, 3, 4), 22 * 60, 6 * 60)
SUNDAY_NIGHT = Window((6,), 22 * 60, 6 * 60)
OVER_THE_WEEK = Window((4, 5, 6, 0), 20 * 60, 8 * 60)
SATURDAY = Window((5,), 0, DAY_MIN)
UNTIL_MIDNIGHT = Window((2,), 23 * 60, 0)
LOST_HOUR = Window((6,), 2 * 60 + 5, 2 * 60 + 25)
"""On Sundays at 2 o'clock clocks are changed: one of them has no such time, one has it twice."""
HALF_LOST = Window((6,), 2 * 60 + 10, 4 * 60)
HALF_PAST_ONE = Window((6,), 60 + 35, 60 + 55)
ALWAYS = Window(tuple(range(7)), 0, DAY_MIN)


@lru_cache
def wall(zone: str) -> list[tuple[int, int]]:
    """(weekday, minute of the day) on the clocks of the place, for each minute of a year and a week."""
    place = ZoneInfo(zone)
    moments = (dt.datetime.fromtimestamp(t, place) for t in _minutes(373))
    return [(local.weekday(), local.hour * 60 + local.minute) for local in moments]


def _minutes(days: int) -> range:
    return range(YEAR_BEGINS_S, YEAR_BEGINS_S + days * 86_400, MINUTE_S)


def told(zone: str, *windows: Window) -> WeeklySchedule:
    return WeeklySchedule(tuple(window.text for window in windows), ZoneInfo(zone))


def counted(zone: str, *windows: Window) -> Iterator[tuple[int, bool, int]]:
    """Each minute of a year with the answer, and until when it stands."""
    inside = [any(window.holds(*moment) for window in windows) for moment in wall(zone)]
    until: list[int] = [0] * len(inside)
    until[-1] = len(inside)
    for place in range(len(inside) - 2, -1, -1):
        until[place] = until[place + 1] if inside[place] is inside[place + 1] else place + 1
    for place, t in enumerate(_minutes(365)):
        yield t, inside[place], YEAR_BEGINS_S + until[place] * MINUTE_S


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize(
    "windows",
    [(NIGHTS, SATURDAY), (SUNDAY_NIGHT, LOST_HOUR), (OVER_THE_WEEK, UNTIL_MIDNIGHT), (HALF_LOST,)],
    ids=lambda windows: ", ".join(window.text for window in windows),
)
def test_every_minute_of_a_year_is_as_a_calendar_has_it(zone: str, windows: tuple[Window, ...]) -> None:
    schedule = told(zone, *windows)
    for t, inside, until_s in counted(zone, *windows):
        if schedule.at(t) != (inside, until_s):
            local = dt.datetime.fromtimestamp(t, ZoneInfo(zone))
            pytest.fail(f"{local}: {schedule.at(t)} instead of {(inside, until_s)}")


@pytest.mark.parametrize(
    ("zone", "day", "window", "times"),
    [
        ("Europe/Berlin", dt.date(2026, 3, 29), LOST_HOUR, 0),
        ("Europe/Berlin", dt.date(2026, 10, 25), LOST_HOUR, 2),
        ("Europe/Berlin", dt.date(2026, 11, 1), LOST_HOUR, 1),
        ("Australia/Lord_Howe", dt.date(2026, 10, 4), LOST_HOUR, 0),  # from 2:00 on to 2:30
        ("Australia/Lord_Howe", dt.date(2026, 4, 5), HALF_PAST_ONE, 2),  # from 2:00 back to 1:30
        ("America/Sao_Paulo", dt.date(2026, 10, 18), LOST_HOUR, 1),
    ],
)
def test_a_window_in_the_hour_that_is_lost_or_comes_twice(
    zone: str, day: dt.date, window: Window, times: int
) -> None:
    begin_s = int(dt.datetime.combine(day, dt.time(), ZoneInfo(zone)).timestamp())
    schedule = told(zone, window)
    inside = [schedule.at(t)[0] for t in range(begin_s, begin_s + 12 * 3600, MINUTE_S)]
    assert sum(later and not before for before, later in pairwise(inside)) == times
    assert sum(inside) == times * (window.end - window.begin)


def test_a_schedule_that_never_ends_is_looked_at_again_after_a_week() -> None:
    inside, until_s = told("Europe/Berlin", ALWAYS).at(YEAR_BEGINS_S)
    assert inside
    assert until_s >= YEAR_BEGINS_S + 7 * 86_400


windows = st.builds(
    lambda first, days, begin, end: Window(tuple((first + n) % 7 for n in range(days)), begin, end),
    st.integers(0, 6),
    st.integers(1, 7),
    st.integers(0, DAY_MIN - 1),
    st.integers(0, DAY_MIN),
).filter(lambda window: window.begin != window.end)
moments = st.floats(YEAR_BEGINS_S, YEAR_BEGINS_S + 364 * 86_400)


@settings(max_examples=40)
@given(st.sampled_from(ZONES), st.lists(windows, min_size=1, max_size=3), moments)
@example("Europe/Berlin", [LOST_HOUR], dt.datetime(2026, 3, 28, 23, tzinfo=dt.UTC).timestamp() + 0.25)
def test_any_windows_at_any_moment(zone: str, chosen: list[Window], unix_s: float) -> None:
    place = int(unix_s - YEAR_BEGINS_S) // MINUTE_S
    days = wall(zone)[place : place + 8 * DAY_MIN]
    answers = [any(window.holds(*moment) for window in chosen) for moment in days]
    inside, until_s = told(zone, *chosen).at(unix_s)
    assert inside is answers[0]
    ends = next((n for n, answer in enumerate(answers) if answer is not inside), None)
    if ends is None:
        assert until_s >= unix_s + 7 * 86_400
    else:
        assert until_s == YEAR_BEGINS_S + (place + ends) * MINUTE_S


@settings(max_examples=50)
@given(st.lists(windows, min_size=1, max_size=3), st.lists(moments, min_size=2, max_size=6))
def test_what_was_asked_before_changes_no_answer(chosen: list[Window], asked: list[float]) -> None:
    """Also for a wall clock that is set back."""
    schedule = told("Europe/Berlin", *chosen)
    for unix_s in asked:
        inside, until_s = schedule.at(unix_s)
        assert inside is told("Europe/Berlin", *chosen).at(unix_s)[0]
        if until_s - unix_s < 7 * 86_400:
            assert schedule.at(until_s)[0] is not inside
            assert schedule.at(until_s - 0.001)[0] is inside


NO_WINDOWS = [
    *("", "mon", "mon-fri", "22:00-06:00", "mon 22-6", "mon 22:00", "mon 22:00-06:00 ", " mon 22:00-06:00"),
    *("mon  22:00-06:00", "mon-fri-sun 22:00-06:00", "mon,tue 22:00-06:00", "monday 22:00-06:00"),
    *("xyz 22:00-06:00", "mon-xyz 22:00-06:00", "mon 22:60-06:00", "mon 24:00-06:00", "mon 29:00-06:00"),
    *("mon 22:00-24:01", "mon 22:00-25:00", "mon 22:00-22:00", "mon 00:00-00:00", "mon 2:00-06:00"),
    *("mon 22:00-06:00\n", "mon\n22:00-06:00", "mon 22.00-06.00", "mon 22:00\u201306:00", "mon 2٣:00-06:00"),
]


@pytest.mark.parametrize("text", NO_WINDOWS)
def test_what_is_no_window_is_refused_in_one_line_that_shows_how(text: str) -> None:
    with pytest.raises(ValueError, match=r"should be(gin)? ") as refused:
        told_text(text)
    assert repr(text) in str(refused.value)
    assert "\n" not in str(refused.value)
    with pytest.raises(ValueError, match="schedule"):
        PolicySettings(schedule=(text,))


def told_text(text: str) -> WeeklySchedule:
    return WeeklySchedule((text,), dt.UTC)


@pytest.mark.parametrize("text", [window.text for window in (NIGHTS, OVER_THE_WEEK, SATURDAY, ALWAYS)])
def test_windows_may_be_written_in_capitals(text: str) -> None:
    monday_s = dt.datetime(2026, 11, 23, tzinfo=dt.UTC).timestamp()
    assert told_text(text.upper()).at(monday_s) == told_text(text).at(monday_s)
    assert PolicySettings(schedule=(text,)).schedule == (text,)


@pytest.mark.parametrize(
    "name", ["", "Mars/Olympus", "America", "../UTC", "/etc/passwd", "europe/berlin", "a\0b", "x" * 300]
)
def test_what_is_no_time_zone_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is no IANA time zone"):
        PolicySettings(time_zone=name)


@pytest.mark.parametrize("zone", [*ZONES, "UTC"])
def test_time_zones_are_there_on_a_system_that_has_none(zone: str) -> None:
    zoneinfo.reset_tzpath(to=())
    try:
        assert ZoneInfo.no_cache(zone).key == zone
    finally:
        zoneinfo.reset_tzpath()
