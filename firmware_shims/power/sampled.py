"""Joules out of a power that is looked at often: the trapezoid between two looks, on the monotonic clock."""

from collections.abc import Callable
from typing import ClassVar, Final

from firmware_shims.clock import Clock
from firmware_shims.power.meter import JouleSource, MeterFailed, MeterReading, Scope

NS: Final = 1_000_000_000
PERIOD_S: Final = 0.1
GAP_SAMPLES: Final = 5
"""What happened between looks that lie further apart is unknown."""


class SampledMeter:
    """Integrates `watts`, which raises MeterFailed while it has no figure. Whoever reads it does the sampling."""

    source: ClassVar[JouleSource] = JouleSource.INTEGRATED

    def __init__(
        self,
        name: str,
        scope: Scope,
        watts: Callable[[], float],
        clock: Clock,
        *,
        resolution_w: float,
        resolution_s: float = PERIOD_S,
    ) -> None:
        self.name = name
        self.scope = scope
        self.resolution_j = resolution_w * resolution_s
        self.resolution_s = resolution_s
        self._watts = watts
        self._clock = clock
        self._last_w: float | None = None
        self._reading = MeterReading(0.0, 0, 0)

    def read(self) -> MeterReading:
        """Look once; the stamp is the middle of the look, which may take milliseconds on a slow bus."""
        begin_ns = self._clock()
        try:
            now_w = self._watts()
        except MeterFailed:
            self._last_w = None
            raise
        at_ns = (begin_ns + self._clock()) // 2
        before, last_w, self._last_w = self._reading, self._last_w, now_w
        seconds = (at_ns - before.at_ns) / NS
        if last_w is None or seconds > GAP_SAMPLES * PERIOD_S:
            self._reading = MeterReading(before.joules, at_ns, at_ns)
        else:
            joules = before.joules + (last_w + now_w) / 2 * seconds
            self._reading = MeterReading(joules, at_ns, before.since_ns)
        return self._reading

    def close(self) -> None:
        """Nothing is held open."""
