import logging
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from cars import NS, HandClock
from meters import HandMeter

from firmware_shims.clock import boottime_ns
from firmware_shims.power.meter import MeterReading, Scope
from firmware_shims.power.owner import MeterOwner
from firmware_shims.power.sampled import SampledMeter

WITHIN_S = 20.0


class Bench:
    """An owner that is sampled by hand, as its thread would."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.meter = HandMeter(self.clock)
        self.owner = MeterOwner(self.meter, self.clock)

    def pass_time(self, seconds: float, watts: float) -> None:
        """Come again whenever the owner wants to."""
        end_ns = self.clock() + int(seconds * NS)
        while self.clock() < end_ns:
            wait_s = self.owner.sample()
            left_s = (end_ns - self.clock()) / NS
            self.meter.draw(watts, min(left_s, left_s if wait_s is None else wait_s))

    def calibrate(self) -> None:
        self.owner.calibrate(allowed=True)
        self.pass_time(10, watts=5.0)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_blocked_car_that_does_nothing_reads_no_meter(bench: Bench) -> None:
    assert bench.owner.sample() is None
    bench.calibrate()
    reads = bench.meter.reads
    bench.owner.calibrate(allowed=False)
    assert bench.owner.sample() is None
    assert (bench.meter.reads, bench.owner.why) == (reads, "")
    assert bench.meter.closed


def test_the_idle_baseline_is_measured_once_and_again_when_it_has_become_old(bench: Bench) -> None:
    bench.calibrate()
    baseline = bench.owner.baseline
    assert baseline is not None
    assert baseline.watts == pytest.approx(5.0)
    assert baseline.windows == 10
    reads = bench.meter.reads
    wait_s = bench.owner.sample()
    assert wait_s is not None
    assert 500 < wait_s < 600
    assert bench.meter.reads == reads
    bench.pass_time(620, watts=7.0)
    renewed = bench.owner.baseline
    assert renewed is not None
    assert renewed.watts == pytest.approx(7.0)


def test_a_run_is_measured_from_its_beginning_to_its_end(bench: Bench) -> None:
    bench.calibrate()
    run, begin_ns = bench.owner.begin("cpu"), bench.clock()
    bench.pass_time(2, watts=25.0)
    charge = bench.owner.end(run, begin_ns, bench.clock())
    assert charge is not None
    assert charge.active_j == pytest.approx(40.0)
    bench.pass_time(1, watts=5.0)
    assert bench.owner.account.purse_j == pytest.approx(0.0, abs=1e-6)


def test_a_meter_that_fails_is_said_once_and_tried_again_after_a_while(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "firmware_shims.power")
    bench.calibrate()
    run, begin_ns = bench.owner.begin("cpu"), bench.clock()
    bench.meter.broken = "GPU is lost"
    reads = bench.meter.reads
    bench.owner.sample()
    bench.owner.sample()  # woken up by something else
    bench.pass_time(12, watts=25.0)
    assert bench.owner.end(run, begin_ns, bench.clock()) is None
    assert bench.meter.reads - reads == 3
    assert bench.owner.why == "GPU is lost"
    bench.meter.broken = ""
    run, begin_ns = bench.owner.begin("cpu"), bench.clock()
    bench.pass_time(60, watts=25.0)
    charge = bench.owner.end(run, begin_ns, bench.clock())
    assert charge is not None
    assert charge.active_j == pytest.approx(60 * 20.0, rel=0.1)
    assert bench.owner.why == ""
    assert [record.getMessage() for record in caplog.records] == [
        "meter hand: GPU is lost; plug it in",
        "meter hand: answers",
    ]


def test_a_failed_meter_is_not_tried_for_ever_when_nothing_runs_any_more(bench: Bench) -> None:
    bench.meter.broken = "GPU is lost"
    run, begin_ns = bench.owner.begin("cpu"), bench.clock()
    bench.pass_time(1, watts=25.0)
    assert bench.owner.end(run, begin_ns, bench.clock()) is None
    assert bench.owner.sample() is None


@pytest.fixture
def sampling() -> Iterator[Callable[[MeterOwner], None]]:
    """Runs owners on threads of their own until the test is over."""
    threads: list[tuple[MeterOwner, threading.Thread]] = []

    def start(owner: MeterOwner) -> None:
        thread = threading.Thread(target=owner.run)
        threads.append((owner, thread))
        thread.start()

    yield start
    for owner, thread in threads:
        owner.stop()
        thread.join(WITHIN_S)
        assert not thread.is_alive()


def until(holds: Callable[[], object], what: str) -> None:
    end_s = time.monotonic() + WITHIN_S
    while not holds():
        assert time.monotonic() < end_s, f"not within {WITHIN_S} s: {what}"
        time.sleep(0.005)


def test_on_a_thread_of_its_own_it_measures_runs_of_a_computer_at_work(
    sampling: Callable[[MeterOwner], None],
) -> None:
    power_w = 5.0
    meter = SampledMeter("hand", Scope.COMPUTER, lambda: power_w, boottime_ns, resolution_w=0.001)
    owner = MeterOwner(meter, boottime_ns)
    sampling(owner)
    owner.calibrate(allowed=True)
    until(lambda: owner.baseline is not None, "a baseline")
    run, begin_ns = owner.begin("cpu"), boottime_ns()
    power_w = 25.0
    until(lambda: owner.account.under_way_j > 10, "10 J of it")
    power_w, end_ns = 5.0, boottime_ns()
    charge = owner.end(run, begin_ns, end_ns)
    assert charge is not None
    assert charge.active_j == pytest.approx(20.0 * (end_ns - begin_ns) / NS, rel=0.5)


def test_when_the_last_run_is_settled_its_thread_rests_and_lets_go_of_the_meter(
    sampling: Callable[[MeterOwner], None],
) -> None:
    class Steady(HandMeter):
        """Counts 5 W by the real clock."""

        def read(self) -> MeterReading:
            self.reads += 1
            return MeterReading(5.0 * boottime_ns() / NS, boottime_ns(), 0)

    meter = Steady(HandClock())
    owner = MeterOwner(meter, boottime_ns)
    sampling(owner)
    until(lambda: meter.closed == 1, "its rest before anything ran")
    run = owner.begin("cpu")
    until(lambda: meter.reads, "the first reading")
    owner.withdraw(run)
    until(lambda: meter.closed == 2, "its rest")
