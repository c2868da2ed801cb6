"""What the service makes of backends that fail and workers that die."""

import os
import signal
from pathlib import Path

import pytest
from agents import TOPICS, RunningAgent, agent, write_config
from wire_fleet import WireFleet, task, wire_fleet

from agent import outbox
from agent.protocol.messages import Event, TaskState
from agent.protocol.reasons import Reason
from backends import calls
from fleet.broker import Broker, IotcoreBroker

SLOW_US = 60_000


@pytest.fixture(autouse=True)
def backends_of_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


def worker_of(car: RunningAgent) -> int:
    (station,) = car.service.stations
    assert station.pid is not None
    return station.pid


def code_of(event: Event) -> Reason:
    assert event.reason is not None
    return event.reason.code


async def ending(config: Path, port: int, state: TaskState) -> Event:
    async with agent(config), wire_fleet(port, TOPICS) as fleet:
        fleet.send(task("night-1"))
        return await fleet.heard_event("night-1", state)


async def test_a_worker_that_dies_once_costs_only_time(tmp_path: Path, iotcore: Broker) -> None:
    config = write_config(tmp_path, iotcore.port, run_us=SLOW_US)
    async with agent(config) as car, wire_fleet(iotcore.port, TOPICS) as fleet:
        fleet.send(task("night-1", count=6))
        await car.until_rows(2)
        os.kill(worker_of(car), signal.SIGKILL)
        await fleet.until(lambda: fleet.is_final("night-1"), "the answer")
        answered = sorted(row for begin, end in fleet.rows("night-1") for row in range(begin, end))
        assert answered == list(range(6))
        assert not car.service.preemptions.done


async def test_a_model_that_kills_its_worker_twice_is_refused(tmp_path: Path, iotcore: Broker) -> None:
    config = write_config(tmp_path, iotcore.port, backend="fault", options='does = "segfault"\nat = "load"')
    assert code_of(await ending(config, iotcore.port, TaskState.FAILED)) is Reason.MODEL_INVALID


async def test_a_worker_that_hangs_is_ended_and_its_model_refused(
    tmp_path: Path, iotcore: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "HUNG_FLOOR_S", 0.3)
    config = write_config(tmp_path, iotcore.port, backend="unruly_backends:HoldsTheInterpreter")
    event = await ending(config, iotcore.port, TaskState.FAILED)
    assert code_of(event) is Reason.MODEL_INVALID
    assert event.reason is not None
    assert "hung" in event.reason.text


async def test_a_device_without_room_gives_the_task_back(tmp_path: Path, iotcore: Broker) -> None:
    config = write_config(tmp_path, iotcore.port, backend="fault", options='does = "refuse"\nat = "load"')
    event = await ending(config, iotcore.port, TaskState.RELEASED)
    assert code_of(event) is Reason.OUT_OF_MEMORY
    assert event.reason is not None
    assert "the device has 8 GiB" in event.reason.text


async def test_a_backend_without_a_usable_device_gives_the_task_back(tmp_path: Path, iotcore: Broker) -> None:
    config = write_config(tmp_path, iotcore.port, backend="fault", options='does = "unusable"')
    event = await ending(config, iotcore.port, TaskState.RELEASED)
    assert code_of(event) is Reason.BACKEND_UNUSABLE
    assert event.reason is not None
    assert "the driver is not loaded" in event.reason.text


async def test_the_innocent_beside_a_bomb_is_answered(tmp_path: Path, iotcore: Broker) -> None:
    """The job that was first in the worker's hands is blamed, the others run again."""
    config = write_config(tmp_path, iotcore.port, run_us=SLOW_US)
    async with agent(config) as car, wire_fleet(iotcore.port, TOPICS) as fleet:
        for number in range(4):
            fleet.send(task(f"night-{number}", count=4))
        await car.until_rows(1)
        await kill_worker(car)
        await car.until_rows(2)
        await kill_worker(car)
        await finished(fleet, 4)
        answered = [event.id for event in fleet.events if event.state is TaskState.FAILED]
        assert len(answered) <= 1


async def kill_worker(car: RunningAgent) -> None:
    """End the worker from outside, and wait until the agent has noticed."""
    victim = worker_of(car)
    os.kill(victim, signal.SIGKILL)
    (station,) = car.service.stations
    await car.until(lambda: station.pid != victim, "the worker is gone")


async def finished(fleet: WireFleet, tasks: int) -> None:
    names = {f"night-{number}" for number in range(tasks)}

    def ended() -> bool:
        failed = {event.id for event in fleet.events if event.state is TaskState.FAILED}
        return names == failed | {name for name in names if fleet.is_final(name)}

    await fleet.until(ended, "every task has ended")


async def test_losing_the_broker_loses_no_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        outbox, "PERIOD_S", 1.0
    )  # a broker without a memory has nobody to tell before the fleet is back
    with IotcoreBroker() as broker:
        port = broker.port
        config = write_config(tmp_path, port, run_us=SLOW_US)
        async with agent(config) as car:
            async with wire_fleet(port, TOPICS) as fleet:
                fleet.send(task("night-1", count=10))
                await car.until_rows(2)
            broker.kill()
            await car.until_rows(10)
            with IotcoreBroker(port):
                async with wire_fleet(port, TOPICS) as fleet:
                    await fleet.until(lambda: fleet.is_final("night-1"), "the answer")
                    await car.until_settled()
