"""Kaplan-Meier over a row of intervals, with a prior that counts as so many sessions, and with forgetting."""

import math
from collections.abc import Iterable, Sequence

import msgspec


class Tally(msgspec.Struct):
    """How much weight of sessions ended in which interval; what is old weighs less.

    `left` ended there for good. `lost` went out of sight there: all that is known of such a session is that it
    lasted to the start of its interval, or to the last edge. Weights are as of `at_s` (unix seconds).
    """

    at_s: float = 0.0
    left: dict[int, float] = msgspec.field(default_factory=dict)
    lost: dict[int, float] = msgspec.field(default_factory=dict)

    def faded(self, at_s: float, half_life_s: float) -> float:
        """What is left at `at_s` of each weight, 0 to 1; a clock that stepped back brings nothing back."""
        return math.exp2(-max(0.0, at_s - self.at_s) / half_life_s)

    def add(self, interval: int, *, left: bool, at_s: float, half_life_s: float, weight: float = 1.0) -> None:
        """Count a session, or the share `weight` of one, whose end was seen at `at_s`."""
        factor = self.faded(at_s, half_life_s)
        self.left = _scaled(self.left, factor)
        self.lost = _scaled(self.lost, factor)
        self.at_s = at_s
        weights = self.left if left else self.lost
        weights[interval] = weights.get(interval, 0.0) + weight


_FORGOTTEN = 1e-4
"""A weight below this is dropped, so that what is kept of a car stays small."""


def _scaled(weights: dict[int, float], factor: float) -> dict[int, float]:
    return {
        interval: weight * factor for interval, weight in weights.items() if weight * factor >= _FORGOTTEN
    }


def blended(parts: Iterable[tuple[Tally, float]]) -> Tally:
    """All these tallies in one, each scaled by its factor."""
    whole = Tally()
    for tally, factor in parts:
        for weights, into in ((tally.left, whole.left), (tally.lost, whole.lost)):
            for interval, weight in weights.items():
                into[interval] = into.get(interval, 0.0) + factor * weight
    return whole


def product_limit(prior: Sequence[float], weight: float, tally: Tally, factor: float = 1.0) -> list[float]:
    """Survival at the edges of the intervals: 1 at the first, never rising.

    `prior` is a survival curve at the same edges, positive but perhaps at the last, and counts as `weight`
    sessions; `factor` scales the tally. It is the Bayes estimate under a Dirichlet process (Susarla and Van Ryzin,
    1976); with weight 0 that of Kaplan and Meier (1958), and the prior's hazard where nobody is at risk.
    """
    intervals = len(prior) - 1
    at_risk = [0.0] * (intervals + 1)  # of the sessions that lasted to the start of each interval
    beyond = factor * tally.lost.get(intervals, 0.0)
    for interval in range(intervals - 1, -1, -1):
        at_risk[interval] = beyond + factor * tally.left.get(interval, 0.0)
        beyond = at_risk[interval] + factor * tally.lost.get(interval, 0.0)
    survival = [1.0]
    for interval in range(intervals):
        before, after = prior[interval], prior[interval + 1]
        staying = weight * after + at_risk[interval] - factor * tally.left.get(interval, 0.0)
        present = weight * before + at_risk[interval]
        share = staying / present if present > 0 else after / before
        survival.append(survival[-1] * min(1.0, max(0.0, share)))
    return survival
