"""The owner's weekly windows, such as `mon-fri 22:00-06:00`, on the clocks of the place where the car lives.

A window is about what the clock on the wall shows: in the night when clocks go forward it is shorter, in the other
one longer.
"""

import datetime as dt
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_MIN: Final = 1440
WEEK_MIN: Final = 7 * DAY_MIN
AHEAD_DAYS: Final = 8
"""Every boundary of a week comes within so many days, whatever the clocks do."""
_WINDOW: Final = re.compile(r"([a-z]{3})(?:-([a-z]{3}))? ([0-2]\d):([0-5]\d)-([0-2]\d):([0-5]\d)", re.ASCII)

Span = tuple[int, int]
"""Minutes of the week from Monday 0:00, the second not included; it may lie beyond Sunday's midnight."""


def spans(window: str) -> Iterator[Span]:
    """The window on each of its days; raises ValueError for what is none."""
    match = _WINDOW.fullmatch(window.lower())
    days = match and [match[1], match[2] or match[1]]
    if not match or not days or not set(days) <= set(DAYS):
        raise ValueError(f'{window!r} should be like "mon-fri 22:00-06:00" or "sat 08:00-24:00"')
    begin, end = (int(match[place]) * 60 + int(match[place + 1]) for place in (3, 5))
    if begin >= DAY_MIN or end > DAY_MIN or begin == end:
        raise ValueError(
            f"{window!r} should begin before 24:00, and end at another time, 24:00 at the latest"
        )
    first, last = (DAYS.index(day) for day in days)
    for day in range(first, last + 1 if first <= last else last + 8):
        start = day % 7 * DAY_MIN + begin
        yield start, start + ((end - begin) % DAY_MIN or DAY_MIN)


class WeeklySchedule:
    """Answers whether a moment lies inside a window, and until when that stays so."""

    def __init__(self, windows: tuple[str, ...], zone: dt.tzinfo) -> None:
        self._spans = [span for window in windows for span in spans(window)]
        self._zone = zone
        self._known: tuple[float, float, bool] | None = None

    def at(self, unix_s: float) -> tuple[bool, float]:
        """Inside or not, and the unix time at which that ends."""
        # The answer stands until the next boundary: the policy asks many times a second.
        if self._known is not None and self._known[0] <= unix_s < self._known[1]:
            return self._known[2], self._known[1]
        inside = self._inside(unix_s)
        until_s = next((t for t in self._boundaries(unix_s) if self._inside(t) is not inside), None)
        until_s = until_s or unix_s + AHEAD_DAYS * 86_400
        self._known = (unix_s, until_s, inside)
        return inside, until_s

    def _local(self, unix_s: float) -> dt.datetime:
        return dt.datetime.fromtimestamp(unix_s, self._zone)

    def _inside(self, unix_s: float) -> bool:
        local = self._local(unix_s)
        minute = local.weekday() * DAY_MIN + local.hour * 60 + local.minute
        return any(
            start <= moment < end for start, end in self._spans for moment in (minute, minute + WEEK_MIN)
        )

    def _boundaries(self, unix_s: float) -> list[float]:
        """Every later moment at which the answer may change, in order."""
        today = self._local(unix_s).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
        moments = set(self._changes_of_offset(unix_s))
        for day in range(-1, AHEAD_DAYS):
            date = today + dt.timedelta(days=day)
            for minute in {edge % WEEK_MIN for span in self._spans for edge in span}:
                if minute // DAY_MIN == date.weekday():
                    wall = date + dt.timedelta(minutes=minute % DAY_MIN)
                    moments |= {wall.replace(tzinfo=self._zone, fold=fold).timestamp() for fold in (0, 1)}
        return sorted(moment for moment in moments if moment > unix_s)

    def _changes_of_offset(self, unix_s: float) -> Iterator[float]:
        """When the clocks of the place are changed in the days ahead, to the second."""
        for day in range(AHEAD_DAYS):
            low, high = int(unix_s) + day * 86_400, int(unix_s) + (day + 1) * 86_400
            offset = self._local(low).utcoffset()
            if self._local(high).utcoffset() == offset:
                continue
            while high - low > 1:
                middle = (low + high) // 2
                if self._local(middle).utcoffset() == offset:
                    low = middle
                else:
                    high = middle
            yield float(high)


@lru_cache(maxsize=8)
def weekly(windows: tuple[str, ...], time_zone: str) -> WeeklySchedule:
    """The schedule of these windows in an IANA time zone."""
    return WeeklySchedule(windows, ZoneInfo(time_zone))
