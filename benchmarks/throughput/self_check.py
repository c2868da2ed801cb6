"""What hardware teams ask of a benchmark before they believe it, as arithmetic; `self_checking` measures.

A check holds where the whole interval of its figure lies within the limit, fails where all of it lies beyond, and is
not sure in between: longer turns or more rounds make it so.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.throughput.intervals import signed_interval
from benchmarks.throughput.results import Interval

LINEAR_WITHIN: Final = 0.05
ZERO_WITHIN: Final = 0.05
"""Of the power of the work: so much may what does nothing seem to take."""
KNOWN_WITHIN: Final = 0.005
RUN_TO_RUN_WITHIN: Final = 0.05
"""The threshold of `compare` if nothing else is said: what varies more cannot be held against it."""
HOLDS, FAILS, NOT_SURE = "holds", "FAILS", "not sure"


@dataclass(frozen=True, slots=True)
class Check:
    """A relative figure against a limit around 0."""

    name: str
    off: Interval
    within: float
    remark: str = ""

    @property
    def verdict(self) -> str:
        """Of `HOLDS`, `FAILS` and `NOT_SURE`; without an interval the figure decides by itself."""
        low = self.off.low if self.off.low is not None else self.off.value
        high = self.off.high if self.off.high is not None else self.off.value
        if -self.within <= low and high <= self.within:
            return HOLDS
        return FAILS if low > self.within or high < -self.within else NOT_SURE

    def __str__(self) -> str:
        bounds = (
            f" ({self.off.low:+.2%} .. {self.off.high:+.2%})"
            if self.off.low is not None and self.off.high is not None
            else ""
        )
        remark = f"; {self.remark}" if self.remark else ""
        return (
            f"{self.name:<44} {self.off.value:+.2%}{bounds}, limit {self.within:.1%}: {self.verdict}{remark}"
        )


@dataclass(frozen=True, slots=True)
class LinearRound:
    """Active joules of the work once, and of `times` as much of it."""

    times: int
    once_j: float
    more_j: float


def linearity(rounds: Sequence[LinearRound]) -> Check:
    """How far the joules of k times the work are from k times the joules; all rounds of one k."""
    times = rounds[0].times

    def off(some: Sequence[LinearRound]) -> float:
        return sum(each.more_j for each in some) / (times * sum(each.once_j for each in some)) - 1

    return Check(
        f"{times} x the work costs {times} x the joules", signed_interval(rounds, off), LINEAR_WITHIN
    )


@dataclass(frozen=True, slots=True)
class ZeroRound:
    """Mean active power of doing nothing, and of work."""

    nothing_w: float
    work_w: float


def zero_work(rounds: Sequence[ZeroRound]) -> Check:
    """What doing nothing seems to take beyond idle, as a share of what work takes."""

    def off(some: Sequence[ZeroRound]) -> float:
        return sum(each.nothing_w for each in some) / sum(each.work_w for each in some)

    return Check("no work costs what an idle machine does", signed_interval(rounds, off), ZERO_WITHIN)


def known_answer(measured_j: float, known_j: float) -> Check:
    """A meter of known wattage through the whole account."""
    return Check("a meter of known wattage, measured", Interval(measured_j / known_j - 1), KNOWN_WITHIN)


def run_to_run(name: str, runs: Sequence[Sequence[float]]) -> Check:
    """The standard deviation of a figure from run to run, each run a process of its own with some turns.

    What the turns of a run vary among themselves is taken off: intervals know of that already.
    """
    logs = [[math.log(figure) for figure in run] for run in runs]
    means = [statistics.fmean(run) for run in logs]
    within = statistics.fmean(statistics.variance(run) / len(run) for run in logs)
    between = math.sqrt(max(0.0, statistics.variance(means) - within))
    spread = math.exp(max(means) - min(means)) - 1
    remark = f"{len(runs)} runs within {spread:.1%}; for compare --run-to-run {100 * between:.2g}%"
    return Check(f"{name} from run to run", Interval(between), RUN_TO_RUN_WITHIN, remark)
