"""Intervals that hold what they promise, on distributions whose truth is known."""

import math
import random
from functools import partial

import pytest

from benchmarks.throughput import figures, histogram, intervals
from benchmarks.throughput.results import Histogram, Interval, Round, Turn

TRIALS = 400
LEAST_COVERED = 0.91
"""Of 95 %: with so many trials a method that keeps its promise falls below this once in a thousand times."""


def turn(latencies_ms: list[float], seconds: float | None = None, joules: float | None = None) -> Turn:
    latencies_ns = [round(each * 1e6) for each in latencies_ms]
    busy_s = sum(latencies_ns) / 1e9
    return Turn(len(latencies_ns), seconds or busy_s, busy_s, histogram.collected(latencies_ns), joules)


def covers(found: Interval, truth: float) -> bool:
    assert found.low is not None
    assert found.high is not None
    return found.low <= truth <= found.high


def test_an_interval_of_throughput_covers_the_truth_as_often_as_it_says() -> None:
    chance = random.Random(1)  # noqa: S311 - no secret
    covered = 0
    for _ in range(TRIALS):
        rounds = [
            Round(turn([1.0] * 100, 0.1 * math.exp(chance.gauss(0, 0.05) - 0.05**2 / 2))) for _ in range(10)
        ]
        covered += covers(intervals.interval(rounds, figures.throughput_per_s), 1000.0)
    assert covered / TRIALS >= LEAST_COVERED


def test_an_interval_of_a_ratio_covers_the_truth_although_the_machine_drifts_under_both_sides() -> None:
    chance = random.Random(2)  # noqa: S311 - no secret
    covered, widths, alone = 0, [], []
    for _ in range(TRIALS):
        rounds = []
        for _ in range(10):
            machine = math.exp(chance.gauss(0, 0.3))  # what else it does falls on both
            ours, bare = (
                turn([1.0] * 100, overhead * machine * math.exp(chance.gauss(0, 0.01)))
                for overhead in (0.11, 0.10)
            )
            rounds.append(Round(ours, bare))
        ratio = intervals.interval(rounds, partial(figures.ratio, figure=figures.throughput_per_s))
        covered += covers(ratio, 0.10 / 0.11)
        widths.append((ratio.high or 0) / (ratio.low or 1))
        throughput = intervals.interval(rounds, figures.throughput_per_s)
        alone.append((throughput.high or 0) / (throughput.low or 1))
    assert covered / TRIALS >= LEAST_COVERED
    assert max(widths) < min(alone), "rounds of both sides tell far more than either side alone"


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("between_rounds", [0.0, 0.2], ids=["steady", "uneven"])
def test_an_interval_of_a_percentile_covers_the_truth(share: float, between_rounds: float) -> None:
    chance = random.Random(3)  # noqa: S311 - no secret
    # a mixture over rounds has another percentile than its rounds: taken from very many of them
    many = [math.exp(chance.gauss(0, between_rounds)) * chance.expovariate(1) for _ in range(200_000)]
    truth = sorted(many)[int(share * len(many))]
    covered, trials = 0, 120
    for _ in range(trials):
        rounds = []
        for _ in range(12):
            pace = math.exp(chance.gauss(0, between_rounds))
            rounds.append(Round(turn([pace * chance.expovariate(1) for _ in range(100)])))
        covered += covers(figures.latency_ms(rounds, share), truth)
    assert covered / trials >= 0.88


def test_the_ninety_ninth_of_a_hundred_has_no_bounds() -> None:
    rounds = [Round(turn([float(number) for number in range(1, 21)])) for _ in range(5)]
    assert figures.latency_ms(rounds, 0.99).low is None
    assert figures.latency_ms(rounds, 0.5).low is not None


def test_two_rounds_tell_a_figure_and_no_bounds() -> None:
    rounds = [Round(turn([1.0])), Round(turn([3.0]))]
    assert intervals.interval(rounds, figures.throughput_per_s) == Interval(500.0)


def test_joules_that_cannot_be_told_from_nothing_have_no_inferences_per_joule() -> None:
    rounds = [Round(turn([1.0] * 10, joules=joules)) for joules in (1.0, -1.2, 0.4, 0.9, -0.7)]
    found = intervals.signed_interval(rounds, figures.joules_per_inference)
    assert covers(found, 0.0)
    assert intervals.reciprocal(found) is None
    sure = intervals.reciprocal(Interval(2.0, 1.0, 4.0))
    assert sure == Interval(0.5, 0.25, 1.0)


def test_a_histogram_gives_every_percentile_back_within_half_a_percent() -> None:
    chance = random.Random(4)  # noqa: S311 - no secret
    latencies = sorted(chance.lognormvariate(15, 1) for _ in range(5000))
    parts = [histogram.collected(map(int, latencies[part::5])) for part in range(5)]
    together = histogram.merged(parts)
    assert histogram.count(together) == len(latencies)
    for share in (0.01, 0.5, 0.9, 0.99, 1.0):
        exact_ms = latencies[math.ceil(share * len(latencies)) - 1] / 1e6
        assert histogram.quantile_ms(together, share) == pytest.approx(exact_ms, rel=0.0051)


def test_an_empty_histogram_has_no_percentile() -> None:
    with pytest.raises(ValueError, match="no rank"):
        histogram.quantile_ms(Histogram((), ()), 0.5)
