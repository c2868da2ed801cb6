"""What time it is for signed messages, in a car whose clock may be wrong.

Two things tell the time: the wall clock, and what trusted messages say of when they were issued. The newest of those
is the floor: kept on disk, it never goes back, so what had expired stays expired after a restart with the clock at
1970. Only what a trusted wall clock bears out is kept: one message from the future cannot move the floor there. While
the wall clock cannot be trusted, signed times count for this start of the agent alone.
"""

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from agent import wall_clock
from agent.protocol.reasons import Reason, Refused

LATEST_S: Final = 4_102_444_800.0
"""2100: what a message says beyond that is no time, and the calendar's end is not far."""
AHEAD_S: Final = 300.0
"""How far the fleet's clock may be ahead of the car's."""


@dataclass(slots=True)
class SignedTime:
    """Judges `issued_at` of messages whose signature is good. `wall` gives unix seconds and may be wrong."""

    wall: Callable[[], float]
    max_age_s: float
    floor_s: float = 0.0
    """Unix seconds; nothing that is on disk is newer."""
    _heard_s: float = 0.0
    """The newest signed time that no trusted clock has borne out."""

    def wall_s(self) -> float | None:
        """The wall clock, None while it cannot be right."""
        return wall_clock.trusted(self.wall(), self.floor_s)

    def now(self) -> dt.datetime:
        """The latest time that is known to have come."""
        return dt.datetime.fromtimestamp(self._now_s(), dt.UTC)

    def refuse_future(self, issued_at: dt.datetime) -> None:
        """Raise Refused for what is issued later than a trusted clock shows, and never without one.

        The car's side (1000), and so offered again: a slow clock of the car is no fault of the task.
        """
        wall_s = self.wall_s()
        if wall_s is None:
            return
        ahead_s = issued_at.timestamp() - max(wall_s, self.floor_s)
        if ahead_s > AHEAD_S:
            text = (
                f"issued_at is {ahead_s:.0f} s ahead of this car's clock, at most {AHEAD_S:.0f} s are taken:"
                " set the clock of the car, or of the fleet"
            )
            raise Refused(Reason.UNKNOWN_SIGNAL, text)

    def refuse_old(self, issued_at: dt.datetime) -> None:
        """Raise Refused for what was issued longer ago than `max_age_s`."""
        age_s = self._now_s() - issued_at.timestamp()
        if age_s > self.max_age_s:
            text = f"issued {age_s:.0f} s ago, trust.max_age_s is {self.max_age_s:.0f}: sign it again"
            raise Refused(Reason.EXPIRED, text)

    def hear(self, issued_at: dt.datetime) -> float | None:
        """Take a signed time in; returns the floor that is now to be kept on disk, None when it stays as it is."""
        issued_s = issued_at.timestamp()
        wall_s = self.wall_s()
        if wall_s is None:
            self._heard_s = max(self._heard_s, min(issued_s, LATEST_S))
        elif self.floor_s < issued_s <= max(wall_s, self.floor_s) + AHEAD_S:
            self.floor_s = issued_s
            return issued_s
        return None

    def _now_s(self) -> float:
        heard_s = self._heard_s if self.wall_s() is None else 0.0
        return max(self.wall(), self.floor_s, heard_s)
