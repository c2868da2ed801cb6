"""Whether the wall clock can be right: a car wakes with a wrong one, and gets the time from the air a while later."""

import datetime as dt
from typing import Final

FIRST_S: Final = dt.datetime(2026, 1, 1, tzinfo=dt.UTC).timestamp()
"""No car ran this agent earlier."""
LATE_S: Final = 3600.0
"""How far a clock may lag behind a signed message: a fleet's clock is not better than that for certain."""


def trusted(wall_s: float, floor_s: float) -> float | None:
    """`wall_s`, or None where it lies before what has passed for certain; `floor_s` is the newest trusted signed time."""
    return wall_s if wall_s >= max(floor_s - LATE_S, FIRST_S) else None
