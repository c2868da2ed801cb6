"""The vehicle's operating system and the real service: what it pushes, orders and is told."""

import asyncio
import datetime as dt
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from agents import TOPICS, RunningService, agent, served, write_config
from vehicle_os import VehicleOs, takes_pushes, vehicle_os
from wire_fleet import now, task, wire_fleet

from agent.policy.orders import Orders
from agent.protocol.messages import Drain, Resume, TaskState
from agent.protocol.reasons import Reason
from agent.store import Ledger, Store, StoreFull
from firmware_shims import vss
from firmware_shims.clock import boottime_ns
from fleet.broker import Broker, free_port

SLOW_US = 60_000


def socket_config(folder: Path, port: int, run_us: int = 0) -> Path:
    return takes_pushes(write_config(folder, port, run_us=run_us))


@asynccontextmanager
async def offline(folder: Path) -> AsyncIterator[tuple[RunningService, VehicleOs]]:
    """An agent that takes pushed signals, with no broker to talk to."""
    async with served(socket_config(folder, free_port()), wait_for_link=False) as present:
        with vehicle_os(folder / "agent.sock") as car:
            yield present, car


def reasons(present: RunningService) -> set[Reason]:
    return {blocker.reason for blocker in present.service.guard.verdict.blockers}


async def ready(present: RunningService) -> None:
    await present.until(lambda: present.service.guard.verdict.allowed, "the gate is open")


# Signals


async def test_a_door_that_is_pushed_has_killed_the_worker_before_the_answer_comes(
    tmp_path: Path, iotcore: Broker
) -> None:
    config = socket_config(tmp_path, iotcore.port, run_us=SLOW_US)
    async with served(config) as present, wire_fleet(iotcore.port, TOPICS) as fleet:
        with vehicle_os(tmp_path / "agent.sock") as car, car.pushing():
            await ready(present)
            fleet.send(task("night-1", count=12))
            await present.until(lambda: present.rows_done >= 3, "3 rows")
            await asyncio.to_thread(car.push, vss.DRIVER_DOOR, True)
            answered_ns = boottime_ns()
            assert Reason.OWNER_PRESENT in reasons(present)
            await present.until(lambda: present.service.preemptions.done, "a preemption")
            assert present.service.preemptions.done[0].killed_ns < answered_ns
            preempted = await fleet.heard_event("night-1", TaskState.PREEMPTED)
            assert preempted.reason is not None
            assert preempted.reason.code is Reason.OWNER_PRESENT
            await asyncio.to_thread(car.push, vss.DRIVER_DOOR, False)
            await fleet.until(lambda: fleet.is_final("night-1"), "the answer")


async def test_a_vehicle_os_that_stops_pushing_ends_work_as_unknown(tmp_path: Path) -> None:
    async with offline(tmp_path) as (present, car):
        with car.pushing():
            await ready(present)
        await present.until(lambda: reasons(present) == {Reason.UNKNOWN_SIGNAL}, "unknown blocks")


async def test_an_open_door_is_seen_beside_a_value_that_is_wrong(tmp_path: Path) -> None:
    async with offline(tmp_path) as (present, car):
        with car.pushing():
            await ready(present)
        answer = await car.does("signals", values={vss.DRIVER_DOOR: True, vss.SOC: "64", vss.SPEED: 0})
        assert not answer["ok"]
        assert answer["error"].startswith(f'{vss.SOC} is "64": it must be a number from 0 to 100 %')
        assert "have been taken" in answer["fix"]
        assert {Reason.OWNER_PRESENT, Reason.UNKNOWN_SIGNAL} <= reasons(present)


async def test_a_path_that_nobody_declares_is_named(tmp_path: Path) -> None:
    async with offline(tmp_path) as (_, car):
        answer = await car.does("signals", values={"Vehicle.Sped": 0, vss.GRID_LIMIT: 1, vss.SPEED: 0})
        assert not answer["ok"]
        assert answer["error"].startswith('"Vehicle.Sped" is declared by no socket source')
        assert "(and 1 more)" in answer["error"]


@pytest.mark.parametrize("values", [None, [], "x", 5])
async def test_values_that_are_no_object_are_refused(tmp_path: Path, values: object) -> None:
    async with offline(tmp_path) as (_, car):
        answer = await car.does("signals", values=values)
        assert answer["error"] == f"values is {json.dumps(values)}: it must be an object"


async def test_without_a_socket_source_a_push_is_told_what_is_missing(tmp_path: Path) -> None:
    config = write_config(tmp_path, free_port())
    async with agent(config, wait_for_link=False):
        with vehicle_os(tmp_path / "agent.sock") as car:
            answer = await car.does("signals", values={vss.SPEED: 0})
    assert answer["error"] == "no configured source takes pushed signals"
    assert 'shim = "socket"' in answer["fix"]


# Orders


async def test_a_pause_preempts_and_survives_a_restart_until_the_vehicle_os_resumes(
    tmp_path: Path, iotcore: Broker
) -> None:
    config = socket_config(tmp_path, iotcore.port, run_us=SLOW_US)
    async with wire_fleet(iotcore.port, TOPICS) as fleet:
        async with served(config) as present:
            with vehicle_os(tmp_path / "agent.sock") as car, car.pushing():
                await ready(present)
                fleet.send(task("night-1", count=100))
                await present.until(lambda: present.rows_done >= 1, "a row")
                assert await car.does("pause") == {"ok": True}
                assert await car.does("pause") == {"ok": True}
                assert reasons(present) == {Reason.PAUSED}
                await present.until(lambda: present.service.preemptions.done, "a preemption")
        async with served(config) as present:
            with vehicle_os(tmp_path / "agent.sock") as car, car.pushing():
                await present.until(lambda: reasons(present) == {Reason.PAUSED}, "only the pause blocks")
                assert await car.does("resume") == {"ok": True}
                assert await car.does("resume") == {"ok": True}
                await ready(present)
        async with served(config) as present:
            assert present.service.guard.orders == Orders()


async def test_the_pause_and_the_fleets_drain_do_not_lift_each_other(tmp_path: Path, iotcore: Broker) -> None:
    config = socket_config(tmp_path, iotcore.port)
    async with served(config) as present, wire_fleet(iotcore.port, TOPICS) as fleet:
        with vehicle_os(tmp_path / "agent.sock") as car:
            await car.does("pause")
            fleet.control(Drain("veh-1", now()))
            await present.until(lambda: present.service.guard.orders.draining, "the drain")
            await car.does("resume")
            assert present.service.guard.orders == Orders(draining=True)
            await car.does("pause")
            fleet.control(Resume("veh-1", now()))
            await present.until(lambda: not present.service.guard.orders.draining, "the end of the drain")
            assert present.service.guard.orders == Orders(paused=True)


async def test_consent_and_departure_hold_over_a_restart(tmp_path: Path) -> None:
    leaves = (now() + dt.timedelta(days=40)).replace(microsecond=0)
    stands = Orders(consent=False, departure_s=leaves.timestamp())
    async with offline(tmp_path) as (present, car):
        assert await car.does("consent", value=True) == {"ok": True}
        assert await car.does("consent", value=False) == {"ok": True}
        elsewhere = leaves.astimezone(dt.timezone(dt.timedelta(hours=-3)))
        assert await car.does("departure", at=elsewhere.isoformat()) == {"ok": True}
        assert present.service.guard.orders == stands
        assert Reason.CONSENT in reasons(present)
    async with offline(tmp_path) as (present, car):
        assert present.service.guard.orders == stands
        status = (await car.does("status"))["status"]
        assert status["orders"] == {
            "draining": False,
            "paused": False,
            "consent": False,
            "departure": leaves.isoformat().replace("+00:00", "Z"),
        }
        assert await car.does("departure", at=None) == {"ok": True}
    async with offline(tmp_path) as (present, _):
        assert present.service.guard.orders == Orders(consent=False)


REFUSED: list[tuple[str, dict[str, object], str]] = [
    ("consent", {}, "value is missing: it must be true or false"),
    ("consent", {"value": 1}, "value is 1: it must be true or false"),
    ("consent", {"value": "yes"}, 'value is "yes": it must be true or false'),
    ("departure", {}, "at is missing: it must be RFC 3339"),
    ("departure", {"at": 1795310400}, "at is 1795310400: it must be RFC 3339 with a time zone, or null"),
    ("departure", {"at": "tomorrow"}, 'at is "tomorrow": it must be RFC 3339'),
    ("departure", {"at": "2090-01-01T07:00:00"}, 'at is "2090-01-01T07:00:00": it must be RFC 3339'),
    ("departure", {"at": "0001-01-01T00:00:00+23:59"}, "that has passed"),
    ("departure", {"at": "2020-01-01T07:00:00Z"}, "that has passed, it is 20"),
]


@pytest.mark.parametrize(("cmd", "members", "says"), REFUSED)
async def test_an_order_that_cannot_be_meant_changes_nothing_and_says_why(
    tmp_path: Path, cmd: str, members: dict[str, Any], says: str
) -> None:
    async with offline(tmp_path) as (present, car):
        answer = await car.does(cmd, **members)
        assert not answer["ok"]
        assert says in answer["error"]
        assert f'{{"cmd": "{cmd}"' in answer["fix"]
        assert present.service.guard.orders == Orders()


def fill(ledger: Ledger, size: int) -> None:
    """Add a fact with a name of this many characters; those of the orders sort behind them, on the last page."""
    (count,) = ledger.connection.execute("SELECT count(*) FROM facts").fetchone()
    ledger.connection.execute("INSERT INTO facts VALUES (?, 0)", (f"a{count:06}".ljust(size, "x"),))


async def filled(store: Store, size: int) -> None:
    while True:
        await store.run(partial(fill, size=size))


async def test_an_order_on_a_full_disk_holds_now_and_its_answer_says_that_it_will_not_last(
    tmp_path: Path,
) -> None:
    async with offline(tmp_path) as (present, car):
        store = present.service.store
        await store.run(lambda ledger: ledger.connection.execute("PRAGMA max_page_count = 60").fetchone())
        for size in (900, 90, 7):
            with pytest.raises(StoreFull):
                await filled(store, size)
        answer = await car.does("pause")
        assert not answer["ok"]
        assert answer["error"].startswith("it holds now, and is lost at the next start")
        assert present.service.guard.orders.paused
