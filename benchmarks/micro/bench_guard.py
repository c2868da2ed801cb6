"""What a frame of the car costs under the guard's lock, and how long a cue takes to the decision to kill."""

import itertools
import threading
from collections.abc import Mapping
from typing import Final

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from agent.guard import Guard
from agent.policy.memory import FRESH
from agent.policy.settings import PolicySettings
from agent.policy.verdict import Policy
from firmware_shims import scenario, vss
from firmware_shims.clock import boottime_ns
from firmware_shims.reading import Reading, Sink, Snapshot, Value

PARKED: Final[Mapping[str, Value]] = scenario.load(scenario.PARKED_AND_CHARGING).initial
ROUNDS: Final = 2000
WARM: Final = 50
POLICY: Final = Policy(
    PolicySettings(settle_s=0, grid_proof_s=0, lv_filter_s=0), frozenset(PARKED), compute_w=60
)
"""Without windows: a car that is parked is ready at once."""


class ByHand:
    """A source whose readings the benchmark delivers; they stay fresh for its length."""

    name = "car"
    stale_after_s: Mapping[str, float] = dict.fromkeys(PARKED, 3600.0)

    def run(self, sink: Sink, stop: threading.Event) -> None:
        """Nobody starts it."""


def readings(values: Mapping[str, Value]) -> list[Reading]:
    """These values as the car tells them now."""
    return [Reading(path, value, ByHand.name, boottime_ns()) for path, value in values.items()]


def ready() -> Guard:
    """A guard whose car is parked and charging, so that work is allowed."""
    guard = Guard(POLICY, [ByHand()], boottime_ns, lambda *_: None)
    guard.update(readings(PARKED))
    if not guard.verdict.allowed:
        raise RuntimeError(f"a parked car should be ready: {guard.verdict.blockers}")
    return guard


def bench_a_policy_step(benchmark: BenchmarkFixture) -> None:
    """Every condition judged once over a full snapshot."""
    now_ns = boottime_ns()
    snapshot = Snapshot(now_ns, {reading.path: reading for reading in readings(PARKED)})
    _, memory = POLICY.judge(snapshot, FRESH, now_ns)
    verdict, _ = benchmark(POLICY.judge, snapshot, memory, now_ns)
    assert verdict.allowed


def bench_a_frame_without_news(benchmark: BenchmarkFixture) -> None:
    """What the guard does for most frames of a parked car: nothing has changed."""
    frame = readings({vss.SPEED: PARKED[vss.SPEED], vss.GEAR: PARKED[vss.GEAR]})
    benchmark(ready().update, frame)


def bench_a_frame_that_changes_a_value(benchmark: BenchmarkFixture) -> None:
    """The pack's current moves a little: the policy is asked, nothing follows."""
    guard, amperes = ready(), itertools.cycle([14.0, 15.0])

    def moved() -> tuple[tuple[list[Reading]], dict[str, object]]:
        return (readings({vss.PACK_CURRENT: next(amperes)}),), {}

    benchmark.pedantic(guard.update, setup=moved, rounds=ROUNDS, warmup_rounds=WARM)
    assert guard.verdict.allowed


@pytest.mark.parametrize("workers", [1, 4], ids=["1 worker", "4 workers"])
def bench_a_cue_to_the_kill(benchmark: BenchmarkFixture, workers: int) -> None:
    """A door opens: signals, policy and gate under the lock, until every worker's kill has been called."""
    killed_ns: list[int] = []

    def kill() -> int:
        killed_ns.append(at_ns := boottime_ns())
        return at_ns

    def at_work() -> tuple[tuple[Guard, list[Reading]], dict[str, object]]:
        guard = ready()  # a new one each time: a guard remembers how often work began
        admitted = [guard.admit(kill) for _ in range(workers)]
        if not all(admitted):
            raise RuntimeError(f"a worker was not admitted: {guard.verdict.blockers}")
        return (guard, readings({vss.DRIVER_DOOR: True})), {}

    benchmark.pedantic(Guard.update, setup=at_work, rounds=ROUNDS, warmup_rounds=WARM)
    assert len(killed_ns) == workers * (ROUNDS + WARM)
