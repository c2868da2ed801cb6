"""Signals that the vehicle's operating system pushes, from the line to the sink."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cars import NS, PARKED_AND_CHARGING, HandClock
from hypothesis import given
from hypothesis import strategies as st
from listening import Ear, listening
from vehicle_os import vehicle_os

from agent.control_server import Answer, CommandTable, ControlServer, Request
from agent.guard import Guard
from agent.policy.settings import PolicySettings
from agent.policy.verdict import Policy
from firmware_shims import vss
from firmware_shims.clock import boottime_ns
from firmware_shims.pushed import PushedOptions, PushedSignals
from firmware_shims.reading import Quality, Reading, Value
from firmware_shims.vss_values import KINDS


def source_of(*paths: str, stale_after_s: float = 2.0) -> PushedSignals:
    return PushedSignals("vehicle-os", PushedOptions(paths, stale_after_s), boottime_ns)


def test_what_is_pushed_is_delivered_in_the_thread_that_pushed_it() -> None:
    ear, source = Ear(), source_of(vss.SPEED, vss.DRIVER_DOOR)
    with listening(source, ear):
        ear.wait_until(lambda: source._sink is not None, "the source runs")
        before_ns = boottime_ns()
        assert source.push({vss.SPEED: 3, vss.DRIVER_DOOR: True, vss.SOC: 50}) == []
        speed, door = ear.readings
        assert (speed.path, speed.value, speed.quality) == (vss.SPEED, 3, Quality.GOOD)
        assert (door.path, door.value, door.quality) == (vss.DRIVER_DOOR, True, Quality.GOOD)
        assert before_ns <= speed.stamp_ns == door.stamp_ns <= boottime_ns()


def test_what_came_before_the_agent_listened_is_not_lost() -> None:
    ear, source = Ear(), source_of(vss.DRIVER_DOOR)
    source.push({vss.DRIVER_DOOR: False})
    source.push({vss.DRIVER_DOOR: True})
    with listening(source, ear):
        ear.wait_for(vss.DRIVER_DOOR, True)
        assert len(ear.readings) == 1


def test_a_source_that_has_ended_delivers_nothing_more() -> None:
    ear, source = Ear(), source_of(vss.SPEED)
    with listening(source, ear):
        pass
    source.push({vss.SPEED: 1})
    source.caught_up(boottime_ns())
    assert ear.readings == []
    assert ear.heard_ns == []


def judged(source: PushedSignals, **values: object) -> tuple[list[str], dict[str, Reading]]:
    """The problems and the readings of one push."""
    ear = Ear()
    with listening(source, ear):
        ear.wait_until(lambda: source._sink is not None, "the source runs")
        problems = source.push(values)
    return problems, {reading.path: reading for reading in ear.readings}


def test_null_says_that_a_sensor_does_not_answer() -> None:
    problems, readings = judged(source_of(vss.SOC), **{vss.SOC: None})
    assert problems == []
    assert readings[vss.SOC].quality is Quality.INVALID


WRONG: list[tuple[str, object, str]] = [
    (vss.DRIVER_DOOR, 0, "true or false"),
    (vss.DRIVER_DOOR, "closed", "true or false"),
    (vss.SPEED, False, "a number from -500 to 500 km/h"),
    (vss.SPEED, "0", "a number from -500 to 500 km/h"),
    (vss.SPEED, [0], "a number"),
    (vss.SPEED, {"value": 0}, "a number"),
    (vss.SOC, 6400, "a number from 0 to 100 %"),
    (vss.PACK_CURRENT, 10**400, "a number"),
    (vss.GEAR, 125.5, "a whole number"),
    (vss.GEAR, True, "a whole number"),
    (vss.LOW_VOLTAGE_STATE, "off", "one of LOCK, OFF, ACC, ON, START"),
    (vss.LOW_VOLTAGE_STATE, "UNDEFINED", "one of LOCK"),
    (vss.LOW_VOLTAGE_STATE, False, "one of LOCK"),
]


@pytest.mark.parametrize(("path", "value", "allowed"), WRONG)
def test_a_value_that_cannot_be_reads_invalid_at_once_and_is_named(
    path: str, value: object, allowed: str
) -> None:
    problems, readings = judged(source_of(path, vss.BRAKE), **{path: value, vss.BRAKE: 0})
    (problem,) = problems
    assert problem.startswith(f"{path} is ")
    assert allowed in problem
    assert len(problem) < 250
    assert (readings[path].quality, readings[path].value) == (Quality.INVALID, None)
    assert readings[vss.BRAKE].quality is Quality.GOOD


def test_a_whole_number_may_be_written_with_a_point() -> None:
    problems, readings = judged(source_of(vss.GEAR), **{vss.GEAR: 126.0})
    assert problems == []
    assert readings[vss.GEAR].value == vss.GEAR_PARK


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(sorted(KINDS)) | st.text(), JSON))
def test_whatever_is_pushed_the_guard_only_ever_sees_values_that_can_be(values: dict[str, Any]) -> None:
    source = source_of(*KINDS)
    problems = source.push(values)
    readings = source._early
    assert readings.keys() == values.keys() & KINDS.keys()
    for path, reading in readings.items():
        if reading.quality is Quality.GOOD:
            assert reading.value == values[path]
            assert KINDS[path].read(reading.value) is not None
        else:
            assert reading.value is None
            assert values[path] is None or any(problem.startswith(path) for problem in problems)


def test_every_signal_that_has_a_name_has_its_kind_of_value() -> None:
    named = {
        path
        for value in vars(vss).values()
        for path in (value if isinstance(value, tuple | frozenset) else (value,))
        if isinstance(path, str) and path.startswith("Vehicle.")
    }
    assert named == KINDS.keys()


# Age: a hiccup of our own is no silence of the car


@dataclass
class Diary:
    """A sink that notes everything in its order."""

    urgent = True

    entries: list[tuple[str, int]] = field(default_factory=list)

    def update(self, readings: Sequence[Reading]) -> None:
        self.entries += [(f"{reading.path}={reading.value}", reading.stamp_ns) for reading in readings]

    def heard(self, source: str, now_ns: int) -> None:
        self.entries.append((source, now_ns))


@dataclass
class Stall:
    """A hiccup of our own: the thread that reads stands still from `begun` to `over`."""

    begun: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)

    def stand(self, _: Request) -> Answer:
        self.begun.set()
        assert self.over.wait(20)
        return {}


@asynccontextmanager
async def over_the_socket(path: Path, source: PushedSignals, sink: Any) -> AsyncIterator[Stall]:
    """The source behind a control socket, whose reading thread can be made to stand still."""
    stall, stop = Stall(), threading.Event()

    def signals(request: Request) -> Answer:
        return {"problems": source.push(request["values"])}

    table = CommandTable(prompt={"signals": signals, "stall": stall.stand}, on_caught_up=source.caught_up)
    async with ControlServer(path, table):
        listens = asyncio.create_task(asyncio.to_thread(source.run, sink, stop))
        try:
            yield stall
        finally:
            stall.over.set()
            stop.set()
            await listens


async def test_nothing_is_said_to_be_heard_before_it_is_delivered(tmp_path: Path) -> None:
    """The reading thread stands still while a push waits in the socket; no age is judged over its head."""
    path, diary, source = tmp_path / "agent.sock", Diary(), source_of(vss.SPEED)

    def push_during(stall: Stall) -> int:
        with vehicle_os(path) as other, vehicle_os(path) as car:
            car.say("signals", values={vss.SPEED: 1})
            other.connection.sendall(b'{"cmd":"stall"}\n')
            assert stall.begun.wait(20)
            car.connection.sendall(b'{"cmd":"signals","values":{"Vehicle.Speed":2}}\n')
            sent_ns = boottime_ns()
            time.sleep(0.1)  # so long that `heard` is due when the stall is over
            stall.over.set()
            car.answers.readline()
        return sent_ns

    async with over_the_socket(path, source, diary) as stall:
        sent_ns = await asyncio.to_thread(push_during, stall)
        async with asyncio.timeout(20):
            while diary.entries[-1][0] != "vehicle-os":
                await asyncio.sleep(0.01)
    delivered = [what for what, _ in diary.entries].index(f"{vss.SPEED}=2")
    assert all(at_ns <= sent_ns for what, at_ns in diary.entries[:delivered] if what == "vehicle-os")


async def test_silence_of_the_vehicle_os_is_heard_several_times_a_second(tmp_path: Path) -> None:
    ear, source = Ear(), source_of(vss.SPEED)
    async with over_the_socket(tmp_path / "agent.sock", source, ear):
        await asyncio.to_thread(ear.wait_until, lambda: len(ear.heard_ns) > 5, "silence")
    gaps = [after - before for before, after in zip(ear.heard_ns, ear.heard_ns[1:], strict=False)]
    assert sorted(gaps)[1] < 200_000_000  # a machine that stands makes others longer


def test_values_go_stale_by_their_own_deadline_when_the_vehicle_os_stops_pushing() -> None:
    clock = HandClock()
    source = PushedSignals("vehicle-os", PushedOptions(tuple(PARKED_AND_CHARGING), 2.0), clock)
    policy = Policy(PolicySettings(settle_s=0, grid_proof_s=0), frozenset(PARKED_AND_CHARGING), compute_w=60)
    guard = Guard(policy, [source], clock, lambda *_: None)
    values: dict[str, Value] = dict(PARKED_AND_CHARGING)
    source._sink = guard
    source.push(values)
    assert guard.verdict.allowed
    source.caught_up(clock.forward(2.0))
    assert guard.verdict.allowed
    source.caught_up(clock() + NS // 1000)
    assert guard.verdict.urgent
    assert guard.snapshot[vss.DRIVER_DOOR].quality is Quality.STALE
