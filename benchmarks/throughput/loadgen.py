"""A row's scenario once more, with the load made by MLPerf's own load generator, and what it says beside our figures.

Its queries go to the same worker, one run after another, first come, first served; up to a scenario's batch of what
waits runs together. MLPerf Automotive's ConstantStream is not driven: mlcommons-loadgen has SingleStream,
MultiStream, Offline and Server, its Server sends at random intervals and cannot be told to send at even ones, and
MultiStream sends as soon as it is answered.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Final, Protocol

from benchmarks.throughput.loadgen_logs import LogsIncompleteError, Verdict, verdict
from benchmarks.throughput.loadgen_process import LoadgenScenario, LoadgenTest
from benchmarks.throughput.loadgen_queries import LoadgenEndedError, loadgen_at_work
from benchmarks.throughput.results import Figures, Loadgen, ScenarioUsed

SCENARIOS: Final[dict[str, LoadgenScenario]] = {
    "single": "SingleStream",
    "offline": "Offline",
    "server": "Server",
}
NO_CONSTANT: Final = "mlcommons-loadgen has no ConstantStream, and none of its scenarios sends at even intervals: ours stands alone"
SINGLE_ROOM: Final = 2.0
OFFLINE_ROOM: Final = 1.25
"""So many times what we have seen answered is prepared: a test that ends before its least duration is not valid."""


class Side(Protocol):
    """What answers queries."""

    async def run(self, sample: int, rows: int = 1) -> object:
        """Run `rows` samples from that one on; raises what a worker raises."""


def why_not() -> str:
    """Why there is no load generator here and what to do; empty where there is one."""
    if find_spec("mlperf_loadgen") is None:
        return "mlcommons-loadgen is not installed: pip install 'parkwatt[bench]'"
    return ""


async def beside(side: Side, samples: int, scenario: ScenarioUsed, ours: Figures, folder: Path) -> Loadgen:
    """One test of `scenario` with `samples` samples, its logs in `folder`; raises what `side.run` raises."""
    if scenario.name == "constant":
        return Loadgen(failed=NO_CONSTANT)
    if why := why_not():
        return Loadgen(failed=why)
    test = _test(scenario, ours, samples, folder)
    try:
        queries = await _drive(side, test, scenario.batch)
        return _compared(verdict(folder), queries, scenario, ours, folder)
    except (LoadgenEndedError, LogsIncompleteError) as error:
        return Loadgen(failed=str(error), logs=folder.name)


def _test(scenario: ScenarioUsed, ours: Figures, samples: int, folder: Path) -> LoadgenTest:
    return LoadgenTest(
        scenario=SCENARIOS[scenario.name],
        logs=str(folder),
        samples=samples,
        min_duration_s=scenario.min_duration_s,
        min_queries=max(1, scenario.min_queries),
        expected_latency_ms=ours.latency.p50_ms.value / SINGLE_ROOM,
        expected_rate_per_s=scenario.rate_per_s or ours.throughput_per_s.value * OFFLINE_ROOM,
        percentile=scenario.percentile or 0,
        latency_bound_ms=scenario.latency_bound_ms or 0,
    )


async def _drive(side: Side, test: LoadgenTest, batch: int) -> int:
    """Answer all of a test's queries; how many samples they were."""
    answered = 0
    async with loadgen_at_work(test) as loadgen:
        while group := await loadgen.next(batch):
            await side.run(group[0].sample, len(group))
            loadgen.answer(group)
            answered += len(group)
        await loadgen.ended()
    return answered


def _compared(found: Verdict, queries: int, scenario: ScenarioUsed, ours: Figures, folder: Path) -> Loadgen:
    """Of Offline latencies count from the start of the test; in Server the load, not the worker, sets the rate."""
    offline = scenario.name == "offline"
    return Loadgen(
        version=found.version,
        valid=found.valid,
        why_invalid=found.why_invalid,
        queries=queries,
        throughput_per_s=found.throughput_per_s,
        p50_ms=None if offline else found.p50_ms,
        p90_ms=None if offline else found.p90_ms,
        p99_ms=None if offline else found.p99_ms,
        throughput_ratio=(
            None if scenario.name == "server" else ours.throughput_per_s.value / found.throughput_per_s
        ),
        p50_ratio=None if offline else ours.latency.p50_ms.value / found.p50_ms,
        logs=folder.name,
    )
