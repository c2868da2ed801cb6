"""How old a datapoint is, for clocks that jump.

A broker stamps a datapoint with the wall clock when a provider publishes it; our ages are on the boot-time clock.
The wall clock may be set at any time, to any side, so it alone never proves that a value is fresh: that takes a
publication that came in while we were listening.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from firmware_shims.clock import Clock

AHEAD_NS: Final = 500_000_000
"""How far the broker's clock may be ahead of ours, and how far the wall clock may move between two datapoints."""


class ClockSetError(Exception):
    """The wall clock was set: what is on its way may have been stamped before or after that."""


@dataclass(frozen=True, slots=True)
class Published:
    """A datapoint: the value as it came, None when there is none; UTC nanoseconds, None when not stamped."""

    value: object
    published_ns: int | None


@dataclass(frozen=True, slots=True)
class Age:
    """When a datapoint was published, on the boot-time clock. `seen`: it came in while we were listening."""

    published_ns: int
    stamp_ns: int
    seen: bool


class Ages:
    """Maps the broker's stamps to the boot-time clock."""

    def __init__(self, clock: Clock, wall_ns: Callable[[], int]) -> None:
        self._clock = clock
        self._wall_ns = wall_ns
        self._apart_ns: int | None = None
        self._known: dict[str, Age] = {}
        self._first: set[str] = set()

    def begin(self) -> None:
        """A subscription begins. The first datapoint of every path in it is a value from some time in the past."""
        self._apart_ns = None
        self._first = set()

    def of(self, path: str, published_ns: int | None) -> Age | None:
        """The age of a datapoint; None when it has no stamp or one in the future. Never younger than it is.

        ClockSetError when the wall clock has been set since the last datapoint.
        """
        now_ns, wall_ns = self._clock(), self._wall_ns()
        self._watch(wall_ns - now_ns)
        first = path not in self._first
        self._first.add(path)
        if published_ns is None or published_ns - wall_ns > AHEAD_NS:
            return None
        known = self._known.get(path)
        if known is None or known.published_ns != published_ns:
            stamp_ns = now_ns - max(wall_ns - published_ns, 0)
            known = self._known[path] = Age(published_ns, stamp_ns, seen=not first)
        return known

    def _watch(self, apart_ns: int) -> None:
        before, self._apart_ns = self._apart_ns, apart_ns
        if before is not None and abs(apart_ns - before) > AHEAD_NS:
            raise ClockSetError(f"the wall clock moved by {(apart_ns - before) / 1e9:+.3f} s")
