"""The figures of a row out of its rounds, and what a reader of it must know."""

from collections.abc import Sequence
from functools import partial
from typing import Final

from benchmarks.throughput import figures, histogram, intervals
from benchmarks.throughput.joules import Account
from benchmarks.throughput.results import Bare, Energy, Figures, Memory, Round, ScenarioUsed
from benchmarks.throughput.worker_side import WorkerSide

BUSY_SHARE: Final = 0.05
"""Of the machine's processor time: where others take more, the row is marked."""


def figures_of(settled: Account, ours: WorkerSide, bare_runtime: str) -> Figures:
    """All of them. `bare_runtime`: what ran on the other side, empty where nothing did."""
    rounds = settled.rounds
    inferences = sum(each.ours.inferences for each in rounds)
    cost = ours.program.cost
    return Figures(
        inferences=inferences,
        seconds=sum(each.ours.seconds for each in rounds),
        throughput_per_s=intervals.interval(rounds, figures.throughput_per_s),
        latency=figures.latency(rounds),
        cpu_s_per_inference=intervals.interval(rounds, figures.cpu_s_per_inference),
        driver_cpu_s_per_inference=sum(each.ours.driver_cpu_s for each in rounds) / inferences,
        energy=settled.energy,
        memory=Memory(ours.peak_rss_bytes(), ours.load_s, cost.cancel_bound_s),
        bare=_bare(rounds, settled.energy, bare_runtime) if bare_runtime else None,
    )


def _bare(rounds: Sequence[Round], energy: Energy, runtime: str) -> Bare:
    side = figures.bare
    both = (energy.joules_per_inference, energy.bare_joules_per_inference)
    told_from_0 = all(each is not None and intervals.reciprocal(each) is not None for each in both)
    of_joules = partial(figures.ratio, figure=figures.joules_per_inference)
    return Bare(
        runtime=runtime,
        throughput_per_s=intervals.interval(rounds, partial(figures.throughput_per_s, side=side)),
        cpu_s_per_inference=intervals.interval(rounds, partial(figures.cpu_s_per_inference, side=side)),
        latency=figures.latency(rounds, side),
        throughput_ratio=intervals.interval(rounds, partial(figures.ratio, figure=figures.throughput_per_s)),
        cpu_ratio=intervals.interval(rounds, partial(figures.ratio, figure=figures.cpu_s_per_inference)),
        joules_ratio=intervals.interval(rounds, of_joules) if told_from_0 else None,
    )


def marks_of(rounds: Sequence[Round], scenario: ScenarioUsed) -> list[str]:
    """What a reader of the row must know."""
    marks = []
    seconds = sum(each.ours.seconds for each in rounds)
    others = sum((each.others_share or 0.0) * each.ours.seconds for each in rounds) / seconds
    if others > BUSY_SHARE:
        marks.append(f"busy machine: others took {others:.0%} of its processor time, limit {BUSY_SHARE:.0%}")
    bound_ms, percentile = scenario.latency_bound_ms, scenario.percentile
    if bound_ms is not None and percentile is not None:
        reached_ms = figures.quantile_ms(rounds, percentile)
        if reached_ms > bound_ms:
            marks.append(
                f"bound not kept: {percentile:.1%} of the answers came within {reached_ms:.3g} ms, not {bound_ms:g}"
            )
    if figures.latency_ms(rounds, 0.99).low is None:
        queries = sum(histogram.count(each.ours.latency) for each in rounds)
        marks.append(f"p99 of {queries} latencies: too few for an interval")
    return marks
