"""Two runs of the benchmark beside each other, on machines whose truth is known."""

import math
from dataclasses import replace as dataclass_replace
from typing import Any

import pytest
from bench_results import MODEL_METER, Machine, Workshop, results
from msgspec.structs import replace

from benchmarks.throughput import student
from benchmarks.throughput.compare import Comparison, Terms, Verdict, compare
from benchmarks.throughput.ratios import Known, ratio
from benchmarks.throughput.results import Interval

NORMAL = Machine()
SLOWER_BY_20 = Machine(latency_ms=4.8)
MODELS = ("file-types", "text-detector", "sentence-embedding", "voice-activity", "resnet50")
SEEDS = 100


def beside(a: Machine, b: Machine, seed: int = 1, terms: Terms = Terms(), **row: Any) -> Comparison:  # noqa: B008
    return compare(
        results(Workshop(seed).row(a, **row)), results(Workshop(seed + 1_000_000).row(b, **row)), terms
    )


def verdicts(comparison: Comparison) -> dict[str, Verdict]:
    return {each.quantity.name: each.verdict for pair in comparison.pairs for each in pair.compared}


def whys(comparison: Comparison) -> dict[str, str]:
    return {each.quantity.name: each.why for pair in comparison.pairs for each in pair.compared}


def test_a_machine_that_is_a_fifth_slower_is_a_regression_in_everything_that_time_is_part_of() -> None:
    found = beside(NORMAL, SLOWER_BY_20)
    assert set(verdicts(found).values()) == {Verdict.REGRESSION}
    assert found.regressions == 4
    [pair] = found.pairs
    throughput = pair.compared[0].ratio
    assert throughput is not None
    assert throughput.low is not None
    assert throughput.high is not None
    assert throughput.low < 1 / 1.2 < throughput.high


def test_the_same_the_other_way_round_is_better() -> None:
    found = beside(SLOWER_BY_20, NORMAL)
    assert set(verdicts(found).values()) == {Verdict.BETTER}
    assert found.regressions == 0


def test_what_is_worse_but_perhaps_by_less_than_the_threshold_is_told_and_fails_nothing() -> None:
    found = beside(NORMAL, Machine(latency_ms=4.0 * 1.12), terms=Terms(threshold=0.10))
    assert verdicts(found)["throughput"] is Verdict.WORSE
    assert found.regressions == 0


def test_a_difference_that_the_noise_hides_gets_no_verdict() -> None:
    noisy = Machine(spread=0.2)
    found = beside(noisy, dataclass_replace(noisy, latency_ms=4.2))
    assert set(verdicts(found).values()) == {Verdict.OPEN}


def test_a_machine_compared_with_itself_is_seldom_judged() -> None:
    """The promise of the table as a whole: a verdict where there is nothing in at most 5 of 100 tables."""
    machine = Machine(spread=0.03, rounds=8, queries=80)
    alarms = regressions = 0
    for seed in range(SEEDS):
        workshop = Workshop(seed)
        a, b = (results(*(workshop.row(machine, name) for name in MODELS)) for _ in "AB")
        found = compare(a, b)
        judged = [each for pair in found.pairs for each in pair.compared]
        assert all(each.ratio and each.ratio.low for each in judged)
        assert len(judged) == 4 * len(MODELS)
        alarms += any(each.verdict is not Verdict.OPEN for each in judged)
        regressions += found.regressions > 0
    # at 5 % there are 5 in 100 tables, and with three standard deviations of chance 11
    assert alarms <= 0.05 * SEEDS + 3 * math.sqrt(0.05 * 0.95 * SEEDS)
    assert regressions <= 1


def test_a_real_regression_is_nearly_always_found() -> None:
    found = [beside(NORMAL, Machine(latency_ms=4.0 * 1.15), seed).regressions for seed in range(30)]
    assert sum(count > 0 for count in found) >= 29


def test_what_a_run_cannot_know_of_the_next_one_makes_intervals_wider() -> None:
    slightly = Machine(latency_ms=4.0 * 1.06, spread=0.005)
    steady = dataclass_replace(NORMAL, spread=0.005)
    assert verdicts(beside(steady, slightly))["throughput"] in {Verdict.WORSE, Verdict.REGRESSION}
    careful = beside(steady, slightly, terms=Terms(run_to_run=0.05))
    assert verdicts(careful)["throughput"] is Verdict.OPEN


def test_measured_joules_are_never_compared_with_modelled_ones() -> None:
    modelled = dataclass_replace(NORMAL, source="model", meter=MODEL_METER)
    found = beside(NORMAL, modelled)
    assert verdicts(found)["inferences per joule"] is Verdict.NONE
    why = whys(found)["inferences per joule"]
    assert "never compared" in why
    assert "measured, counter (rapl package-0)" in why
    assert "modelled (7 W x CPU seconds)" in why
    assert verdicts(found)["throughput"] is not Verdict.NONE


@pytest.mark.parametrize(
    ("a", "b", "compared"),
    [
        ("nvml GPU-1", "nvml GPU-2", True),  # both are their machines' meters, of the same scope
        ("rapl package-0", "another counter", False),
    ],
)
def test_meters_of_two_machines_must_measure_the_same(a: str, b: str, compared: bool) -> None:
    rows = [Workshop(seed).row(dataclass_replace(NORMAL, meter=name)) for seed, name in enumerate((a, b))]
    meters = [replace(results().provenance.meter, name=name) for name in (a, b if compared else "rapl")]  # type: ignore[type-var]
    one, other = (results(row, meter=meter) for row, meter in zip(rows, meters, strict=True))
    found = compare(one, other)
    assert (verdicts(found)["inferences per joule"] is not Verdict.NONE) is compared


@pytest.mark.parametrize(("other", "said"), [("none", "no meter in B"), ("counter", "")])
def test_without_a_meter_joules_are_not_compared_and_it_says_where(other: Any, said: str) -> None:
    assert whys(beside(NORMAL, dataclass_replace(NORMAL, source=other)))["inferences per joule"] == said


def test_other_bytes_under_the_same_name_are_another_model() -> None:
    row = Workshop().row(NORMAL)
    changed = replace(row, model=replace(row.model, sha256="f" * 64))
    found = compare(results(row), results(changed))
    assert set(verdicts(found).values()) == {Verdict.NONE}
    assert "other model file" in whys(found)["throughput"]


def test_other_inputs_are_other_work() -> None:
    row = Workshop().row(NORMAL)
    changed = replace(row, model=replace(row.model, inputs_from="217 prompts"))
    assert "other inputs" in whys(compare(results(row), results(changed)))["throughput"]


def test_latencies_at_another_rate_are_not_compared() -> None:
    found = compare(
        results(Workshop(1).row(NORMAL, scenario="server", rate_per_s=100.0, rate_found=True)),
        results(Workshop(2).row(NORMAL, scenario="server", rate_per_s=120.0, rate_found=True)),
    )
    assert "at other rates: 100 against 120" in whys(found)["latency p99"]
    assert verdicts(found)["throughput"] is not Verdict.NONE


def test_a_throughput_that_was_asked_for_is_no_result() -> None:
    found = beside(NORMAL, NORMAL, scenario="server", rate_per_s=100.0)
    assert "given" in whys(found)["throughput"]


def test_a_machine_that_was_busy_with_something_else_gets_no_verdict() -> None:
    busy = dataclass_replace(
        SLOWER_BY_20, marks=("busy machine: others took 30% of its processor time, limit 5%",)
    )
    found = beside(NORMAL, busy)
    assert set(verdicts(found).values()) == {Verdict.OPEN}
    assert whys(found)["throughput"] == "the machine of B was busy with something else"


def test_two_rounds_give_a_ratio_and_no_verdict() -> None:
    found = beside(dataclass_replace(NORMAL, rounds=2), Machine(latency_ms=40))
    assert verdicts(found)["throughput"] is Verdict.OPEN
    assert "too few rounds" in whys(found)["throughput"]


def test_another_batch_that_run_has_chosen_is_the_same_row_with_other_latencies() -> None:
    found = compare(
        results(Workshop(1).row(NORMAL, scenario="offline", batch=8)),
        results(Workshop(2).row(NORMAL, scenario="offline", batch=16)),
    )
    assert verdicts(found)["throughput"] is not Verdict.NONE
    assert "of other batches: 8 against 16" in whys(found)["latency p99"]


def test_two_backends_are_paired_by_what_they_ran() -> None:
    cpu, fsd = Workshop(1).row(NORMAL, use="cpu"), Workshop(2).row(SLOWER_BY_20, use="fsd")
    found = compare(results(cpu), results(fsd))
    assert verdicts(found)["throughput"] is Verdict.REGRESSION


def test_two_backends_in_a_file_are_never_guessed_at() -> None:
    cpu, fsd = Workshop(1).row(NORMAL, use="cpu"), Workshop(2).row(NORMAL, use="fsd")
    found = compare(results(cpu, fsd), results(Workshop(3).row(NORMAL, use="null")))
    assert not found.pairs
    assert [row.backend.use for row in found.alone.only_a] == ["cpu", "fsd"]


def test_a_row_that_fails_now_is_a_regression_and_one_that_was_left_out_is_not() -> None:
    first, second = Workshop(1).row(NORMAL), Workshop(1).row(NORMAL, "text-detector")
    failed = Workshop(2).row(Machine(fails="worker ended by signal 9"))
    assert compare(results(first), results(failed)).regressions == 1
    assert compare(results(failed), results(first)).regressions == 0
    left_out = compare(results(first, second), results(Workshop(3).row(NORMAL)))
    assert left_out.regressions == 0
    assert [row.model.id for row in left_out.alone.only_a] == ["text-detector"]


def test_the_quantile_of_students_t_is_that_of_the_tables() -> None:
    for freedom, value in {1: 12.706, 2: 4.303, 5: 2.571, 10: 2.228, 30: 2.042, 120: 1.980}.items():
        assert student.two_sided(0.95, freedom) == pytest.approx(value, abs=6e-4)
    assert student.two_sided(0.9995, 1) == pytest.approx(math.tan(math.pi / 2 * 0.9995))
    assert student.two_sided(0.9995, 100_000) == pytest.approx(3.4808, abs=1e-3)  # of the normal distribution


def test_the_interval_of_a_ratio_covers_the_truth_as_often_as_it_says() -> None:
    workshop, inside = Workshop(7), 0
    for _ in range(2000):
        sides = [[workshop.rng.gauss(0, 0.05) for _ in range(5)] for _ in range(2)]
        known = [_known(side) for side in sides]
        between = ratio(known[0], known[1], 0.90)
        assert between.low is not None
        assert between.high is not None
        inside += between.low <= 1 <= between.high
    assert 0.88 <= inside / 2000 <= 0.94


def _known(logs: list[float]) -> Known:
    mean = sum(logs) / len(logs)
    error = math.sqrt(sum((each - mean) ** 2 for each in logs) / (len(logs) - 1) / len(logs))
    half = student.two_sided(0.95, len(logs) - 1) * error
    return Known(Interval(math.exp(mean), math.exp(mean - half), math.exp(mean + half)), len(logs))
