"""How many queries a second a server can be sent so that its answers keep their bound: found by bisection."""

from dataclasses import dataclass
from typing import Final, Protocol

from benchmarks.throughput import histogram, scenarios
from benchmarks.throughput.play import Closed, Played, Script

STEPS: Final = 6
"""Of the bisection: the rate is found to a 64th of what the device can do back to back."""
CAPACITY: Final = Closed(seconds=0.5, runs=5)
LEAST_QUERIES: Final = 200
"""Of a trial: two of them may be late at the 99th percentile."""
TRIAL_SHARE: Final = 0.05
"""Of the row's duration."""
SHORTEST_TRIAL_S: Final = 0.5
LONGEST_TRIAL_S: Final = 30.0
LONGEST_SHARE: Final = 0.5
"""A quick row has quick trials, of fewer queries."""
RETREAT: Final = 0.8
RETREATS: Final = 10


class Answering(Protocol):
    """What is sent queries."""

    async def play(self, script: Script) -> Played:
        """Play a script."""


@dataclass(frozen=True, slots=True)
class Bound:
    """`percentile` of the answers come within `bound_ms`."""

    percentile: float
    bound_ms: float

    def kept(self, played: Played) -> bool:
        """Whether they did."""
        latencies = histogram.collected(played.latencies_ns)
        return histogram.quantile_ms(latencies, self.percentile) <= self.bound_ms


@dataclass(frozen=True, slots=True)
class Found:
    """The highest rate at which the bound was kept, 0 when it was kept at none; and every rate that was tried."""

    rate_per_s: float
    tried: tuple[tuple[float, bool], ...]


async def search(side: Answering, bound: Bound, duration_s: float, batch: int, seed: int) -> Found:
    """Bisect between nothing and the device's own pace, then go down until a longer trial keeps the bound, too."""
    tried: list[tuple[float, bool]] = []

    async def keeps(rate_per_s: float, seconds: float) -> bool:
        longest_s = min(LONGEST_TRIAL_S, LONGEST_SHARE * duration_s)
        enough_s = min(longest_s, max(seconds, LEAST_QUERIES / rate_per_s))
        script = scenarios.poisson(rate_per_s, enough_s, seed + len(tried), batch)
        kept = bound.kept(await side.play(script))
        tried.append((rate_per_s, kept))
        return kept

    trial_s = max(SHORTEST_TRIAL_S, TRIAL_SHARE * duration_s)
    paced = await side.play(Closed(CAPACITY.seconds, CAPACITY.runs, batch))
    low, high = 0.0, paced.inferences / paced.seconds
    if not Bound(0.5, bound.bound_ms).kept(paced):
        return Found(0.0, ((high, False),))  # most runs alone take longer
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if await keeps(middle, trial_s) else (low, middle)
    for _ in range(RETREATS):
        if low == 0 or await keeps(low, 4 * trial_s):
            break
        low *= RETREAT
    return Found(low if tried[-1][1] or low == 0 else 0.0, tuple(tried))
