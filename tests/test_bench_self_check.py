"""The benchmark's check of itself: its arithmetic on known truth, and a meter of known wattage."""

import math
import random
from pathlib import Path

import pytest
from bench_command import called
from bench_subjects import choice, tiny
from cars import HandClock
from meters import HandMeter

from benchmarks.throughput import self_check
from benchmarks.throughput.catalogue import prepared
from benchmarks.throughput.energy import metering
from benchmarks.throughput.known_meter import KnownMeter
from benchmarks.throughput.self_check import FAILS, HOLDS, NOT_SURE, LinearRound, ZeroRound
from benchmarks.throughput.self_checking import Gauge, Length, checks, known_answer


async def test_a_meter_of_known_wattage_gives_the_known_answer_to_half_a_percent() -> None:
    check = await known_answer()
    assert abs(check.off.value) <= 0.005
    assert check.verdict == HOLDS


async def test_every_check_is_made_with_a_real_worker(tmp_path: Path) -> None:
    """Their verdicts are this machine's, which may be busy."""
    gauge, length = Gauge(None, watts_per_core=10), Length(rounds=3, runs=3, turn_s=0.1)
    subject = prepared(tiny(), tmp_path)
    found = [check async for check in checks(subject, choice("cpu"), gauge, length)]
    assert [check.name for check in found] == [
        "2 x the work costs 2 x the joules",
        "4 x the work costs 4 x the joules",
        "no work costs what an idle machine does",
        "inferences/s from run to run",
        "inferences/J (MODEL) from run to run",
    ]
    assert "MODEL" in str(gauge)
    assert "no meter is" in str(gauge)


async def test_a_turn_is_as_long_as_the_meter_needs() -> None:
    clock = HandClock()
    meter = HandMeter(clock)
    async with metering(meter) as owner:
        gauge = Gauge(owner, watts_per_core=10)
        assert str(gauge) == "hand (counter), the whole computer"
        assert gauge.turn_s(0.001) == pytest.approx(owner.turn_s)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--backend", "tpu"], "--backend"),
        (["--model", "resnet"], "--model resnet: not known: take"),
        (["--meter", "sundial"], "--meter sundial: not known: take"),
    ],
)
def test_a_wrong_call_is_refused_in_a_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    code, _, err = called(capsys, "self-check", *arguments)
    assert code == 2
    assert said in err
    assert err.count("\n") == 1


def test_the_known_meter_counts_idle_and_work_and_knows_the_truth() -> None:
    clock = HandClock()
    meter = KnownMeter(clock, idle_w=5, work_w=20)
    clock.forward(10)
    assert meter.read().joules == pytest.approx(50)
    with meter.working():
        clock.forward(2)
    clock.forward(1)
    assert meter.read().joules == pytest.approx(50 + 2 * 25 + 5)
    assert meter.worked_j == pytest.approx(40)


def test_the_known_meter_shows_new_figures_as_often_as_rapl() -> None:
    clock = HandClock()
    meter = KnownMeter(clock, idle_w=5)
    clock.forward(0.0014)
    assert meter.read().joules == pytest.approx(0.005)
    assert meter.read().at_ns == clock()


def rounds(times: int, off: float, noise: float = 0.002) -> list[LinearRound]:
    rng = random.Random(1)  # noqa: S311 - no secret
    return [
        LinearRound(times, rng.gauss(10, 10 * noise), times * (1 + off) * rng.gauss(10, 10 * noise))
        for _ in range(8)
    ]


@pytest.mark.parametrize(
    ("off", "noise", "verdict"),
    [
        (0.0, 0.002, HOLDS),
        (0.04, 0.002, HOLDS),
        (0.08, 0.002, FAILS),
        (-0.08, 0.002, FAILS),
        (0.04, 0.05, NOT_SURE),
    ],
)
def test_k_times_the_work_must_cost_k_times_the_joules(off: float, noise: float, verdict: str) -> None:
    check = self_check.linearity(rounds(4, off, noise))
    assert check.verdict == verdict
    assert check.name == "4 x the work costs 4 x the joules"


def test_joules_of_a_meter_that_counts_something_twice_are_not_linear() -> None:
    doubled = [LinearRound(2, each.once_j, 2 * each.more_j) for each in rounds(2, 0)]
    assert self_check.linearity(doubled).verdict == FAILS


@pytest.mark.parametrize(("nothing_w", "verdict"), [(0.05, HOLDS), (-0.05, HOLDS), (3.0, FAILS)])
def test_doing_nothing_must_cost_what_an_idle_machine_does(nothing_w: float, verdict: str) -> None:
    noise = [0.01, -0.01, 0.02, -0.02]
    check = self_check.zero_work([ZeroRound(nothing_w + each, 20.0) for each in noise])
    assert check.verdict == verdict


def runs(between: float, within: float, seed: int) -> list[list[float]]:
    rng = random.Random(seed)  # noqa: S311 - no secret
    levels = [rng.gauss(0, between) for _ in range(5)]
    return [[math.exp(level + rng.gauss(0, within)) for _ in range(3)] for level in levels]


def test_the_variation_from_run_to_run_is_told_apart_from_that_within_a_run() -> None:
    found = [self_check.run_to_run("x", runs(0.03, 0.01, seed)).off.value for seed in range(300)]
    assert (sum(each**2 for each in found) / len(found)) ** 0.5 == pytest.approx(0.03, rel=0.1)
    none = [self_check.run_to_run("x", runs(0.0, 0.01, seed)).off.value for seed in range(300)]
    assert sum(none) / len(none) < 0.005


def test_a_machine_that_varies_more_than_compare_allows_fails() -> None:
    check = self_check.run_to_run("inferences/s", runs(0.3, 0.01, 1))
    assert check.verdict == FAILS
    assert "compare --run-to-run" in str(check)
