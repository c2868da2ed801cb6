"""A histogram of durations in plain numbers."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate


class Histogram:
    """Counts durations by bounds in seconds, each including its bound; what is longer than the last one counts, too."""

    def __init__(self, bounds_s: Sequence[float]) -> None:
        self.sum_s = 0.0
        self._bounds_s = tuple(bounds_s)
        self._counts = [0] * (len(self._bounds_s) + 1)

    def observe(self, duration_s: float) -> None:
        """Count one."""
        self.sum_s += duration_s
        self._counts[bisect_left(self._bounds_s, duration_s)] += 1

    def cumulative(self) -> Iterator[tuple[float, int]]:
        """How many were no longer than each bound; the last one is infinity."""
        return zip((*self._bounds_s, float("inf")), accumulate(self._counts), strict=True)
