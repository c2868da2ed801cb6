"""How long the car will stay: P(it stays another t | it has been here for s), learned from its own sessions.

A prior says how long cars stay that arrive at such an hour. The car's own sessions correct it three times. First by
rank: where in the prior's curve its sessions ended, all hours together, so that a few weeks show that this car leaves
earlier than others; here the prior counts as `Prior.weight_sessions`. Then by what it did in the hours beside, and
last in this hour itself, for what is special about its mornings; here what the step before gave counts as 20 and as
five sessions. A session's own weight halves every `half_life_s`.

A curve stands for the middle of its hour. A car that arrives between two middles is foretold between the two curves,
and teaches both, in the same shares.
"""

import math
from bisect import bisect_right
from collections.abc import Mapping
from copy import copy
from itertools import pairwise
from typing import Final, Self

import msgspec

from agent.policy.survival import Tally, blended, product_limit

_MIN_S: Final = 60.0
EDGES_S: Final[tuple[float, ...]] = tuple(
    minutes * _MIN_S for minutes in (*range(0, 120, 5), *range(120, 720, 15), *range(720, 2881, 60))
)
"""Where curves have their points: every 5 minutes to 2 h, every 15 to 12 h, every hour to two days."""
_MIDDLES_S: Final = tuple((low + high) / 2 for low, high in pairwise(EDGES_S))
_INTERVALS: Final = len(_MIDDLES_S)
_TAIL_HAZARD_PER_S: Final = math.log(2) / 86_400
"""Of cars that stayed for two days half leave in each further day: a judgement, the records end there."""
_RANKS: Final = tuple(1 - step / 40 for step in range(41))
_HOURS: Final = 24
_SATURDAY: Final = 5
GROUPS: Final = 2 * _HOURS
HALF_LIFE_S: Final = 30 * 86_400.0
_HOUR_WEIGHT_SESSIONS: Final = 5.0
"""Chosen by looking at the replay of `benchmarks/stay.py`, all years of it: pooled over May to August 2019, 2 to 10
differ by 2 % in error and 30 errs 5 % more."""
_BESIDE: Final = ((-2, 0.5), (-1, 1.0), (1, 1.0), (2, 0.5))
"""Hours to the hours beside, and what a session there counts."""
_BESIDE_WEIGHT_SESSIONS: Final = 20.0
"""Chosen likewise; 10 to 30 differ by 2 % in error."""
_LEAST_SURVIVAL: Final = 1e-9


class Arrival(msgspec.Struct, frozen=True):
    """When a stay began: `at_s` in unix seconds, the rest on the clocks of the place, weekday 0 is Monday.

    Where only the hour is known, its middle stands for it.
    """

    at_s: float
    weekday: int
    hour: int
    minute: int = 30

    def __post_init__(self) -> None:
        """Refuse what is no time of a week."""
        on_clock = 0 <= self.weekday < 7 and 0 <= self.hour < _HOURS and 0 <= self.minute < 60
        if not (on_clock and math.isfinite(self.at_s)):
            raise ValueError(f"an arrival has weekday 0-6, hour 0-23, minute 0-59, a finite time, not {self}")

    @property
    def group(self) -> int:
        """The curve of its hour: one an hour on weekdays, then one an hour on weekends."""
        return self.hour + _HOURS * (self.weekday >= _SATURDAY)

    @property
    def shares(self) -> tuple[tuple[int, float], ...]:
        """The curves that it belongs to, and how much: those of the two hours between whose middles it lies."""
        beside = abs(self.minute - 30) / 60
        if not beside:
            return ((self.group, 1.0),)
        return ((self.group, 1 - beside), (_hours_on(self.group, 1 if self.minute > 30 else -1), beside))


def _hours_on(group: int, hours: int) -> int:
    """The group of so many hours later, on the same kind of days: before midnight is beside after it."""
    first = group - group % _HOURS
    return first + (group - first + hours) % _HOURS


class Prior(msgspec.Struct, frozen=True):
    """What is known before the car has sessions of its own: a survival curve at `EDGES_S` for each group."""

    curves: tuple[tuple[float, ...], ...]
    weight_sessions: float = 30.0

    def __post_init__(self) -> None:
        """Refuse what is no family of survival curves: it may come from the fleet."""
        if len(self.curves) != GROUPS:
            raise ValueError(f"a prior has {GROUPS} curves, this one has {len(self.curves)}")
        for group, curve in enumerate(self.curves):
            falls = all(high >= low for high, low in pairwise(curve))
            if len(curve) != len(EDGES_S) or curve[0] != 1 or not falls or not curve[-1] >= _LEAST_SURVIVAL:
                raise ValueError(
                    f"curve {group} of a prior must fall from 1 to {_LEAST_SURVIVAL:g} or more "
                    f"in {len(EDGES_S)} points"
                )
        if not 1 <= self.weight_sessions <= 10_000:
            raise ValueError(f"a prior weighs 1 to 10,000 sessions, not {self.weight_sessions}")

    @classmethod
    def exponential(cls, mean_s: float, weight_sessions: float = 30.0) -> Self:
        """Knowing nothing but a mean stay: the same curve for every hour."""
        curve = tuple(max(_LEAST_SURVIVAL, math.exp(-edge_s / mean_s)) for edge_s in EDGES_S)
        return cls((curve,) * GROUPS, weight_sessions)


class Forecast:
    """The curve of one stay, fixed at its arrival; between two edges cars leave at a constant rate."""

    __slots__ = ("_hazards",)

    def __init__(self, survival: list[float]) -> None:
        self._hazards = [-math.log(share) for share in survival]

    def survival(self, stayed_s: float, further_s: float) -> float:
        """P(the car stays at least `further_s` more | it has stayed for `stayed_s`)."""
        if not (0 <= stayed_s < math.inf and further_s >= 0):
            raise ValueError(f"a stay lasts 0 s or longer, not {stayed_s:g} s and {further_s:g} s more")
        return math.exp(self._hazard(stayed_s) - self._hazard(stayed_s + further_s))

    def expected_s(self, stayed_s: float) -> float:
        """The median of what remains: it stays longer as often as not. No other guess errs less on average."""
        if not 0 <= stayed_s < math.inf:
            raise ValueError(f"a stay lasts 0 s or longer, not {stayed_s:g} s")
        half = self._hazard(stayed_s) + math.log(2)
        last = self._hazards[-1]
        if half >= last:
            return EDGES_S[-1] + (half - last) / _TAIL_HAZARD_PER_S - stayed_s
        interval = bisect_right(self._hazards, half) - 1
        low, high = self._hazards[interval], self._hazards[interval + 1]
        length_s = EDGES_S[interval + 1] - EDGES_S[interval]
        return EDGES_S[interval] + length_s * (half - low) / (high - low) - stayed_s

    def curve(self) -> tuple[float, ...]:
        """P(stay >= edge) at each of `EDGES_S`."""
        return tuple(math.exp(-hazard) for hazard in self._hazards)

    def _hazard(self, stayed_s: float) -> float:
        """The cumulative hazard: minus the logarithm of P(stay >= stayed_s)."""
        interval = bisect_right(EDGES_S, stayed_s) - 1
        if interval == _INTERVALS:
            return self._hazards[-1] + (stayed_s - EDGES_S[-1]) * _TAIL_HAZARD_PER_S
        low_s, high_s = EDGES_S[interval], EDGES_S[interval + 1]
        low, high = self._hazards[interval], self._hazards[interval + 1]
        return low + (high - low) * (stayed_s - low_s) / (high_s - low_s)


class StayModel:
    """The estimator. Its memory is `history`, by group: plain data that does not depend on the prior."""

    def __init__(
        self, prior: Prior, history: Mapping[int, Tally] | None = None, half_life_s: float = HALF_LIFE_S
    ) -> None:
        """Take up `history`; raises ValueError for one that has groups or intervals of another shape."""
        self.history = {group: copy(tally) for group, tally in (history or {}).items()}
        self._prior = prior
        self._half_life_s = half_life_s
        self._priors = [Forecast(list(curve)) for curve in prior.curves]
        self._ranks = self._ranked()

    def learn(self, arrival: Arrival, stayed_s: float, *, left: bool) -> None:
        """Learn a session that has ended; `left` False says that only its first `stayed_s` were seen."""
        if not 0 <= stayed_s < math.inf:
            raise ValueError(f"a stay lasts 0 s or longer, not {stayed_s:g} s")
        at_s, half_life_s = arrival.at_s + stayed_s, self._half_life_s
        interval = bisect_right(EDGES_S, stayed_s) - 1
        left = left and interval < _INTERVALS  # beyond the last edge nothing is told apart
        for group, share in arrival.shares:
            tally, rank = self.history.setdefault(group, Tally(at_s)), self._rank(group, interval)
            tally.add(interval, left=left, at_s=at_s, half_life_s=half_life_s, weight=share)
            self._ranks.add(rank, left=left, at_s=at_s, half_life_s=half_life_s, weight=share)

    def forecast(self, arrival: Arrival) -> Forecast:
        """Give the curve of a stay that begins now."""
        curves = [
            [share * point for point in self._survival(group, arrival.at_s)]
            for group, share in arrival.shares
        ]
        return Forecast([sum(points) for points in zip(*curves, strict=True)])

    def as_prior(self, at_s: float, weight_sessions: float = 30.0) -> Prior:
        """What this model knows at `at_s`, as the prior of another: how a fleet makes one."""
        curves = (self._survival(group, at_s) for group in range(GROUPS))
        floored = tuple(tuple(max(_LEAST_SURVIVAL, share) for share in curve) for curve in curves)
        return Prior(floored, weight_sessions)

    def _survival(self, group: int, at_s: float) -> list[float]:
        """P(stay >= edge) at each of `EDGES_S` in the middle of an hour."""
        weight, half_life_s = self._prior.weight_sessions, self._half_life_s
        ranks = product_limit(_RANKS, weight, self._ranks, self._ranks.faded(at_s, half_life_s))
        corrected = [_at_rank(ranks, share) for share in self._prior.curves[group]]
        beside = product_limit(corrected, _BESIDE_WEIGHT_SESSIONS, self._beside(group, at_s))
        own = self.history.get(group, Tally(at_s))
        return product_limit(beside, _HOUR_WEIGHT_SESSIONS, own, own.faded(at_s, half_life_s))

    def _beside(self, group: int, at_s: float) -> Tally:
        """The sessions of the hours beside, on the same kind of days, as of `at_s`."""
        found = ((self.history.get(_hours_on(group, step)), share) for step, share in _BESIDE)
        return blended(
            (tally, share * tally.faded(at_s, self._half_life_s)) for tally, share in found if tally
        )

    def _rank(self, group: int, interval: int) -> int:
        """In which fortieth of the prior's curve a session ended; the middle of its interval stands for it."""
        if interval == _INTERVALS:
            share = self._prior.curves[group][-1]
        else:
            share = self._priors[group].survival(0.0, _MIDDLES_S[interval])
        return min(int((1 - share) * (len(_RANKS) - 1)), len(_RANKS) - 2)

    def _ranked(self) -> Tally:
        """The ranks of everything in the history, as of its newest session."""
        newest_s = max((tally.at_s for tally in self.history.values()), default=0.0)
        ranks = Tally(newest_s)
        for group, tally in self.history.items():
            factor = tally.faded(newest_s, self._half_life_s)
            for weights, ranked in ((tally.left, ranks.left), (tally.lost, ranks.lost)):
                last = _INTERVALS - (weights is tally.left)
                for interval, weight in weights.items():
                    if not (0 <= group < GROUPS and 0 <= interval <= last and 0 <= weight < math.inf):
                        raise ValueError(f"history of group {group} has {weight} in interval {interval}")
                    rank = self._rank(group, interval)
                    ranked[rank] = ranked.get(rank, 0.0) + weight * factor
        return ranks


def _at_rank(ranks: list[float], share: float) -> float:
    """What the corrected curve says where the prior's says `share`; linear between ranks."""
    place = (1 - share) * (len(ranks) - 1)
    rank = min(int(place), len(ranks) - 2)
    return ranks[rank] + (ranks[rank + 1] - ranks[rank]) * (place - rank)
