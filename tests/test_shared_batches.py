"""Small tasks of one model share runs; a bad one among them harms nobody else."""

from pathlib import Path

import pytest
from agents import TOPICS, RunningAgent, agent, write_config
from picky_backend import DEADLY, REFUSED
from run_sizes import sizes_of_runs
from wire_fleet import WireFleet, task, wire_fleet

from agent import runs
from agent.protocol.messages import Task, TaskState
from agent.protocol.reasons import Reason
from fleet.broker import Broker

RUN_US = 10_000
TASKS = 24


def one_row(name: str, value: int) -> tuple[Task, bytes]:
    """A task that asks for one row of many: the one whose bytes all are `value`."""
    return task(name, count=256, rows=(value, value + 1))


@pytest.fixture
def findable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers find the backends of the tests."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


async def send_before_work(car: RunningAgent, fleet: WireFleet, values: list[int | None]) -> None:
    """Let all tasks wait in the queue when the work begins: the owner leaves then."""
    car.car.open_door()
    for number, value in enumerate(values):
        fleet.send(one_row(f"small-{number}", number if value is None else value))
    await car.until(lambda: len(car.service.executor.jobs) == len(values), "all tasks accepted")
    assert not car.rows_done
    car.car.close_door()


def ended(fleet: WireFleet, name: str) -> bool:
    return fleet.is_final(name) or fleet.event(name, TaskState.FAILED) is not None


async def test_tasks_of_one_row_share_runs_and_each_gets_its_own_bytes(
    tmp_path: Path, iotcore: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_config(tmp_path, iotcore.port, run_us=RUN_US)
    async with agent(config) as car, wire_fleet(iotcore.port, TOPICS) as fleet:
        sizes = sizes_of_runs(car, monkeypatch)
        await send_before_work(car, fleet, [None] * TASKS)
        names = [f"small-{number}" for number in range(TASKS)]
        await fleet.until(lambda: all(fleet.is_final(name) for name in names), "all answers")
        for result, tail in fleet.results:
            number = int(result.id.removeprefix("small-"))
            assert (result.rows, tail) == ((number, number + 1), bytes([number]) * 16)
        assert len(fleet.results) == TASKS
        assert sum(sizes) == TASKS
        assert len(sizes) < TASKS / 2  # alone each would have taken a whole run


@pytest.mark.usefixtures("findable")
async def test_one_bad_task_in_a_batch_fails_alone(tmp_path: Path, iotcore: Broker) -> None:
    config = write_config(tmp_path, iotcore.port, backend="picky_backend:Picky")
    async with agent(config) as car, wire_fleet(iotcore.port, TOPICS) as fleet:
        await send_before_work(car, fleet, [None, None, REFUSED, None])
        await fleet.until(lambda: all(ended(fleet, f"small-{n}") for n in range(4)), "all endings")
        failed = fleet.event("small-2", TaskState.FAILED)
        assert failed is not None
        assert failed.reason is not None
        assert failed.reason.code is Reason.INFERENCE_FAILED
        assert [fleet.is_final(f"small-{n}") for n in (0, 1, 3)] == [True] * 3


@pytest.mark.usefixtures("findable")
async def test_a_task_that_kills_the_worker_is_found_out_among_others(
    tmp_path: Path, iotcore: Broker
) -> None:
    config = write_config(tmp_path, iotcore.port, backend="picky_backend:Picky")
    async with agent(config) as car, wire_fleet(iotcore.port, TOPICS) as fleet:
        await send_before_work(car, fleet, [None, DEADLY, None, None])
        await fleet.until(lambda: all(ended(fleet, f"small-{n}") for n in range(4)), "all endings")
        failed = fleet.event("small-1", TaskState.FAILED)
        assert failed is not None
        assert failed.reason is not None
        assert failed.reason.code is Reason.MODEL_INVALID
        assert fleet.is_final("small-0")  # those behind it are done, or refused with their model


@pytest.mark.usefixtures("findable")
async def test_a_model_that_ended_its_worker_twice_is_refused_also_after_a_restart(
    tmp_path: Path, iotcore: Broker
) -> None:
    config = write_config(tmp_path, iotcore.port, backend="picky_backend:Picky")
    async with agent(config), wire_fleet(iotcore.port, TOPICS) as fleet:
        fleet.send(one_row("bomb", DEADLY))
        await fleet.heard_event("bomb", TaskState.FAILED)
    async with agent(config), wire_fleet(iotcore.port, TOPICS) as fleet:
        fleet.send(task("again", count=1))
        event = await fleet.heard_event("again", TaskState.REJECTED)
        assert event.reason is not None
        assert event.reason.code is Reason.MODEL_INVALID


async def test_a_batch_is_no_larger_than_its_room_in_the_arena(
    tmp_path: Path, iotcore: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that take no time would all go into one run."""
    monkeypatch.setattr(
        runs, "SLOT_BYTES", 10 * 128
    )  # a row takes 64 bytes each for its input and its output
    async with agent(write_config(tmp_path, iotcore.port)) as car, wire_fleet(iotcore.port, TOPICS) as fleet:
        sizes = sizes_of_runs(car, monkeypatch)
        fleet.send(task("night-1", count=64))
        await fleet.until(lambda: fleet.is_final("night-1"), "the answer")
    assert max(sizes) == 10


async def test_a_backend_whose_worker_cannot_start_gives_the_task_back(
    tmp_path: Path, iotcore: Broker
) -> None:
    config = write_config(
        tmp_path, iotcore.port, backend="picky_backend:Picky"
    )  # its worker does not find it
    async with agent(config), wire_fleet(iotcore.port, TOPICS) as fleet:
        fleet.send(task("night-1"))
        event = await fleet.heard_event("night-1", TaskState.RELEASED)
        assert event.reason is not None
        assert event.reason.code is Reason.BACKEND_CRASHED
        assert "picky_backend" in event.reason.text


async def test_a_task_of_larger_priority_goes_first_at_the_next_row(tmp_path: Path, iotcore: Broker) -> None:
    config = write_config(tmp_path, iotcore.port, run_us=60_000)
    async with agent(config) as car, wire_fleet(iotcore.port, TOPICS) as fleet:
        for number in range(4):  # as many as there are lanes
            fleet.send(task(f"long-{number}", count=20))
        await car.until_rows(4)
        fleet.send(task("urgent", count=2, priority=10))
        await fleet.until(lambda: fleet.is_final("urgent"), "the urgent answer")
        assert not any(fleet.is_final(f"long-{number}") for number in range(4))
