"""The one clock for durations: it counts suspend, so a car that slept knows that it did."""

import time
from collections.abc import Callable

Clock = Callable[[], int]
"""Returns nanoseconds on a monotonic clock. Everything that needs time takes one of these."""


def boottime_ns() -> int:
    """CLOCK_BOOTTIME in nanoseconds (clock_gettime(2))."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
