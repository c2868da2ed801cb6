"""The load as MLPerf's scenarios make it, on a device whose pace and clock the test holds."""

import asyncio
import statistics
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from bench_subjects import choice, tiny
from cars import NS, HandClock

from benchmarks.bare_runtime import Subject
from benchmarks.throughput import rates, scenarios
from benchmarks.throughput.asked import Asked
from benchmarks.throughput.bare_side import BareEndedError, bare_side
from benchmarks.throughput.catalogue import UnknownNameError, prepared
from benchmarks.throughput.play import Closed, Open, Played, Run, Script, Tally, Wait, steps
from benchmarks.throughput.rates import Bound
from benchmarks.throughput.scenarios import RULES, Length
from benchmarks.throughput.worker_side import worker_side

MS = 1_000_000


@dataclass
class Device:
    """Takes `run_ms` for a run, whatever its rows."""

    run_ms: float
    clock: HandClock = field(default_factory=HandClock)
    runs: list[Run] = field(default_factory=list)

    def take(self, script: Script) -> list[int]:
        """Play a script; the latencies."""
        going = steps(script, self.clock)
        while True:
            try:
                step = next(going)
            except StopIteration as end:
                latencies: list[int] = end.value
                return latencies
            if isinstance(step, Wait):
                assert step.until_ns > self.clock()
                self.clock.now_ns = step.until_ns
            else:
                self.runs.append(step)
                self.clock.now_ns += round(self.run_ms * MS)

    async def play(self, script: Script) -> Played:
        """The same, as a side does."""
        tally, before, done = Tally(), self.clock(), len(self.runs)
        latencies = self.take(script)
        for run in self.runs[done:]:
            tally.add(run.rows, None, "")
        return tally.played((self.clock() - before) / NS, 0.0, latencies)


def test_a_single_stream_asks_again_as_soon_as_it_is_answered() -> None:
    device = Device(run_ms=10)
    assert device.take(Closed(seconds=0.1)) == [10 * MS] * 10
    assert [run.sample for run in device.runs] == list(range(10))


def test_a_run_that_takes_longer_than_the_turn_is_still_one_run() -> None:
    assert Device(run_ms=900).take(Closed(seconds=0.1)) == [900 * MS]


def test_offline_sends_whole_batches_of_samples_that_go_on() -> None:
    device = Device(run_ms=40)
    device.take(Closed(seconds=0.1, batch=8))
    assert device.runs == [Run(0, 8), Run(8, 8), Run(16, 8)]


def test_what_waits_for_the_one_before_it_is_late_from_when_it_was_due() -> None:
    latencies = Device(run_ms=10).take(Open((0, 1 * MS, 2 * MS, 50 * MS)))
    assert latencies == [10 * MS, 19 * MS, 28 * MS, 10 * MS]


def test_what_waits_runs_together_up_to_the_batch() -> None:
    device = Device(run_ms=10)
    latencies = device.take(Open((0, 1 * MS, 2 * MS, 3 * MS, 50 * MS), batch=2))
    assert device.runs == [Run(0, 1), Run(1, 2), Run(3, 1), Run(4, 1)]
    assert latencies == [10 * MS, 19 * MS, 18 * MS, 27 * MS, 10 * MS]


def test_a_turn_at_a_rate_lasts_as_long_as_the_rate_says() -> None:
    device = Device(run_ms=1)
    begun_ns = device.clock()
    device.take(scenarios.constant(20.0, 2.0, batch=1))
    assert (device.clock() - begun_ns) / NS == pytest.approx(2.0)
    assert len(device.runs) == 40


def test_a_servers_queries_come_at_random_the_same_ones_for_the_same_seed() -> None:
    script = scenarios.poisson(1000.0, 20.0, seed=3, batch=1)
    assert script == scenarios.poisson(1000.0, 20.0, seed=3, batch=1)
    assert script != scenarios.poisson(1000.0, 20.0, seed=4, batch=1)
    gaps_s = [(after - before) / NS for before, after in zip(script.due_ns, script.due_ns[1:], strict=False)]
    assert statistics.mean(gaps_s) == pytest.approx(1e-3, rel=0.05)
    assert statistics.stdev(gaps_s) == pytest.approx(1e-3, rel=0.05)  # as exponential gaps have it


async def test_the_rate_that_keeps_the_bound_is_found_where_queueing_theory_has_it() -> None:
    # M/D/1 of 10 ms a run: at 50/s the mean wait is 5 ms, at 90/s it is 45; 99 % within 50 ms holds up to some 70/s
    found = await rates.search(Device(run_ms=10), Bound(0.99, 50.0), duration_s=600, batch=1, seed=1)
    assert 55 < found.rate_per_s < 85
    assert (found.rate_per_s, True) in found.tried
    assert all(rate > found.rate_per_s for rate, kept in found.tried if not kept)


async def test_a_bound_below_one_run_is_kept_at_no_rate() -> None:
    found = await rates.search(Device(run_ms=10), Bound(0.99, 9.0), duration_s=60, batch=1, seed=1)
    assert found.rate_per_s == 0
    assert not any(kept for _, kept in found.tried)


def test_durations_and_counts_are_mlperfs_unless_it_is_quick() -> None:
    asked = Asked(tiny(), choice("null"), "single", Length())
    assert (asked.used.min_duration_s, asked.used.min_queries, asked.used.percentile) == (600, 64, 0.9)
    assert RULES["offline"].min_queries == 24_576
    assert RULES["constant"].min_queries == 100_000
    quick = Asked(tiny(), choice("null"), "server", Length(quick=True)).used
    assert (quick.min_duration_s, quick.min_queries, quick.percentile) == (scenarios.QUICK_S, 0, 0.99)
    assert Length(quick=True, duration_s=7.0).rule("server").min_duration_s == 7.0
    assert scenarios.meets_the_rules("server", 600.0, 662)
    assert not scenarios.meets_the_rules("server", 599.0, 10_000)
    assert not scenarios.meets_the_rules("offline", 600.0, 24_575)


def test_a_scenario_that_is_not_known_is_refused_with_those_that_are() -> None:
    with pytest.raises(
        UnknownNameError, match="multistream: not known: take single, offline, server, constant"
    ):
        scenarios.known(["single", "multistream"])


@pytest.mark.parametrize("use", ["null", "cpu"])
async def test_both_sides_play_the_same_script_in_processes_of_their_own(tmp_path: Path, use: str) -> None:
    subject = prepared(tiny(), tmp_path)
    script = scenarios.constant(100.0, 0.2, batch=4)
    async with worker_side(subject.model, subject.samples.arrays, choice(use)) as ours:
        bare_subject = Subject(
            path=str(subject.model.path),
            format="onnx",
            inputs=ours.program.inputs,
            arrays=str(subject.arrays_file),
            use="" if use == "cpu" else use,
            device=ours.device,
            sha256=subject.model.sha256,
        )
        async with bare_side(bare_subject) as bare:
            played = [await side.play(script) for side in (ours, bare)]
            assert ours.pid != bare.pid
            assert bare.runtime.startswith("onnxruntime" if use == "cpu" else "null in the caller's process")
    for each in played:
        assert each.inferences == len(each.latencies_ns) == 20
        assert 0.19 < each.seconds < 5
        assert 0 < each.cpu_s < each.seconds + 1


async def test_samples_begin_again_after_the_last_also_in_the_middle_of_a_batch(tmp_path: Path) -> None:
    subject = prepared(tiny(), tmp_path)
    async with worker_side(subject.model, subject.samples.arrays, choice("null")) as ours:
        await ours.run(subject.rows - 1, 3)
        slot = ours._slots[3]
        given = subject.samples.arrays["x"]
        expected = b"".join(given[row].tobytes() for row in (subject.rows - 1, 0, 1))
        assert bytes(slot.outputs[0]) == expected


async def test_a_bare_runtime_that_cannot_load_says_why_in_one_line(tmp_path: Path) -> None:
    broken = tmp_path / "model.onnx"
    broken.write_bytes(b"no model")
    with pytest.raises(BareEndedError, match=r"the bare runtime ended over .*model\.onnx: ") as caught:
        async with bare_side(Subject(str(broken), "onnx", tiny().inputs)):
            await asyncio.sleep(0)
    assert "\n" not in str(caught.value)
    assert "Traceback" not in str(caught.value), "its last words tell, not its first"
