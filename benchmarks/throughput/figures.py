"""The figures of a row as functions of its rounds, and each with its interval."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from benchmarks.throughput import histogram, intervals
from benchmarks.throughput.results import Interval, Latency, Round, Turn

Side = Callable[[Round], Turn]
PERCENTILES: Final = (0.50, 0.90, 0.99)


def ours(measured: Round) -> Turn:
    """The side of the worker."""
    return measured.ours


def bare(measured: Round) -> Turn:
    """The side of the bare runtime; ValueError for a round without."""
    if measured.bare is None:
        raise ValueError("this round has no turn of the bare runtime")
    return measured.bare


def throughput_per_s(rounds: Sequence[Round], side: Side = ours) -> float:
    """Inferences a second."""
    return _sum(rounds, side, lambda turn: turn.inferences) / _sum(rounds, side, lambda turn: turn.seconds)


def cpu_s_per_inference(rounds: Sequence[Round], side: Side = ours) -> float:
    """Processor seconds of the process that runs the model."""
    return _sum(rounds, side, lambda turn: turn.cpu_s) / _sum(rounds, side, lambda turn: turn.inferences)


def joules_per_inference(rounds: Sequence[Round], side: Side = ours) -> float:
    """Active joules; ValueError where a turn was not metered."""
    return _sum(rounds, side, _joules) / _sum(rounds, side, lambda turn: turn.inferences)


def quantile_ms(rounds: Sequence[Round], share: float, side: Side = ours) -> float:
    """Of the latencies of all rounds together."""
    return histogram.quantile_ms(histogram.merged(side(each).latency for each in rounds), share)


def ratio(rounds: Sequence[Round], figure: Callable[[Sequence[Round], Side], float]) -> float:
    """A figure of ours through the same of the bare runtime."""
    return figure(rounds, ours) / figure(rounds, bare)


def latency(rounds: Sequence[Round], side: Side = ours) -> Latency:
    """Percentiles with their intervals."""
    return Latency(*(latency_ms(rounds, share, side) for share in PERCENTILES))


def latency_ms(rounds: Sequence[Round], share: float, side: Side = ours) -> Interval:
    """A percentile. Its interval covers both what differs between rounds and the chance of few slow ones.

    The latter are the order statistics between which the percentile lies (binomial, by its normal approximation);
    without an upper one, as of p99 among a hundred, there are no bounds.
    """
    together = histogram.merged(side(each).latency for each in rounds)
    between = intervals.interval(rounds, partial(quantile_ms, share=share, side=side))
    count = histogram.count(together)
    half = intervals.NORMAL * math.sqrt(count * share * (1 - share))
    low_rank, high_rank = max(0.0, count * share - half), count * share + half + 1
    if between.low is None or between.high is None or high_rank > count:
        return Interval(between.value)
    return Interval(
        between.value,
        min(between.low, histogram.at_rank_ms(together, low_rank)),
        max(between.high, histogram.at_rank_ms(together, high_rank)),
    )


def _joules(turn: Turn) -> float:
    if turn.joules is None:
        raise ValueError("a turn was not metered")
    return turn.joules


def _sum(rounds: Sequence[Round], side: Side, part: Callable[[Turn], float]) -> float:
    return sum(part(side(each)) for each in rounds)
