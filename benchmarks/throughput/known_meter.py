"""A meter whose answer is known: so many watts while nothing runs, so many more while work is under way.

It shows new figures as often as RAPL does, and is otherwise exact: what is measured with it can be held against
`worked_j`. Hardware teams put their own account behind it.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Final

from firmware_shims.clock import Clock
from firmware_shims.power.meter import JouleSource, MeterReading, Scope

NS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class _Since:
    """What had been counted when the power changed last, and the power from then on."""

    at_ns: int
    joules: float
    watts: float

    def joules_at(self, at_ns: int) -> float:
        return self.joules + self.watts * max(0, at_ns - self.at_ns) / NS


class KnownMeter:
    """`working` in one thread and `read` in another: what changes is replaced as a whole."""

    source: ClassVar[JouleSource] = JouleSource.COUNTER
    scope: ClassVar[Scope] = Scope.COMPUTER
    resolution_j: ClassVar[float] = 2**-14
    resolution_s: ClassVar[float] = 0.001

    def __init__(self, clock: Clock, idle_w: float = 4.0, work_w: float = 16.0) -> None:
        self.name = "known"
        self.idle_w = idle_w
        self.work_w = work_w
        self.worked_s = 0.0
        self._clock = clock
        self._began_ns = clock()
        self._since = _Since(self._began_ns, 0.0, idle_w)

    @property
    def worked_j(self) -> float:
        """The active joules until now: the truth."""
        return self.work_w * self.worked_s

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Work is under way in here."""
        begun_ns = self._change(self.idle_w + self.work_w)
        try:
            yield
        finally:
            self.worked_s += (self._change(self.idle_w) - begun_ns) / NS

    def read(self) -> MeterReading:
        """The figure as of its last step; the stamp is now, as RAPL's is."""
        now_ns, step_ns = self._clock(), round(self.resolution_s * NS)
        return MeterReading(self._since.joules_at(now_ns // step_ns * step_ns), now_ns, self._began_ns)

    def close(self) -> None:
        """Nothing is held open."""

    def _change(self, watts: float) -> int:
        now_ns = self._clock()
        self._since = _Since(now_ns, self._since.joules_at(now_ns), watts)
        return now_ns
