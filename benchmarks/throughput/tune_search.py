"""Finds the setting that costs least among those that keep a latency bound, by rounds in which each has a turn.

What is clearly worse than the best so far, or clearly too slow, drops out; what is left has more rounds, until one is
left, or the rest cannot be told apart. A setting that drops out by mistake lay within the noise of the best.
"""

import math
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from benchmarks.throughput import figures, histogram, intervals
from benchmarks.throughput.results import Interval, Round, Turn
from benchmarks.throughput.tune_space import Setting

FAR_BEHIND: Final = 0.5
"""Of the best, in the first round already: no second look is needed."""
NO_MATTER: Final = 0.02
"""What lies this close to the best is as good."""
PERCENTILE: Final = 0.99
DOUBT: Final = 0.05
"""So unlikely must it be that a setting which keeps the latency bound shows so many late answers."""

Cost = Callable[[Sequence[Round], figures.Side], float]
"""What an inference takes: joules or processor seconds (benchmarks.throughput.figures)."""
Measure = Callable[[Setting], Awaitable[Turn]]
OnRound = Callable[[int, int], None]
"""Told before each round: its number, from 0, and how many settings are still in the race."""


class SettingFailedError(Exception):
    """The setting has not come through its turn."""


@dataclass(slots=True)
class Trial:
    """A setting with its turns, the oldest first. `out` says why it has no more of them."""

    setting: Setting
    turns: list[Turn] = field(default_factory=list)
    out: str = ""

    @property
    def latency_ms(self) -> float:
        """The percentile that is bounded."""
        return histogram.quantile_ms(histogram.merged(turn.latency for turn in self.turns), PERCENTILE)


@dataclass(frozen=True, slots=True)
class Race:
    """What decides: the cost of an inference, the latency bound, and how many rounds there are at most."""

    cost: Cost
    latency_bound_ms: float
    rounds: int


async def search(
    settings: Sequence[Setting], measure: Measure, race: Race, on_round: OnRound, seed: int = 1
) -> tuple[list[Trial], Trial | None]:
    """All trials, and the one to take; None where each is too slow. Of equals the one that stands first is taken."""
    order = random.Random(seed)  # noqa: S311 - who goes first, so that what drifts falls on all alike
    trials = [Trial(setting) for setting in settings]
    for number in range(race.rounds):
        running = [trial for trial in trials if not trial.out]
        on_round(number, len(running))
        for trial in order.sample(running, len(running)):
            try:
                trial.turns.append(await measure(trial.setting))
            except SettingFailedError as failed:
                trial.out = f"does not run: {failed}"
        if _settled([trial for trial in running if not trial.out], race):
            break
    taken = _first_as_good([trial for trial in trials if not trial.out], race.cost)
    for other in trials:
        if taken is not None and other is not taken and not other.out:
            other.out = f"not told apart from the one taken: {shown(efficiency(other, taken, race.cost))}"
    return trials, taken


def efficiency(trial: Trial, than: Trial, cost: Cost) -> Interval:
    """Inferences for the same joules (or processor seconds) as a multiple of the other's, from the rounds of both."""
    rounds = [Round(ours, other) for ours, other in zip(trial.turns, than.turns, strict=False)]
    return intervals.interval(rounds, partial(_times, cost=cost))


def shown(times: Interval) -> str:
    """For example `0.97 (0.95 .. 0.99)`."""
    if times.low is None or times.high is None:
        return f"{times.value:.3g} x"
    return f"{times.value:.3g} x ({times.low:.3g} .. {times.high:.3g})"


def _times(rounds: Sequence[Round], cost: Cost) -> float:
    return cost(rounds, figures.bare) / cost(rounds, figures.ours)


def _settled(running: Sequence[Trial], race: Race) -> bool:
    """Let drop out what can; whether more rounds would tell nothing new."""
    for trial in running:
        if late := _late(trial.turns, race.latency_bound_ms):
            trial.out = f"too slow: {late}"
    running = [trial for trial in running if not trial.out]
    if len(running) <= 1:
        return bool(not running or len(running[0].turns) >= intervals.LEAST_ROUNDS)
    best = _best(running, race.cost)
    close = []
    for trial in running:
        if trial is best:
            continue
        times = efficiency(trial, best, race.cost)
        clearly = times.high is not None and times.high < 1 and times.value < 1 - NO_MATTER
        if times.value < FAR_BEHIND or clearly:
            trial.out = f"worse: {shown(times)} of the best, after {len(trial.turns)} rounds"
        else:
            close.append(times.low is not None and times.low > 1 - NO_MATTER)
    return len(best.turns) >= intervals.LEAST_ROUNDS and all(close)


def _best(trials: Sequence[Trial], cost: Cost) -> Trial:
    return min(trials, key=lambda trial: cost([Round(turn) for turn in trial.turns], figures.ours))


def _first_as_good(trials: Sequence[Trial], cost: Cost) -> Trial | None:
    """The first that comes so close to the best as not to matter."""
    if not trials:
        return None
    best = _best(trials, cost)
    return next(trial for trial in trials if efficiency(trial, best, cost).value >= 1 - NO_MATTER)


def _late(turns: Sequence[Turn], bound_ms: float) -> str:
    """How many answers came too late, where they are more than chance gives to a setting that keeps the bound."""
    together = histogram.merged(turn.latency for turn in turns)
    late = sum(
        inside
        for bucket, inside in zip(together.buckets, together.counts, strict=True)
        if histogram.bounds_ms(bucket)[0] >= bound_ms
    )
    answers = histogram.count(together)
    if _chance(late, answers, 1 - PERCENTILE) >= DOUBT:
        return ""
    p99_ms = histogram.quantile_ms(together, PERCENTILE)
    return f"{late} of {answers} answers took more than {bound_ms:g} ms (p99 {p99_ms:.3g} ms)"


def _chance(at_least: int, of: int, each: float) -> float:
    """That so many of independent events happen which each have this chance."""
    fewer = (math.comb(of, count) * each**count * (1 - each) ** (of - count) for count in range(at_least))
    return max(0.0, 1 - sum(fewer))
