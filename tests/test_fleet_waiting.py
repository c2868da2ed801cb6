"""Who waits for an answer is told what the vehicles say, once, and only when nothing comes."""

import asyncio
import datetime as dt
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from fake_vehicle import MODEL, FakeVehicle, accept, now, numbers, say_nothing, until

from agent.link import LinkOptions
from agent.protocol.messages import Blocker, Mode, State, TaskState
from agent.protocol.reasons import Reason
from fleet.broker import Broker
from fleet.client import FleetClient, Vehicle
from fleet.waiting import TOLD_MOST, explain, why_it_waits, why_they_wait

QUIET_S = 0.02
DOOR = Blocker(
    Reason.OWNER_PRESENT, "owner_present", "door open", None, dt.datetime(2026, 11, 22, tzinfo=dt.UTC)
)


@pytest.fixture
async def fleet(iotcore: Broker) -> AsyncIterator[FleetClient]:
    options = LinkOptions(host="127.0.0.1", port=iotcore.port, client_id="fleet-1")
    async with FleetClient(options) as client:
        yield client


async def with_a_state(fleet: FleetClient, car: FakeVehicle, mode: Mode = Mode.READY) -> Vehicle:
    vehicle = fleet.vehicle(car.id, "BR")
    car.publish_state(mode=mode)
    await vehicle.wait_for(lambda state: isinstance(state, State) and state.seq == car.state_seq, 20)
    return vehicle


async def test_a_vehicle_that_was_never_there_may_have_another_name(fleet: FleetClient) -> None:
    (line,) = why_it_waits(fleet.vehicle("veh-9", "BR"))
    assert "nothing has been published below fleet/v1/br/veh-9" in line


async def test_what_blocks_a_vehicle_is_told_with_its_code(fleet: FleetClient, iotcore: Broker) -> None:
    async with FakeVehicle(iotcore.port) as car:
        car.portrait["blockers"] = [DOOR]
        vehicle = await with_a_state(fleet, car, Mode.BLOCKED)
        assert why_it_waits(vehicle) == ["still waiting: veh-0001 is blocked: 1001 owner_present"]


async def test_a_vehicle_that_is_away_is_offline(fleet: FleetClient, iotcore: Broker) -> None:
    async with FakeVehicle(iotcore.port) as car:
        vehicle = await with_a_state(fleet, car)
        car.publish_death(car.boot)
        await vehicle.wait_for(lambda state: not state.online, 20)
        assert why_it_waits(vehicle) == [
            "still waiting: veh-0001 is offline: the broker keeps its tasks until it is back"
        ]


async def test_a_task_that_was_given_back_is_told_with_the_reason(
    fleet: FleetClient, iotcore: Broker
) -> None:
    async with FakeVehicle(iotcore.port) as car:
        car.on_task = lambda car, got: car.say(
            got, TaskState.REJECTED, Reason.QUEUE_FULL, "64 tasks are open", now() + dt.timedelta(minutes=1)
        )
        vehicle = await with_a_state(fleet, car)
        offer = vehicle.offer(MODEL, [numbers(range(2))], id="night-1")
        await until(lambda: offer.events, "the refusal")
        ready, task = why_it_waits(vehicle)
        assert ready == "still waiting: veh-0001 is ready, 0 tasks open"
        assert task.startswith("task night-1 will be offered again: ")
        assert "1030 queue_full: 64 tasks are open" in task
        offer.cancel()
        assert len(why_it_waits(vehicle)) == 1


async def test_a_vehicle_that_ignores_a_task_may_not_trust_its_key(
    fleet: FleetClient, iotcore: Broker
) -> None:
    async with FakeVehicle(iotcore.port, on_task=say_nothing) as car:
        vehicle = await with_a_state(fleet, car)
        offer = vehicle.offer(MODEL, [numbers(range(2))])
        got = await car.nth(1)
        _, ignored = why_it_waits(vehicle)
        assert ignored.startswith(
            "it has not answered 1 tasks: what no key in its trust.task_keys_dir has signed"
        )
        car.say(got, TaskState.ACCEPTED)
        await until(lambda: offer.events, "its answer")
        assert why_it_waits(vehicle) == ["still waiting: veh-0001 is ready, 0 tasks open"]
        offer.cancel()


async def test_a_queue_names_some_of_many_vehicles(fleet: FleetClient) -> None:
    assert "is --root their mqtt.root?" in why_they_wait([], 3, "fleet/v1")[0]
    vehicles = [fleet.vehicle(f"veh-{number:02}", "BR") for number in range(TOLD_MOST + 2)]
    first, *named, more = why_they_wait(vehicles, 3, "fleet/v1")
    assert first == "still waiting, 3 tasks fit no vehicle now:"
    assert len(named) == TOLD_MOST
    assert more == "and 2 more vehicles"


async def test_the_same_is_said_once_and_nothing_while_answers_come() -> None:
    said: list[str] = []
    reasons, done, looks = ["blocked"], 0, 0

    def progress() -> int:
        nonlocal done, looks
        looks += 1
        done += reasons != ["blocked"]
        return done

    async def some_looks_later() -> None:
        now_looks = looks
        await until(lambda: looks > now_looks + 8, "looks at the progress")

    explaining = asyncio.create_task(explain(progress, lambda: list(reasons), said.append, QUIET_S))
    await some_looks_later()
    assert said == ["blocked"]
    reasons[:] = ["ready"]
    await some_looks_later()
    explaining.cancel()
    assert said == ["blocked"]


async def test_the_commands_say_it(iotcore: Broker, tmp_path: Path) -> None:
    document = {
        "model": json.loads(msgspec.json.encode(MODEL)),
        "inputs": [{"name": "x", "datatype": "INT32", "shape": [1, 1], "data": [[0]]}],
    }
    path = tmp_path / "task.json"
    path.write_text(json.dumps(document))
    queue = ["--queue", str(tmp_path / "queue.db"), "--out", str(tmp_path), "--vehicles", "veh-0001:BR"]
    async with FakeVehicle(iotcore.port) as car:
        car.portrait["blockers"] = [DOOR]
        car.publish_state(mode=Mode.BLOCKED)
        car.on_task = accept
        for command in (
            ["submit", path, "--vehicle", "veh-0001", "--region", "BR"],
            ["dispatch", path, *queue],
        ):
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "agent", "fleet", *map(str, command), "--port", str(iotcore.port)),
                stderr=asyncio.subprocess.PIPE,
            )
            assert process.stderr is not None
            said = (await process.stderr.readline()).decode()
            if command[0] == "dispatch":
                assert said == "still waiting, 1 tasks fit no vehicle now:\n"
                said = (await process.stderr.readline()).decode()
            assert said.endswith("veh-0001 is blocked: 1001 owner_present\n")
            process.terminate()
            await process.communicate()
