"""How figures are printed: median with its spread over the rounds, the goal beside it."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """Repeated measurements of one quantity. `goal` is what the project set itself, for example "<= 48 MiB"."""

    name: str
    unit: str
    values: Sequence[float]
    goal: str = ""

    def __str__(self) -> str:
        median = statistics.median(self.values)
        spread = f"{min(self.values):.4g} .. {max(self.values):.4g}, n = {len(self.values)}"
        goal = f"   goal {self.goal}" if self.goal else ""
        return f"{self.name:<58} {median:>9.4g} {self.unit:<8} ({spread}){goal}"


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


@dataclass(frozen=True, slots=True)
class Tail:
    """Repeated measurements of which the slowest matter too."""

    name: str
    unit: str
    values: Sequence[float]
    goal: str = ""

    def __str__(self) -> str:
        p50, p99 = quantile(self.values, 0.5), quantile(self.values, 0.99)
        goal = f"   goal {self.goal}" if self.goal else ""
        return (
            f"{self.name:<58} p50 {p50:.4g}, p99 {p99:.4g}, max {max(self.values):.4g} {self.unit}"
            f" (n = {len(self.values)}){goal}"
        )
