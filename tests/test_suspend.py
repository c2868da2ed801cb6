"""A computer that was suspended for 12 hours: CLOCK_BOOTTIME has gone on, the monotonic clock and everything else has not."""

import asyncio
import datetime as dt
import threading
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from agents import TOPICS, RunningService, served, write_config
from cars import NS, PARKED_AND_CHARGING
from wire_fleet import WireFleet, now, task, wire_fleet

from agent.protocol.keys import load_private_key, write_key_pair
from agent.protocol.messages import TaskState
from agent.protocol.reasons import Reason
from firmware_shims.clock import boottime_ns
from firmware_shims.reading import Quality, Reading, Sink
from fleet.broker import Broker

NIGHT_S = 12 * 3600
SLOW_US = 60_000
PERIOD_S = 0.05


@dataclass
class Parked:
    """A parked car on the clock of its computer. While that is suspended nobody reads what it sends."""

    name: str = "car"
    slept_ns: int = 0
    wall_is_lost: bool = False
    stale_after_s: Mapping[str, float] = field(
        default_factory=lambda: dict.fromkeys(PARKED_AND_CHARGING, 1.0)
    )
    _suspended: threading.Event = field(default_factory=threading.Event)
    _reading: threading.Lock = field(default_factory=threading.Lock)

    def boottime_ns(self) -> int:
        return boottime_ns() + self.slept_ns

    def wall_s(self) -> float:
        """The computer's real-time clock; a flat battery sets it back to 1970."""
        return time.monotonic() if self.wall_is_lost else time.time()

    def run(self, sink: Sink, stop: threading.Event) -> None:
        while not stop.wait(PERIOD_S):
            with self._reading:
                if not self._suspended.is_set():
                    now_ns = self.boottime_ns()
                    sink.update([Reading(path, value, self.name, now_ns) for path, value in self.values()])
                    sink.heard(self.name, now_ns)

    def values(self) -> list[tuple[str, bool | float | str]]:
        return list(PARKED_AND_CHARGING.items())

    def suspend(self) -> None:
        """Sleep through the night; when this returns the computer has just woken, and has read nothing yet."""
        with self._reading:
            self._suspended.set()
            self.slept_ns += NIGHT_S * NS

    def read_on(self) -> None:
        self._suspended.clear()


@asynccontextmanager
async def asleep_at_work(
    folder: Path, broker: Broker, *, signed: bool = False, settle_s: float = 1.0
) -> AsyncIterator[tuple[RunningService, WireFleet, Parked]]:
    """A car in the middle of a task of 60 s of lease, at the moment at which its computer wakes again."""
    config = write_config(folder, broker.port, run_us=SLOW_US, signed=signed, settle_s=settle_s)
    _, private = write_key_pair(folder / "keys", "fleet")
    key = load_private_key(private) if signed else None
    parked = Parked()
    async with (
        served(config, [parked], wall=parked.wall_s, clock=parked.boottime_ns) as car,
        wire_fleet(broker.port, TOPICS, key=key) as fleet,
    ):
        fleet.send(task("night-1", count=1000, lease_s=60.0))
        await car.until_rows(2)
        parked.suspend()
        yield car, fleet, parked


async def test_every_reading_is_forgotten_and_the_car_settles_anew(tmp_path: Path, iotcore: Broker) -> None:
    async with asleep_at_work(tmp_path, iotcore, settle_s=4.0) as (car, _, parked):
        guard = car.service.guard
        await car.until(lambda: not guard.verdict.allowed, "the gate is shut")
        assert {guard.snapshot[path].quality for path in PARKED_AND_CHARGING} == {Quality.NEVER}
        assert guard.verdict.blockers[0].reason is Reason.UNKNOWN_SIGNAL
        await car.until(lambda: all(each.pid is None for each in car.service.stations), "the worker is gone")
        parked.read_on()
        await car.until(lambda: guard.verdict.settling, "it settles")
        await car.until_ready()


async def test_the_lease_has_ended_and_the_fleet_is_told_after_a_reconnect(
    tmp_path: Path, iotcore: Broker
) -> None:
    async with asleep_at_work(tmp_path, iotcore) as (car, fleet, parked):
        heard = len(fleet.order)
        expired = await fleet.heard_event("night-1", TaskState.EXPIRED)
        assert expired.reason is not None
        assert "the lease of 60 s was not renewed" in expired.reason.text
        assert not car.service.executor.jobs
        await car.until(lambda: car.service.link.status.connects == 2, "a new connection")
        assert car.service.link.status.error.startswith("this computer slept for 4320")
        await car.until_told()
        assert TOPICS.state in fleet.order[heard:]
        rows = car.rows_done
        parked.read_on()
        await car.until_ready()
        fleet.send(task("night-2", count=2))
        await fleet.until(lambda: fleet.is_final("night-2"), "the answer to the next task")
        assert car.rows_done == rows + 2, "nobody went on with the old one"


async def test_a_message_after_the_night_does_not_renew_what_has_run_out(
    tmp_path: Path, iotcore: Broker
) -> None:
    """The car is ready again before anybody has looked at the lease: what it says then is too late."""
    async with asleep_at_work(tmp_path, iotcore) as (car, fleet, parked):
        (job,) = car.service.executor.jobs.values()
        answer = car.service.reports.event(job)
        assert answer is not None
        await asyncio.wait([answer])
        parked.read_on()
        await fleet.heard_event("night-1", TaskState.EXPIRED)
        assert TaskState.RUNNING not in fleet.states_of("night-1")


async def test_a_stay_goes_on_through_the_night(tmp_path: Path, iotcore: Broker) -> None:
    async with asleep_at_work(tmp_path, iotcore) as (car, _, parked):
        stay = car.service.stays.stay
        assert stay is not None
        parked.read_on()
        await car.until_ready()
        assert car.service.stays.stay == stay
        assert parked.boottime_ns() - stay.begun_ns > NIGHT_S * NS


async def test_what_had_expired_stays_expired_though_the_clock_was_lost(
    tmp_path: Path, iotcore: Broker
) -> None:
    async with asleep_at_work(tmp_path, iotcore, signed=True) as (car, fleet, parked):
        floor_s = car.service.time.floor_s
        assert floor_s > 0
        parked.wall_is_lost = True
        parked.read_on()
        await fleet.heard_event("night-1", TaskState.EXPIRED)
        await car.until_ready()
        assert car.service.time.wall_s() is None
        fleet.send(task("old", expires_at=dt.datetime.fromtimestamp(floor_s - 1, dt.UTC)))
        refused = await fleet.heard_event("old", TaskState.REJECTED)
        assert refused.reason is not None
        assert refused.reason.code is Reason.EXPIRED
        fleet.send(task("fresh", count=1, expires_at=now() + dt.timedelta(hours=13)))
        await fleet.until(lambda: fleet.is_final("fresh"), "the answer to a fresh one")


async def test_the_link_is_not_given_up_for_a_hiccup(tmp_path: Path, iotcore: Broker) -> None:
    config = write_config(tmp_path, iotcore.port)
    parked = Parked()
    async with served(config, [parked], clock=parked.boottime_ns) as car:
        parked.slept_ns += 10 * NS
        await asyncio.sleep(2.5)  # longer than the link waits between two looks
        assert car.service.link.status.connects == 1
        assert car.service.link.up


pytestmark = pytest.mark.timeout(90)
