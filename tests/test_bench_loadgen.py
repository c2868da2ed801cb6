"""MLPerf's own load generator drives the worker that we drive, and says the same of it as we do."""

import asyncio
import json
import re
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from backends.kernel import Model, Tensor
from backends.process import WorkerDied
from benchmarks.throughput import histogram
from benchmarks.throughput.play import Closed, Played
from benchmarks.throughput.results import (
    Energy,
    Figures,
    Interval,
    Latency,
    Loadgen,
    Memory,
    ScenarioName,
    ScenarioUsed,
)
from benchmarks.throughput.scenarios import poisson

pytest.importorskip("mlperf_loadgen", reason="needs mlcommons-loadgen, pip install 'parkwatt[bench]'")
np = pytest.importorskip("numpy")
from benchmarks.throughput import loadgen, loadgen_logs  # noqa: E402 - after the skips
from benchmarks.throughput.catalogue import CATALOGUE, prepared  # noqa: E402 - as above
from benchmarks.throughput.worker_side import BackendChoice, WorkerSide, worker_side  # noqa: E402 - as above
from benchmarks.wheels import WheelMissingError  # noqa: E402 - as above

RUN_US: Final = 20_000
"""Long beside what passing a query on takes, and what a busy machine adds: both must see the same run."""
SAMPLES: Final = 4
SHORT_S: Final = 0.6
SERVER_S: Final = 1.5
AGREEMENT: Final = 0.05
ROUNDS: Final = 3
ATTEMPTS: Final = 5
RATE_PER_S: Final = 12.0
"""Few of its queries come while another one runs, so that half of them tell of the run alone."""
BOUND_MS: Final = 200.0
ROW: Final = Tensor("x", "FP32", (4,))


@asynccontextmanager
async def a_worker(use: str = "null", **options: Any) -> AsyncIterator[WorkerSide]:
    """With the null backend, or the one that goes wrong: a run takes `RUN_US`, whatever its rows."""
    model = Model(Path("/null/reads/no/file"), "0" * 64, "onnx", (ROW,))
    samples = {"x": np.zeros((SAMPLES, 4), np.float32)}
    async with worker_side(model, samples, BackendChoice(use, {"run_us": RUN_US, **options})) as side:
        await side.play(Closed(runs=3))
        yield side


def scenario(name: ScenarioName, batch: int = 1, seconds: float = 0.0) -> ScenarioUsed:
    percentile = {"single": 0.9, "server": 0.99, "constant": 0.999}.get(name)
    rate = RATE_PER_S if name in {"server", "constant"} else None
    seconds = seconds or (SERVER_S if name == "server" else SHORT_S)
    return ScenarioUsed(name, batch, seconds, 0, percentile, BOUND_MS if rate else None, rate)


def figures(played: Played) -> Figures:
    of_all = histogram.collected(played.latencies_ns)
    p50, p90, p99 = (Interval(histogram.quantile_ms(of_all, share)) for share in (0.5, 0.9, 0.99))
    return Figures(
        inferences=played.inferences,
        seconds=played.seconds,
        throughput_per_s=Interval(played.inferences / played.seconds),
        latency=Latency(p50, p90, p99),
        cpu_s_per_inference=Interval(played.cpu_s / played.inferences),
        driver_cpu_s_per_inference=0.0,
        energy=Energy("none", ""),
        memory=Memory(0, 0.0),
    )


async def by_us(side: WorkerSide, asked: ScenarioUsed) -> Figures:
    if asked.name == "server":
        return figures(await side.play(poisson(RATE_PER_S, asked.min_duration_s, 1, asked.batch)))
    return figures(await side.play(Closed(asked.min_duration_s, batch=asked.batch)))


async def by_both(side: WorkerSide, asked: ScenarioUsed, folder: Path) -> Loadgen:
    """Ours first, then loadgen's beside it."""
    folder.mkdir()
    return await loadgen.beside(side, SAMPLES, asked, await by_us(side, asked), folder)


async def agreement(side: WorkerSide, asked: ScenarioUsed, figure: str, folder: Path) -> float:
    """Ours through loadgen's: the median of several short tests, each right after ours."""
    ratios: list[float] = []
    for number in range(ROUNDS):
        found = await by_both(side, asked, folder / f"{asked.name}-{number}-{time.monotonic_ns()}")
        assert not found.failed
        ratios.append(float(getattr(found, figure)))
    return statistics.median(ratios)


@pytest.mark.parametrize(
    ("name", "batch", "figure"),
    [
        ("single", 1, "p50_ratio"),
        ("single", 1, "throughput_ratio"),
        ("offline", 1, "throughput_ratio"),
        ("offline", 3, "throughput_ratio"),
        ("server", 1, "p50_ratio"),
    ],
)
async def test_loadgen_and_we_agree_within_5_percent(
    name: ScenarioName, batch: int, figure: str, tmp_path: Path
) -> None:
    async with a_worker() as side:
        seen = []
        for _ in range(ATTEMPTS):  # what else the machine does is no disagreement
            seen.append(await agreement(side, scenario(name, batch), figure, tmp_path))
            if abs(seen[-1] - 1) <= AGREEMENT:
                return
    pytest.fail(f"{name}, batch {batch}: {figure} {seen} in {ATTEMPTS} attempts, limit {AGREEMENT:.0%}")


@pytest.mark.parametrize(
    ("name", "figure"),
    [("single", "p50_ratio"), ("single", "throughput_ratio"), ("offline", "throughput_ratio")],
)
async def test_they_agree_on_a_real_model_too(name: ScenarioName, figure: str, tmp_path: Path) -> None:
    """Some 15 ms a run: each of loadgen's tests stands between two of ours, so that a drift falls on both."""
    pytest.importorskip("onnxruntime", reason="needs onnxruntime, pip install 'parkwatt[cpu]'")
    try:
        subject = prepared(CATALOGUE["sentence-embedding"], tmp_path)
    except WheelMissingError as error:
        pytest.skip(f"the model's package cannot be had: {error}")
    asked, seen = scenario(name, seconds=1.0), list[float]()
    async with worker_side(subject.model, subject.samples.arrays, BackendChoice("cpu")) as side:
        await side.play(Closed(runs=10))
        for number in range(ATTEMPTS * ROUNDS):
            before = await by_us(side, asked)
            folder = tmp_path / f"logs-{number}"
            folder.mkdir()
            found = await loadgen.beside(side, subject.rows, asked, before, folder)
            assert not found.failed
            after = await by_us(side, asked)
            theirs = {"p50_ratio": found.p50_ms, "throughput_ratio": found.throughput_per_s}[figure] or 0.0
            seen.append(statistics.fmean((value(before, figure), value(after, figure))) / theirs)
            if len(seen) >= ROUNDS and abs(statistics.median(seen) - 1) <= AGREEMENT:
                return
    pytest.fail(f"{name}: {figure} {seen}, median {statistics.median(seen):.3f}, limit {AGREEMENT:.0%}")


def value(of: Figures, figure: str) -> float:
    """Ours of what `figure` compares."""
    return of.latency.p50_ms.value if figure == "p50_ratio" else of.throughput_per_s.value


async def test_its_logs_are_kept_and_its_verdict_and_percentiles_are_those_of_its_logs(
    tmp_path: Path,
) -> None:
    async with a_worker() as side:
        found = await by_both(side, scenario("single"), tmp_path / "logs")
    summary = (tmp_path / "logs" / "mlperf_log_summary.txt").read_text()
    assert "Scenario : SingleStream" in summary
    assert f"Result is : {'VALID' if found.valid else 'INVALID'}" in summary
    assert f"50.00 percentile latency (ns)   : {round((found.p50_ms or 0) * 1e6)}\n" in summary
    assert found.logs == "logs"
    assert found.version.startswith("6.")
    assert found.queries >= SHORT_S / 2 / (RUN_US / 1e6)


async def test_a_test_that_loadgen_does_not_accept_says_so_in_its_words(tmp_path: Path) -> None:
    async with a_worker() as side:
        found = await by_both(side, scenario("server"), tmp_path / "logs")
    assert not found.valid  # the 99th percentile takes 662 queries
    assert any("Would need to run at least" in why for why in found.why_invalid)
    assert found.p99_ms is not None
    assert found.throughput_ratio is None  # the load sets the rate


async def test_offline_has_no_latencies_to_compare(tmp_path: Path) -> None:
    async with a_worker() as side:
        found = await by_both(side, scenario("offline", batch=2), tmp_path / "logs")
    assert (found.p50_ms, found.p50_ratio) == (None, None)
    assert found.throughput_ratio is not None


async def test_a_constant_stream_is_ours_alone_and_no_test_is_run(tmp_path: Path) -> None:
    async with a_worker() as side:
        found = await by_both(side, scenario("constant"), tmp_path / "logs")
    assert "no ConstantStream" in found.failed
    assert not list((tmp_path / "logs").iterdir())


async def test_a_worker_that_dies_in_the_middle_ends_the_test_at_once(tmp_path: Path) -> None:
    begun_s = time.monotonic()
    async with a_worker("fault", does="exit", after_runs=20) as side:
        ours = figures(await side.play(Closed(runs=5)))
        with pytest.raises(WorkerDied):
            await loadgen.beside(side, SAMPLES, scenario("server", seconds=600), ours, tmp_path)
    assert time.monotonic() - begun_s < 60


async def test_ctrl_c_does_not_wait_for_the_end_of_a_test_of_ten_minutes(tmp_path: Path) -> None:
    async with a_worker() as side:
        ours = await by_us(side, scenario("single"))
        test = asyncio.create_task(
            loadgen.beside(side, SAMPLES, scenario("single", seconds=600), ours, tmp_path)
        )
        while not (tmp_path / loadgen_logs.DETAIL).exists():
            await asyncio.sleep(0.02)
        test.cancel()
        with pytest.raises(asyncio.CancelledError):
            await test


async def test_a_load_generator_that_fails_costs_the_comparison_and_says_why(tmp_path: Path) -> None:
    async with a_worker() as side:
        ours = await by_us(side, scenario("offline"))
        found = await loadgen.beside(side, SAMPLES, scenario("offline"), ours, tmp_path / "no-such-folder")
    assert re.search(
        r"exit code -\d+: |cannot be read", found.failed
    )  # it aborts, crashes or goes on without its logs
    assert not found.valid


def test_a_log_that_was_cut_off_has_no_verdict(tmp_path: Path) -> None:
    line = ":::MLLOG " + json.dumps({"key": "loadgen_version", "value": "6.0.17"})
    (tmp_path / loadgen_logs.DETAIL).write_text(line + "\n")
    with pytest.raises(loadgen_logs.LogsIncompleteError, match="result_validity"):
        loadgen_logs.verdict(tmp_path)
    (tmp_path / loadgen_logs.DETAIL).write_text(line[:-5])
    with pytest.raises(loadgen_logs.LogsIncompleteError, match="cut off"):
        loadgen_logs.verdict(tmp_path)
