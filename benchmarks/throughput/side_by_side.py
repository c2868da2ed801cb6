"""Both sides are loaded: find the rate where one is to be found, then round after round until there are enough."""

from dataclasses import dataclass
from typing import Final

from msgspec import structs

from benchmarks.throughput import rates, scenarios
from benchmarks.throughput.asked import Asked, NotMeasuredError, Progress
from benchmarks.throughput.energy import Idle
from benchmarks.throughput.play import Closed, Script
from benchmarks.throughput.results import ScenarioUsed
from benchmarks.throughput.turns import Pair

LEAST_ROUNDS: Final = 5
CLOSED_TURN_S: Final = (0.25, 10.0)
"""The shortest and the longest turn of single and offline: a thirtieth of the row in between."""
CLOSED_TURNS: Final = 30
OPEN_TURN_S: Final = (0.5, 60.0)
"""Of server and constant, a tenth of the row in between: a queue begins empty in each turn."""
OPEN_TURNS: Final = 10
OPEN_LEAST_QUERIES: Final = 20


@dataclass(frozen=True, slots=True)
class SideBySide:
    """Fills the rounds of a pair."""

    asked: Asked
    pair: Pair
    progress: Progress

    async def measure(self, scenario: ScenarioUsed) -> tuple[ScenarioUsed, Idle | None, Idle | None]:
        """The scenario with its rate, and idle power before and after. Raises `NotMeasuredError`, and what sides raise."""
        await self.pair.warm_up(scenario.batch)
        scenario = await self._with_a_rate(scenario)
        before = await self.pair.idle()
        turn_s, done = self._turn_s(scenario), 0.0
        while done < 1:
            await self.pair.round(self._script(scenario, turn_s))
            done = self._done(scenario)
            self.progress(min(1.0, done))
        return scenario, before, await self.pair.idle()

    async def _with_a_rate(self, scenario: ScenarioUsed) -> ScenarioUsed:
        """Search one for a server that was given none."""
        if scenario.name != "server" or scenario.rate_per_s is not None:
            return scenario
        bound = rates.Bound(scenario.percentile or 0.0, self.asked.bound_ms)
        found = await rates.search(
            self.pair.ours, bound, scenario.min_duration_s, scenario.batch, self.asked.seed
        )
        if not found.rate_per_s:
            raise NotMeasuredError(
                f"no rate keeps {bound.percentile:.0%} of the answers within {bound.bound_ms:g} ms "
                f"(tried down to {min(rate for rate, _ in found.tried):.3g}/s): give --latency-bound-ms"
            )
        return structs.replace(
            scenario, rate_per_s=found.rate_per_s, rate_found=True, tried_per_s=found.tried
        )

    def _done(self, scenario: ScenarioUsed) -> float:
        """Which share of what is needed there is; 1 and more: enough."""
        turns = [each.ours.played for each in self.pair.rounds]
        shares = [len(turns) / LEAST_ROUNDS]
        if scenario.min_duration_s:
            shares.append(sum(turn.seconds for turn in turns) / scenario.min_duration_s)
        if scenario.min_queries:
            shares.append(sum(turn.inferences for turn in turns) / scenario.min_queries)
        return min(shares)

    def _turn_s(self, scenario: ScenarioUsed) -> float:
        """How long one turn is: at least what the meter needs."""
        least_s = self.pair.metering.turn_s if self.pair.metering else 0.0
        if scenario.rate_per_s is None:
            shortest_s, longest_s = CLOSED_TURN_S
            return max(least_s, shortest_s, min(longest_s, scenario.min_duration_s / CLOSED_TURNS))
        shortest_s, longest_s = OPEN_TURN_S
        duration_s = scenario.min_duration_s or scenario.min_queries / scenario.rate_per_s
        least_s = max(least_s, OPEN_LEAST_QUERIES / scenario.rate_per_s)
        return max(least_s, shortest_s, min(longest_s, duration_s / OPEN_TURNS))

    def _script(self, scenario: ScenarioUsed, turn_s: float) -> Script:
        """Of the next round; both sides play it."""
        number = len(self.pair.rounds)
        if scenario.rate_per_s is None:
            return Closed(turn_s, 1, scenario.batch)
        if scenario.name == "server":
            seed = 1000 * self.asked.seed + number
            return scenarios.poisson(scenario.rate_per_s, turn_s, seed, scenario.batch)
        return scenarios.constant(scenario.rate_per_s, turn_s, scenario.batch)
