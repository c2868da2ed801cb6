import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from cars import PARKED_AND_CHARGING, Car, HandSource
from guard_bench import Bench

from agent.guard import Cue, Guard
from agent.policy.settings import PolicySettings
from agent.policy.verdict import Policy, Verdict
from agent.protocol.reasons import Reason
from firmware_shims import vss
from firmware_shims.reading import Quality, Reading


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_door_frame_kills_the_worker_in_the_thread_that_read_it(bench: Bench) -> None:
    bench.drive(61)
    assert bench.guard.verdict.allowed
    assert bench.guard.admit(bench.kill)
    seen_ns = bench.clock.forward(0.01)
    door = Reading(vss.DRIVER_DOOR, True, "car", seen_ns)
    reader = threading.Thread(target=bench.guard.update, args=([door],), name="can-reader")
    reader.start()
    reader.join()
    assert bench.killed_in == ["can-reader"]
    verdict, cue = bench.said[-1]
    assert [blocker.reason for blocker in verdict.blockers] == [Reason.OWNER_PRESENT]
    assert cue is not None
    assert cue.seen_ns == seen_ns
    assert cue.killed_ns is not None


def test_no_worker_is_admitted_while_the_car_is_blocked(bench: Bench) -> None:
    assert not bench.guard.admit(bench.kill)
    bench.drive(1)
    assert bench.guard.verdict.settling
    assert bench.guard.admit(bench.kill)
    bench.car.values[vss.GEAR] = vss.GEAR_DRIVE
    bench.drive(0.1)
    assert bench.killed_in == [threading.current_thread().name]
    assert not bench.guard.admit(bench.kill)


def test_silence_of_the_bus_is_unknown_and_ends_work(bench: Bench) -> None:
    bench.drive(61)
    bench.clock.forward(0.5)
    bench.guard.heard("car", bench.clock())
    assert bench.guard.verdict.allowed
    bench.clock.forward(0.001)
    bench.guard.heard("car", bench.clock())
    assert bench.guard.verdict.urgent


def test_a_hiccup_of_our_own_is_no_cue(bench: Bench) -> None:
    bench.drive(61)
    bench.clock.forward(0.9)  # nobody read the socket for 0.9 s; the frames are still in it
    bench.guard.update(bench.car.readings(bench.clock()))
    bench.guard.heard("car", bench.clock())
    assert bench.guard.verdict.allowed


def test_a_source_that_died_is_noticed_without_its_help(bench: Bench) -> None:
    bench.drive(61)
    bench.clock.forward(1.001)
    bench.guard.look()
    assert {blocker.reason for blocker in bench.guard.verdict.blockers} == {Reason.UNKNOWN_SIGNAL}


def test_a_computer_that_slept_wakes_with_every_reading_never(bench: Bench) -> None:
    bench.drive(61)
    bench.clock.forward(12 * 3600)
    bench.guard.look()
    qualities = {bench.guard.snapshot[path].quality for path in PARKED_AND_CHARGING}
    assert qualities == {Quality.NEVER}
    bench.drive(59)
    assert not bench.guard.verdict.allowed


def test_a_drifting_value_is_no_news_but_a_new_reason_is(bench: Bench) -> None:
    bench.drive(61)
    said = len(bench.said)
    bench.car.values[vss.PACK_CURRENT] = 14.0
    bench.drive(1)
    assert len(bench.said) == said
    bench.car.values[vss.SPEED] = 3.0
    bench.drive(0.1)
    bench.car.values[vss.SPEED] = 9.0
    bench.drive(0.1)
    assert len(bench.said) == said + 1


def test_a_second_source_that_sees_the_door_open_ends_work(bench: Bench) -> None:
    other = HandSource("other", {vss.DRIVER_DOOR: 0.5})
    policy = Policy(PolicySettings(settle_s=0, grid_proof_s=0), frozenset(PARKED_AND_CHARGING), compute_w=60)
    guard = Guard(policy, [HandSource(), other], bench.clock, lambda *_: None)
    guard.update(bench.car.readings(bench.clock()))
    assert guard.verdict.allowed
    guard.update([Reading(vss.DRIVER_DOOR, True, "other", bench.clock())])
    assert guard.verdict.urgent


@pytest.mark.parametrize("ready", [False, True])
def test_a_frame_that_comes_before_the_first_look_after_a_sleep_allows_nothing(
    bench: Bench, ready: bool
) -> None:
    bench.drive(61 if ready else 10)
    assert bench.guard.verdict.allowed is ready
    bench.clock.forward(8 * 3600)
    bench.show(vss.SPEED, 0.04)
    assert not bench.guard.verdict.allowed


@contextmanager
def watching(guard: Guard) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=guard.run, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        guard.wake()
        thread.join()


def test_the_watching_thread_opens_the_gate_when_the_windows_have_passed() -> None:
    allowed = threading.Event()
    source = HandSource(stale_after_s=dict.fromkeys(PARKED_AND_CHARGING, 3600.0))
    settings = PolicySettings(settle_s=0.05, grid_proof_s=0.05)
    policy = Policy(settings, frozenset(PARKED_AND_CHARGING), compute_w=60)

    def hear(verdict: Verdict, _: Cue | None) -> None:
        if verdict.allowed:
            allowed.set()

    guard = Guard(policy, [source], time.monotonic_ns, hear)
    with watching(guard):
        guard.update(Car().readings(time.monotonic_ns()))
        assert allowed.wait(timeout=30)
