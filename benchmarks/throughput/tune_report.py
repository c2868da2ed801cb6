"""What tuning has found, in words: what was tried, what dropped out and why, and what each setting gains."""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

from benchmarks.throughput import figures, histogram, intervals
from benchmarks.throughput.results import Interval, Round
from benchmarks.throughput.tune import Tuned, Tuning
from benchmarks.throughput.tune_cost import Costing
from benchmarks.throughput.tune_search import PERCENTILE, Cost, Trial, efficiency, shown

BATCH: Final = "batch"
BUSY_SHARE: Final = 0.05
NO_PRECISION: Final = "precision: the catalogue has no other precision of this model"
NONE_KEEPS: Final = "no setting keeps the bounds: allow more (--latency-bound-ms, --preemption-bound-ms), or ask for less (--rate)"


def lines(tuning: Tuning, tuned: Tuned) -> Iterator[str]:
    """The whole report."""
    bounds, costing = tuning.bounds, tuning.costing
    yield (
        f"{tuning.sides.subject.entry.id} on {tuning.sides.use}: {tuning.rate_per_s:g} requests/s at even intervals, "
        f"p99 within {bounds.latency_ms:g} ms, preempted within {bounds.preemption_ms:g} ms"
    )
    yield from _block("not searched", [*tuned.left_out, *([] if tuning.other else [NO_PRECISION])])
    yield from _block(
        f"tried at {tuning.rate_per_s:g} requests/s: inferences per {costing.coin}, p99",
        _trials(tuned.trials, tuned.taken, costing),
    )
    if tuned.taken is None:
        yield from ("", NONE_KEEPS, *_busy(tuned))
        return
    yield from _block("what each setting gains at that rate", gains(tuned.trials, tuned.taken, costing))
    yield from _block("tried at full load", _trials(tuned.full_trials, tuned.full_taken, costing))
    yield from _block("measured anew, in turn with the defaults", summary(tuning, tuned))


def gains(trials: Sequence[Trial], taken: Trial, costing: Costing) -> Iterator[str]:
    """What was taken against each other value; all else alike where that was tried, else with what differs besides."""
    chosen, ran = _values(taken), [trial for trial in trials if trial.turns]
    for name in dict.fromkeys(name for trial in ran for name in _values(trial)):
        for value in sorted({_shown_value(trial, name) for trial in ran} - {_shown_value(taken, name)}):
            others = [trial for trial in ran if _shown_value(trial, name) == value]
            other = min(others, key=lambda trial: (len(_apart(trial, chosen)), _cost(trial, costing)))
            besides = {key: each for key, each in _apart(other, chosen).items() if key != name}
            yield (
                f"{name} {_shown_value(taken, name)}, not {value}{_with(besides)}: "
                f"{shown(efficiency(taken, other, costing.per_inference))}"
            )


def summary(tuning: Tuning, tuned: Tuned) -> Iterator[str]:
    """What the setting gains over the defaults, at the rate and at full load, and what another precision would."""
    if tuned.taken is None or tuned.confirmed is None:
        return
    confirmed, cost = tuned.confirmed, tuning.costing.per_inference
    yield (
        f"at {tuning.rate_per_s:g} requests/s, {tuned.taken.setting}: {_gain(confirmed.at_rate, cost)} the inferences "
        f"per {tuning.costing.coin} of {tuning.sides.reference}; {_figures(confirmed.at_rate, cost)}"
    )
    yield (
        f"at full load, batch {tuned.full_batch}: {_gain(confirmed.full, cost)} those of the defaults row by row; "
        f"throughput {_throughput(confirmed.full)}"
    )
    if confirmed.full_same_batch:
        yield (
            f"at full load, both in batches of {tuned.full_batch}: {_gain(confirmed.full_same_batch, cost)}; "
            f"throughput {_throughput(confirmed.full_same_batch)}"
        )
    yield from _busy(tuned)
    if confirmed.precision and tuning.other is not None:
        yield (
            f"precision: {tuning.other.subject.entry.id} with this setting gives "
            f"{_gain(confirmed.precision, cost)} the inferences; it is another model with other answers: not taken"
        )


def _busy(tuned: Tuned) -> Iterator[str]:
    if tuned.others_share > BUSY_SHARE:
        yield (
            f"busy machine: others took {tuned.others_share:.0%} of its processor time meanwhile, which latencies "
            "and throughput show: measure again when it is at rest"
        )


def _block(title: str, items: Sequence[str] | Iterator[str]) -> Iterator[str]:
    yield from ("", f"{title}:", *(f"  {item}" for item in items))


def _trials(trials: Sequence[Trial], taken: Trial | None, costing: Costing) -> Iterator[str]:
    for trial in sorted(trials, key=lambda trial: (not trial.turns, trial is not taken)):
        found = f"{1 / _cost(trial, costing):.4g}, {trial.latency_ms:.3g} ms; " if trial.turns else ""
        yield f"{trial.setting}: {found}{'taken' if trial is taken else trial.out}"


def _values(trial: Trial) -> dict[str, Any]:
    return {**trial.setting.options, BATCH: trial.setting.batch}


def _shown_value(trial: Trial, name: str) -> str:
    values = _values(trial)
    return json.dumps(values[name]) if name in values else "any"


def _apart(trial: Trial, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Where it differs from what was taken; None for an option that only that one has."""
    values = _values(trial)
    names = [*values, *(name for name in chosen if name not in values)]
    return {name: values.get(name) for name in names if values.get(name) != chosen.get(name)}


def _with(besides: Mapping[str, Any]) -> str:
    named = ", ".join(
        f"any {name}" if value is None else f"{name} {json.dumps(value)}" for name, value in besides.items()
    )
    return f" (that one with {named})" if named else ""


def _cost(trial: Trial, costing: Costing) -> float:
    return costing.per_inference([Round(turn) for turn in trial.turns])


def _gain(rounds: Sequence[Round], cost: Cost) -> str:
    def times(some: Sequence[Round]) -> float:
        return cost(some, figures.bare) / cost(some, figures.ours)

    return shown(intervals.interval(rounds, times))


def _figures(rounds: Sequence[Round], cost: Cost) -> str:
    """Ours and the defaults', with what is behind them."""
    per_ours, per_bare = 1 / cost(rounds, figures.ours), 1 / cost(rounds, figures.bare)
    p99_ours, p99_bare = (_p99_ms(rounds, side) for side in (figures.ours, figures.bare))
    return f"{per_ours:.4g} to {per_bare:.4g}, p99 {p99_ours:.3g} to {p99_bare:.3g} ms, {len(rounds)} rounds"


def _p99_ms(rounds: Sequence[Round], side: figures.Side) -> float:
    return histogram.quantile_ms(histogram.merged(side(each).latency for each in rounds), PERCENTILE)


def _throughput(rounds: Sequence[Round]) -> str:
    ratio: Interval = intervals.interval(rounds, partial(figures.ratio, figure=figures.throughput_per_s))
    return shown(ratio)
