"""How much of the traction battery parked work has taken in the last 24 hours."""

from dataclasses import dataclass, replace
from typing import Final

DAY_NS: Final = 86_400_000_000_000
READING_STEP_PCT: Final = 1.0
"""Some cars tell their charge in whole percents: what is read may be so much above the truth."""
_TOGETHER_NS: Final = 60_000_000_000


@dataclass(frozen=True, slots=True)
class PackUse:
    """Percents of charge that were taken, each with its boot-time stamp. Any 24 hours count, not calendar days.

    From the first work on the pack every fall of the charge counts, also between two pieces of work, until the car
    is on proven grid power or drives: a reading in coarse steps then hides no more than one step, which is added.
    """

    taken: tuple[tuple[int, float], ...] = ()
    counting: bool = False
    soc_pct: float | None = None

    def used_pct(self, now_ns: int) -> float:
        """Taken in the last 24 hours."""
        return sum(pct for stamp_ns, pct in self.taken if now_ns - stamp_ns < DAY_NS)

    def renews_ns(self, now_ns: int) -> int | None:
        """When the oldest of it is 24 hours old."""
        return next((stamp_ns + DAY_NS for stamp_ns, _ in self.taken if now_ns - stamp_ns < DAY_NS), None)

    def begun(self, soc_pct: float | None) -> "PackUse":
        """Work is allowed to run on the pack from now on, at this charge."""
        return self if self.counting else replace(self, counting=True, soc_pct=soc_pct)

    def followed(self, soc_pct: float | None, now_ns: int) -> "PackUse":
        """Take a look at the charge; None: not known now."""
        if not self.counting or soc_pct is None or soc_pct == self.soc_pct:
            return self
        if self.soc_pct is None or soc_pct > self.soc_pct:
            return replace(self, soc_pct=soc_pct)
        return replace(self, taken=self._with(self.soc_pct - soc_pct, now_ns), soc_pct=soc_pct)

    def ended(self, now_ns: int) -> "PackUse":
        """The car is on proven grid power, or drives: what falls now is not ours. What the reading hid counts whole."""
        if not self.counting:
            return self
        return PackUse(taken=self._with(READING_STEP_PCT, now_ns))

    def _with(self, pct: float, now_ns: int) -> tuple[tuple[int, float], ...]:
        kept = [entry for entry in self.taken if now_ns - entry[0] < DAY_NS]
        if kept and now_ns - kept[-1][0] < _TOGETHER_NS:
            kept[-1] = (now_ns, kept[-1][1] + pct)
        else:
            kept.append((now_ns, pct))
        return tuple(kept)
