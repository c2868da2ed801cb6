"""The four ways in which load is made, after MLPerf, and for how long.

Sources: MLPerf Inference rules (inference_rules.adoc of mlcommons/inference_policies, "Scenarios") for SingleStream,
Offline and Server: 600 s each, the 90th and 99th percentile, 24,576 samples of Offline. Their early stopping accepts
fewer queries than before, but at least 64 for the 90th and 662 for the 99th percentile. MLPerf Automotive v0.5 for
ConstantStream: 100,000 queries at even intervals, the 99.9th percentile; it names no duration.
"""

from dataclasses import dataclass, replace
from typing import Final, get_args

import numpy as np

from benchmarks.throughput.catalogue import UnknownNameError
from benchmarks.throughput.play import Open
from benchmarks.throughput.results import ScenarioName, ScenarioUsed

NAMES: Final[tuple[ScenarioName, ...]] = get_args(ScenarioName)
QUICK_S: Final = 3.0
CONSTANT_PER_S: Final = 20.0
"""ConstantStream's rate where none is given: a camera of which every second frame is looked at, or so."""
NS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Rule:
    """What MLPerf asks for. Without a duration the queries alone decide."""

    min_duration_s: float
    min_queries: int
    percentile: float | None


RULES: Final[dict[ScenarioName, Rule]] = {
    "single": Rule(600, 64, 0.90),
    "offline": Rule(600, 24_576, None),
    "server": Rule(600, 662, 0.99),
    "constant": Rule(0, 100_000, 0.999),
}


@dataclass(frozen=True, slots=True)
class Length:
    """How long a row is measured. Without a duration it is MLPerf's."""

    quick: bool = False
    duration_s: float | None = None

    def rule(self, name: ScenarioName) -> Rule:
        """MLPerf's, or with the duration that was asked for and no least number of queries."""
        rule = RULES[name]
        seconds = self.duration_s if self.duration_s is not None else QUICK_S if self.quick else None
        return rule if seconds is None else replace(rule, min_duration_s=seconds, min_queries=0)


def known(names: list[str]) -> list[ScenarioName]:
    """The scenarios of these names; raises `UnknownNameError`."""
    for name in names:
        if name not in NAMES:
            raise UnknownNameError(f"--scenario {name}: not known: take {', '.join(NAMES)}")
    return [name for name in NAMES if name in names]


def used(
    name: ScenarioName, length: Length, batch: int, bound_ms: float, rate_per_s: float | None
) -> ScenarioUsed:
    """As a row has it before it is measured."""
    rule = length.rule(name)
    return ScenarioUsed(
        name=name,
        batch=batch,
        min_duration_s=rule.min_duration_s,
        min_queries=rule.min_queries,
        percentile=rule.percentile,
        latency_bound_ms=bound_ms if name in {"server", "constant"} else None,
        rate_per_s=rate_per_s,
    )


def meets_the_rules(name: ScenarioName, seconds: float, queries: int) -> bool:
    """Whether so much is what MLPerf asks for."""
    rule = RULES[name]
    return seconds >= rule.min_duration_s and queries >= rule.min_queries


def poisson(rate_per_s: float, seconds: float, seed: int, batch: int) -> Open:
    """Queries at random intervals: the same ones for the same seed."""
    rng = np.random.default_rng(seed)
    count = max(1, rng.poisson(rate_per_s * seconds))
    due_s = np.sort(rng.uniform(0, seconds, count))  # given their number, that is how they fall
    return Open(tuple((due_s * NS).astype(np.int64).tolist()), batch, lasts_ns=round(seconds * NS))


def constant(rate_per_s: float, seconds: float, batch: int) -> Open:
    """Queries at even intervals."""
    count = max(1, round(rate_per_s * seconds))
    due_ns = tuple(round(number * NS / rate_per_s) for number in range(count))
    return Open(due_ns, batch, lasts_ns=round(count * NS / rate_per_s))
