"""Small sums of joules that outlive a window: what is still to be handed out, and at what rate work has drawn."""

from dataclasses import dataclass, field
from typing import Final

RATE_S: Final = 0.5
"""The rate remembers about so many device seconds."""
RATE_LEAST_S: Final = 0.02
"""From so many on there is one."""


@dataclass(slots=True)
class Joules:
    """Above the idle baseline, and of it."""

    active: float = 0.0
    idle: float = 0.0

    def add(self, other: "Joules", times: float = 1.0) -> None:
        """Add `times` the other."""
        self.active += other.active * times
        self.idle += other.idle * times


@dataclass(slots=True)
class Purse:
    """Joules, owed or overpaid, that were collected over some device seconds and are paid out over as many."""

    holds: Joules = field(default_factory=Joules)
    seconds: float = 0.0

    def put(self, joules: Joules, seconds: float) -> None:
        """Take joules that `seconds` of runs were charged too little, negative for too much."""
        self.holds.add(joules)
        self.seconds += seconds

    def pay(self, joules: Joules, seconds: float) -> Joules:
        """Add to a run's joules what its seconds take from the purse; a charge is never below 0."""
        share = min(1.0, seconds / self.seconds) if self.seconds > 0 else 1.0
        total = Joules(joules.active, joules.idle)
        total.add(self.holds, share)
        paid = Joules(max(0.0, total.active), max(0.0, total.idle))
        self.holds.add(joules)
        self.holds.add(paid, -1.0)
        self.seconds = max(0.0, self.seconds - seconds)
        return paid


@dataclass(slots=True)
class Rate:
    """Joules per device second of the last windows."""

    sums: Joules = field(default_factory=Joules)
    seconds: float = 0.0

    @property
    def is_known(self) -> bool:
        """Whether enough work was measured."""
        return self.seconds >= RATE_LEAST_S

    def follow(self, joules: Joules, seconds: float) -> None:
        """Learn from a window in which runs took `seconds` device seconds."""
        keep = RATE_S / (RATE_S + seconds)
        self.sums = Joules(self.sums.active * keep + joules.active, self.sums.idle * keep + joules.idle)
        self.seconds = self.seconds * keep + seconds

    def guess(self, seconds: float) -> Joules:
        """What `seconds` more are likely to take; work takes something."""
        times = seconds / self.seconds
        return Joules(max(0.0, self.sums.active * times), self.sums.idle * times)
