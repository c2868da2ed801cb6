"""How sure a figure is: one method for all of them, over the rounds of a run.

A figure is computed from all rounds and again without each of them (the delete-one jackknife; Tukey 1958, Efron and
Stein 1981). What it moves by then says how far it would lie in another run; Student's t makes the interval of it.
Latencies within a round depend on one another, rounds hardly, so the round is what is left out. Positive figures are
taken as logarithms: an interval of a ratio is then as wide upwards as downwards and never reaches 0.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from benchmarks.throughput import student
from benchmarks.throughput.results import CONFIDENCE, Interval

R = TypeVar("R")
Statistic = Callable[[Sequence[R]], float]

LEAST_ROUNDS: Final = 3
NORMAL: Final = statistics.NormalDist().inv_cdf((1 + CONFIDENCE) / 2)


def interval(rounds: Sequence[R], statistic: Statistic[R]) -> Interval:
    """Of a positive figure, as it comes out of all rounds; without bounds where there are fewer than three."""
    value = statistic(rounds)
    if len(rounds) < LEAST_ROUNDS:
        return Interval(value)
    half = _half_width(rounds, lambda some: math.log(statistic(some)))
    return Interval(value, value * math.exp(-half), value * math.exp(half))


def signed_interval(rounds: Sequence[R], statistic: Statistic[R]) -> Interval:
    """Of a figure that may be 0 or below, as joules above idle may."""
    value = statistic(rounds)
    if len(rounds) < LEAST_ROUNDS:
        return Interval(value)
    half = _half_width(rounds, statistic)
    return Interval(value, value - half, value + half)


def reciprocal(of: Interval) -> Interval | None:
    """1 through it; None when it cannot be told from 0."""
    if of.value <= 0 or (of.low is not None and of.low <= 0):
        return None
    if of.low is None or of.high is None:
        return Interval(1 / of.value)
    return Interval(1 / of.value, 1 / of.high, 1 / of.low)


def _half_width(rounds: Sequence[R], statistic: Statistic[R]) -> float:
    count, whole = len(rounds), statistic(rounds)
    without = (statistic([*rounds[:left_out], *rounds[left_out + 1 :]]) for left_out in range(count))
    pseudo = [count * whole - (count - 1) * each for each in without]
    return student.two_sided(CONFIDENCE, count - 1) * statistics.stdev(pseudo) / math.sqrt(count)
