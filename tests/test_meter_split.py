import pytest
from cars import NS, HandClock
from hypothesis import example, given
from hypothesis import strategies as st
from meters import HandMeter

from firmware_shims.power.baseline import IdleBaseline
from firmware_shims.power.meter import MeterFailed
from firmware_shims.power.split import Charge, Run, Split

IDLE_W = 5.0
WINDOW_S = 0.05
"""Five steps of the hand meter."""


class Bench:
    """A computer with devices that draw what the test says, its meter, and who splits its joules."""

    def __init__(self, *, calibrated: bool = True) -> None:
        self.clock = HandClock()
        self.meter = HandMeter(self.clock)
        self.baseline = IdleBaseline()
        self.split = Split(self.baseline, self.meter.resolution_j, self.meter.resolution_s)
        self.queues: dict[str, list[tuple[Run, float]]] = {"cpu": [], "npu": []}
        self.begun_ns = {"cpu": 0, "npu": 0}
        self.charges: list[Charge | None] = []
        self.read()
        for _ in range(10 if calibrated else 0):
            self.wait(0.5)
            self.read()
        self.begin_j, self.begin_ns = self.meter.joules, self.clock()

    @property
    def idle_j(self) -> float:
        """What an idle computer would have taken since the beginning."""
        return IDLE_W * (self.clock() - self.begin_ns) / NS

    @property
    def charged_j(self) -> float:
        return sum(charge.active_j or 0.0 for charge in self.charges if charge is not None)

    def wait(self, seconds: float) -> None:
        self.meter.draw(IDLE_W + sum(queue[0][1] for queue in self.queues.values() if queue), seconds)

    def read(self) -> None:
        self.split.read(self.meter.read())

    def begin(self, device: str, watts: float) -> None:
        if not self.queues[device]:
            self.begun_ns[device] = self.clock()
        self.queues[device].append((self.split.begin(device, self.clock()), watts))

    def end(self, device: str) -> Charge | None:
        run, _ = self.queues[device].pop(0)
        charge = self.split.end(run, self.begun_ns[device], self.clock(), self.clock())
        self.begun_ns[device] = self.clock()
        self.charges.append(charge)
        return charge

    def withdraw(self, device: str) -> None:
        run, _ = self.queues[device].pop(0)
        self.split.withdraw(run, self.clock())
        self.begun_ns[device] = self.clock()

    def work(self, seconds: float, watts: float, device: str = "cpu") -> Charge | None:
        """One run, with readings ten times a second."""
        self.begin(device, watts)
        self.read()
        self.pass_time(seconds)
        return self.end(device)

    def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.1)):
            self.wait(0.1)
            self.read()

    def settle(self) -> None:
        """Read until nothing is open."""
        while self.split.unsettled:
            self.wait(WINDOW_S)
            self.read()


def figures(charge: Charge | None) -> tuple[float, float]:
    assert charge is not None
    assert charge.active_j is not None
    assert charge.idle_j is not None
    return charge.active_j, charge.idle_j


STEPS = st.lists(
    st.tuples(
        st.sampled_from([0.0005, 0.004, 0.02, 0.13, 0.7]),
        st.sampled_from(["read", "read", "begin", "begin", "end", "end", "end", "withdraw"]),
        st.sampled_from(["cpu", "npu"]),
        st.floats(0, 80),
    ),
    max_size=60,
)


@given(st.booleans(), STEPS)
@example(
    False,
    [
        (0.13, "begin", "cpu", 9.0),
        (0.0005, "end", "cpu", 0.0),
        (0.13, "begin", "cpu", 9.0),
        (0.0005, "read", "cpu", 0.0),
        (0.0005, "end", "cpu", 0.0),
    ],
)
def test_whatever_overlaps_the_figures_add_up_to_what_the_meter_counted(
    worked_before: bool, steps: list[tuple[float, str, str, float]]
) -> None:
    bench = Bench()
    if worked_before:
        bench.work(1.0, watts=30.0)
    for seconds, action, device, watts in steps:
        bench.wait(seconds)
        if action == "read":
            bench.read()
        elif action == "begin":
            bench.begin(device, watts)
        elif bench.queues[device]:
            bench.end(device) if action == "end" else bench.withdraw(device)
    for device, queue in bench.queues.items():
        while queue:
            bench.end(device)
    bench.settle()
    account = bench.split.account
    assert None not in bench.charges
    given_j = bench.charged_j + account.purse_j + account.unclaimed_j + account.other_j
    assert given_j == pytest.approx(bench.meter.joules - bench.begin_j - bench.idle_j, abs=1e-6)
    assert account.charged_j == pytest.approx(bench.charged_j)
    assert all(
        figures(charge) >= (0, 0) for charge in bench.charges if charge and charge.active_j is not None
    )
    assert account.under_way_j == 0


@given(
    st.lists(
        st.tuples(
            st.sampled_from([0.001, 0.03, 0.2]),
            st.sampled_from(["read", "read", "begin", "end", "withdraw", "fail", "reset", "rest"]),
            st.sampled_from(["cpu", "npu"]),
            st.floats(-4, 80),
        ),
        max_size=60,
    )
)
def test_also_where_the_meter_fails_every_joule_that_it_told_has_its_place(
    steps: list[tuple[float, str, str, float]],
) -> None:
    bench = Bench()
    bench.work(1.0, watts=30.0)
    for seconds, action, device, watts in steps:
        bench.wait(seconds)
        if action == "read":
            bench.read()
        elif action == "reset":
            bench.meter.since_ns = bench.clock()
            bench.read()
        elif action == "fail":
            bench.split.fail()
        elif action == "rest" and not bench.split.unsettled:
            bench.split.rest()
        elif action == "begin":
            bench.begin(device, watts)
        elif bench.queues[device] and action in {"end", "withdraw"}:
            bench.end(device) if action == "end" else bench.withdraw(device)
    account = bench.split.account
    placed_j = (
        account.charged_j - account.guessed_j + account.unclaimed_j + account.purse_j + account.under_way_j
    )
    assert placed_j == pytest.approx(account.measured_j, abs=1e-6)
    assert all(
        figures(charge) >= (0, 0) for charge in bench.charges if charge and charge.active_j is not None
    )


def test_a_run_takes_what_is_above_idle_and_its_time_of_the_idle_power() -> None:
    active_j, idle_j = figures(Bench().work(2.0, watts=20.0))
    assert active_j == pytest.approx(40.0)
    assert idle_j == pytest.approx(10.0)


def test_runs_that_overlap_share_by_device_seconds() -> None:
    bench = Bench()
    bench.begin("cpu", 20.0)
    bench.read()
    bench.pass_time(1.0)
    bench.begin("npu", 10.0)
    bench.pass_time(1.0)
    one, other = figures(bench.end("cpu")), figures(bench.end("npu"))
    assert one == pytest.approx((20.0 + 15.0, 5.0 + 2.5))
    assert other == pytest.approx((15.0, 2.5))


def test_what_waits_behind_another_run_of_its_device_takes_nothing_yet() -> None:
    bench = Bench()
    bench.begin("cpu", 20.0)
    bench.begin("cpu", 60.0)
    bench.read()
    bench.pass_time(1.0)
    assert figures(bench.end("cpu"))[0] == pytest.approx(20.0)
    bench.pass_time(1.0)
    assert figures(bench.end("cpu"))[0] == pytest.approx(60.0)


def test_when_a_device_goes_on_to_the_next_run_each_has_its_part_of_the_window() -> None:
    bench = Bench()
    bench.begin("cpu", 20.0)
    bench.begin("cpu", 60.0)
    bench.read()
    bench.pass_time(1.0)
    bench.wait(0.04)
    bench.end("cpu")
    bench.wait(0.06)
    bench.read()
    window_j = 0.04 * 20.0 + 0.06 * 60.0
    assert bench.split.account.under_way_j == pytest.approx(0.6 * window_j)


def test_loading_a_model_is_not_charged_to_the_first_run_after_it() -> None:
    bench = Bench()
    bench.meter.draw(IDLE_W + 30.0, 3.0)
    bench.begin("cpu", 10.0)
    bench.wait(0.001)  # until the owner's thread has woken up
    bench.read()
    bench.pass_time(1.0)
    assert figures(bench.end("cpu"))[0] == pytest.approx(10.0, rel=0.01)
    assert bench.split.account.other_j == pytest.approx(90.0, rel=0.01)


def test_a_run_too_short_to_tell_says_so_and_the_next_ones_carry_its_joules() -> None:
    bench = Bench()
    first = bench.work(0.0, watts=10.0)
    assert first == Charge(None, None)
    bench.begin("cpu", 10.0)
    bench.wait(0.01)
    second = bench.end("cpu")
    assert second == Charge(None, None)
    assert figures(bench.work(1.0, watts=10.0))[0] == pytest.approx(10.1)


def test_results_do_not_wait_for_a_reading_and_the_next_run_settles_the_difference() -> None:
    bench = Bench()
    bench.work(1.0, watts=10.0)
    bench.begin("cpu", 30.0)
    bench.wait(0.02)
    assert figures(bench.end("cpu"))[0] == pytest.approx(0.2)  # at the rate of before: 10 W
    bench.settle()
    assert bench.split.account.purse_j == pytest.approx(0.4)
    assert figures(bench.work(1.0, watts=10.0))[0] == pytest.approx(10.4)


def test_a_charge_never_falls_below_nothing_and_the_rest_is_kept_for_the_next() -> None:
    bench = Bench()
    bench.work(1.0, watts=50.0)
    bench.begin("cpu", 0.0)
    bench.wait(0.08)
    bench.end("cpu")  # charged 4 J, has taken none
    bench.settle()
    assert figures(bench.work(0.1, watts=10.0))[0] == 0
    assert figures(bench.work(1.0, watts=10.0))[0] == pytest.approx(10.0 + 1.0 - 4.0)


def test_what_is_given_up_is_charged_to_nobody() -> None:
    bench = Bench()
    bench.work(1.0, watts=10.0)
    bench.begin("cpu", 40.0)
    bench.pass_time(1.0)
    bench.withdraw("cpu")
    bench.settle()
    assert bench.split.account.unclaimed_j == pytest.approx(40.0)
    assert figures(bench.work(1.0, watts=10.0))[0] == pytest.approx(10.0)


def test_a_run_that_was_not_measured_has_no_figure() -> None:
    bench = Bench()
    bench.work(1.0, watts=10.0)
    bench.begin("cpu", 10.0)
    bench.pass_time(0.5)
    bench.split.fail()
    bench.wait(0.5)
    assert bench.end("cpu") is None
    bench.begin("cpu", 10.0)
    bench.wait(0.5)
    bench.read()
    bench.pass_time(0.5)
    assert bench.end("cpu") is None
    assert figures(bench.work(1.0, watts=10.0))[0] == pytest.approx(10.0)


def test_a_moment_that_was_not_measured_does_no_harm() -> None:
    bench = Bench()
    bench.begin("cpu", 10.0)
    bench.read()
    bench.pass_time(2.0)
    bench.wait(0.1)
    bench.meter.since_ns = bench.clock()
    bench.read()
    bench.pass_time(1.0)
    assert figures(bench.end("cpu"))[0] == pytest.approx(30.0)


def test_without_an_idle_baseline_nothing_is_known() -> None:
    assert Bench(calibrated=False).work(2.0, watts=20.0) is None


def test_a_counter_that_stands_still_is_not_believed() -> None:
    bench = Bench()
    bench.begin("cpu", 10.0)
    bench.read()
    bench.clock.forward(9)
    bench.read()
    bench.clock.forward(2)
    with pytest.raises(MeterFailed, match="has not moved for 11 s"):
        bench.read()
    assert bench.end("cpu") is None


def test_the_baseline_is_the_quiet_part_of_what_was_seen_and_says_its_spread_and_age() -> None:
    baseline = IdleBaseline()
    powers_w = [5.0, 5.2, 9.0, 5.1, 5.0, 12.0, 5.3, 5.1, 5.2, 30.0]
    for second, watts in enumerate(powers_w):
        baseline.add(watts, second * NS)
    found = baseline.now
    assert found is not None
    assert (found.watts, found.at_ns, found.windows) == (5.1, 9 * NS, 10)
    assert found.spread_w == pytest.approx(9.0 - 5.1)
    assert baseline.old_in_s(9 * NS) == pytest.approx(591)
    assert baseline.old_in_s(700 * NS) == 0


def test_work_that_takes_less_than_an_idle_computer_corrects_the_baseline() -> None:
    bench = Bench()
    for _ in range(10):
        bench.baseline.add(9.0, bench.clock())
    bench.work(3.0, watts=1.0)
    corrected = bench.baseline.now
    assert corrected is not None
    assert corrected.watts == pytest.approx(IDLE_W + 1.0)
