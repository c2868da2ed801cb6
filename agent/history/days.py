"""Days as the clocks of a place have them: some are an hour shorter or longer."""

import datetime as dt
from collections.abc import Iterator

ONE_DAY = dt.timedelta(days=1)


def day_at(unix_s: float, zone: dt.tzinfo) -> dt.date:
    """The date that the clocks of the place show."""
    return dt.datetime.fromtimestamp(unix_s, zone).date()


def begins_s(day: dt.date, zone: dt.tzinfo) -> float:
    """Unix seconds of the first moment of a day; where the clocks jump over midnight, that of the jump."""
    return dt.datetime.combine(day, dt.time.min, zone).timestamp()


def length_s(day: dt.date, zone: dt.tzinfo) -> float:
    """Seconds from a day's first moment to that of the next."""
    return begins_s(day + ONE_DAY, zone) - begins_s(day, zone)


def parts(from_s: float, to_s: float, zone: dt.tzinfo) -> Iterator[tuple[dt.date, float]]:
    """The days that a span of unix time touches, with the seconds of it that lie in each."""
    while from_s < to_s:
        day = day_at(from_s, zone)
        end_s = min(to_s, begins_s(day + ONE_DAY, zone))
        yield day, end_s - from_s
        from_s = end_s
