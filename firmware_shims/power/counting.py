"""Joules out of a raw counter that wraps around, is reset, or stands still while its driver is away."""

from typing import Final

from firmware_shims.power.meter import MeterReading

NS: Final = 1_000_000_000
STEP_S: Final = 1.0
"""A counter may show what it took some time to collect: that much more than the time says is credible."""


class RawCounter:
    """`unit_j` joules a step; after `wraps_at` steps it begins again at 0 (None: it never does).

    More than `max_w` is no power but a reset. What may have wrapped twice is unknown.
    """

    def __init__(self, unit_j: float, *, wraps_at: int | None, max_w: float) -> None:
        self._unit_j = unit_j
        self._wraps_at = wraps_at
        self._max_w = max_w
        self._last: float | None = None
        self._reading = MeterReading(0.0, 0, 0)

    def advance(self, raw: float, at_ns: int) -> MeterReading:
        """Take what the counter shows at `at_ns`, which never goes back."""
        before, last, self._last = self._reading, self._last, raw
        joules = None if last is None else self._joules(last, raw, (at_ns - before.at_ns) / NS)
        if joules is None:
            self._reading = MeterReading(before.joules, at_ns, at_ns)
        else:
            self._reading = MeterReading(before.joules + joules, at_ns, before.since_ns)
        return self._reading

    def _joules(self, last: float, raw: float, seconds: float) -> float | None:
        steps, credible_j = raw - last, self._max_w * (seconds + STEP_S)
        if self._wraps_at is not None:
            if credible_j >= self._wraps_at * self._unit_j:
                return None
            steps %= self._wraps_at
        joules = steps * self._unit_j
        return joules if 0 <= joules <= credible_j else None
