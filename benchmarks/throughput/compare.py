"""Two results files beside each other: ratios with intervals, and a verdict only where the intervals allow one.

All intervals of a table hold together with 95 %: each is made wider for their number (Bonferroni), so that two files
of the same thing show any verdict at all in at most 5 of 100 tables. What the rounds of a file cannot know is how it
would have come out in another process or on another day: `self-check` measures that, and `Terms.run_to_run` takes it
into account.
"""

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.throughput import differences
from benchmarks.throughput.differences import Side
from benchmarks.throughput.pairing import Paired, paired
from benchmarks.throughput.ratios import Known, ratio
from benchmarks.throughput.results import CONFIDENCE, Figures, Interval, Results, Row


class Verdict(enum.Enum):
    """Of `b`, seen from `a`."""

    BETTER = "better"
    WORSE = "worse"
    REGRESSION = "REGRESSION"
    """Worse by more than the threshold: the whole interval lies beyond it."""
    OPEN = "no difference can be told"
    NONE = "not compared"


@dataclass(frozen=True, slots=True)
class Quantity:
    """A figure that is compared. `why_not`: the reason why it cannot be for two rows; empty where it can."""

    name: str
    more_is_better: bool
    of: Callable[[Figures], Interval | None]
    why_not: Callable[[Side, Side], str] = lambda _a, _b: ""


QUANTITIES: Final = (
    Quantity("throughput", True, lambda figures: figures.throughput_per_s, differences.given_rates),
    Quantity("latency p99", False, lambda figures: figures.latency.p99_ms, differences.other_load),
    Quantity("CPU s per inference", False, lambda figures: figures.cpu_s_per_inference),
    Quantity(
        "inferences per joule",
        True,
        lambda figures: figures.energy.inferences_per_joule,
        differences.other_joules,
    ),
)


@dataclass(frozen=True, slots=True)
class Terms:
    """`threshold`: 0.05 lets throughput fall to 95 % and times rise to 105 %. `run_to_run`: see `ratios.ratio`."""

    threshold: float = 0.05
    run_to_run: float = 0.0


DEFAULT: Final = Terms()


@dataclass(frozen=True, slots=True)
class Compared:
    """One quantity of one pair. `ratio` is b through a; None, with `why`, where it was not compared."""

    quantity: Quantity
    verdict: Verdict
    ratio: Interval | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Pair:
    """The same row in two files; nothing is compared where one of them has failed."""

    a: Row
    b: Row
    compared: Sequence[Compared]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What came out. `confidence` is that of each interval; together they have `CONFIDENCE`."""

    a: Results
    b: Results
    terms: Terms
    confidence: float
    pairs: Sequence[Pair]
    alone: Paired
    """Rows that have no other side."""

    @property
    def regressions(self) -> int:
        """How much became worse by more than the threshold, and how many rows have failed that had figures before."""
        verdicts = [each.verdict for pair in self.pairs for each in pair.compared]
        failed = [pair for pair in self.pairs if pair.a.figures and not pair.b.figures]
        return verdicts.count(Verdict.REGRESSION) + len(failed)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A quantity of a pair before it is compared: both sides, or why they are not."""

    quantity: Quantity
    a: Known | None = None
    b: Known | None = None
    why: str = ""
    busy: str = ""

    def between(self, confidence: float, terms: Terms) -> Interval | None:
        if self.a is None or self.b is None:
            return None
        return ratio(self.b, self.a, confidence, terms.run_to_run)


def compare(a: Results, b: Results, terms: Terms = DEFAULT) -> Comparison:
    """`b` beside `a`."""
    found = paired(a.rows, b.rows)
    asked = [_asked(Side(a.provenance, one), Side(b.provenance, other)) for one, other in found.pairs]
    trials = [each.between(CONFIDENCE, terms) for quantities in asked for each in quantities]
    told = sum(between is not None and between.low is not None for between in trials)
    confidence = 1 - (1 - CONFIDENCE) / max(1, told)
    pairs = [
        Pair(one, other, [_compared(each, confidence, terms) for each in quantities])
        for (one, other), quantities in zip(found.pairs, asked, strict=True)
    ]
    return Comparison(a, b, terms, confidence, pairs, found)


def _asked(a: Side, b: Side) -> list[_Asked]:
    """Every quantity of a pair; none where one side has failed."""
    figures_a, figures_b = a.row.figures, b.row.figures
    if figures_a is None or figures_b is None:
        return []
    asked = []
    for quantity in QUANTITIES:
        of_a, of_b = quantity.of(figures_a), quantity.of(figures_b)
        if why := differences.other_work(a, b) or quantity.why_not(a, b):
            asked.append(_Asked(quantity, why=why))
        elif of_a is None or of_b is None:
            asked.append(_Asked(quantity, why="cannot be told from 0"))
        else:
            known_a, known_b = Known(of_a, len(a.row.rounds)), Known(of_b, len(b.row.rounds))
            asked.append(_Asked(quantity, known_a, known_b, busy=differences.busy(a.row, b.row)))
    return asked


def _compared(asked: _Asked, confidence: float, terms: Terms) -> Compared:
    quantity, between = asked.quantity, asked.between(confidence, terms)
    if between is None:
        return Compared(quantity, Verdict.NONE, why=asked.why)
    if between.low is None or between.high is None:
        return Compared(quantity, Verdict.OPEN, between, "too few rounds or queries for an interval")
    if asked.busy:
        return Compared(quantity, Verdict.OPEN, between, asked.busy)
    worse_by, better_by = 1 - between.high, between.low - 1
    if not quantity.more_is_better:
        worse_by, better_by = better_by, worse_by
    return Compared(quantity, _verdict(worse_by, better_by, terms.threshold), between)


def _verdict(worse_by: float, better_by: float, threshold: float) -> Verdict:
    """How far the whole interval lies on either side; below 0 where it does not."""
    if worse_by > threshold:
        return Verdict.REGRESSION
    if worse_by > 0:
        return Verdict.WORSE
    return Verdict.BETTER if better_by > 0 else Verdict.OPEN
