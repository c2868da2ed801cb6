"""The ratio of two figures of different runs, with an interval of any confidence, out of their own intervals.

Each interval gives back the errors that it was made of, below and above its value; the limits of the ratio take those
that pull the same way (variance estimates recovered from limits: Zou and Donner, Statistics in Medicine 27, 2008),
on logarithms, with Welch's degrees of freedom.
"""

import math
from dataclasses import dataclass

from benchmarks.throughput import student
from benchmarks.throughput.results import CONFIDENCE, Interval


@dataclass(frozen=True, slots=True)
class Known:
    """A positive figure as one file has it: its interval of `CONFIDENCE`, out of so many rounds."""

    interval: Interval
    rounds: int

    def log_errors(self) -> tuple[float, float] | None:
        """Standard errors of the logarithm downwards and upwards; None where the interval has no bounds."""
        value, low, high = self.interval.value, self.interval.low, self.interval.high
        if low is None or high is None or low <= 0 or self.rounds < 2:
            return None
        t = student.two_sided(CONFIDENCE, self.rounds - 1)
        return math.log(value / low) / t, math.log(high / value) / t


def ratio(b: Known, a: Known, confidence: float, run_to_run: float = 0.0) -> Interval:
    """`b` through `a`; without bounds where one of them has none.

    `run_to_run` is how much (standard deviation, 0.02 for 2 %) a figure differs from one run to the next beyond what
    its rounds show: another process, another placement in memory, another day.
    """
    value = b.interval.value / a.interval.value
    errors_b, errors_a = b.log_errors(), a.log_errors()
    if errors_b is None or errors_a is None:
        return Interval(value)
    free_b, free_a = b.rounds - 1, a.rounds - 1
    down = _half((errors_b[0], free_b), (errors_a[1], free_a), confidence, run_to_run)
    up = _half((errors_b[1], free_b), (errors_a[0], free_a), confidence, run_to_run)
    return Interval(value, value * math.exp(-down), value * math.exp(up))


def _half(one: tuple[float, int], other: tuple[float, int], confidence: float, run_to_run: float) -> float:
    """Half of the width that two errors with their degrees of freedom make."""
    (error, free), (other_error, other_free) = one, other
    variance = error**2 + other_error**2 + 2 * run_to_run**2
    if variance == 0:
        return 0.0
    uncertain = error**4 / free + other_error**4 / other_free
    freedom = min(10_000, int(variance**2 / uncertain)) if uncertain else 10_000
    return student.two_sided(confidence, max(1, freedom)) * math.sqrt(variance)
