"""A store that is full: what is owed is kept, new work is refused, and the agent goes on by itself when there is room."""

import asyncio
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from agents import TOPICS, RunningAgent, agent, write_config
from wire_fleet import WireFleet, now, task, wire_fleet

from agent.control import ask
from agent.protocol.messages import Cancel, Datatype, Drain, Resume, Task, TaskState, Tensor, TensorParameters
from agent.protocol.reasons import Reason
from fleet.broker import Broker

STORE = "max_bytes = 1_000_000\n"
SLOW_US = 10_000
ROWS = 8
ROW_BYTES = 8_192


def large(task_id: str, **changes: Any) -> tuple[Task, bytes]:
    """64 KiB in, 64 KiB out."""
    raw = b"".join(bytes([row]) * ROW_BYTES for row in range(ROWS))
    inputs = [Tensor("x", Datatype.UINT8, [ROWS, ROW_BYTES], TensorParameters(binary_data_size=len(raw)))]
    return task(task_id, ROWS, inputs=inputs, **changes)[0], raw


def growing(task_id: str) -> tuple[Task, bytes]:
    """8 KiB in, 320 KiB out: the null backend copies a shared input to every row."""
    rows = 40
    inputs = [
        Tensor("x", Datatype.UINT8, [rows, 1], TensorParameters(binary_data_size=rows)),
        Tensor("y", Datatype.UINT8, [ROW_BYTES], TensorParameters(binary_data_size=ROW_BYTES, shared=True)),
    ]
    return task(task_id, rows, inputs=inputs)[0], bytes(range(rows)) + bytes(ROW_BYTES)


def small_store(folder: Path, port: int, **changes: Any) -> Path:
    config = write_config(folder, port, extra="\n[tasks]\nqueue_s = 3600\n", **changes)
    config.write_text(config.read_text().replace("[store]\n", f"[store]\n{STORE}"))
    return config


def settle_all(fleet: WireFleet) -> None:
    fleet.settles = True
    for result, _ in fleet.results:
        fleet.settle(result)


def codes(fleet: WireFleet, state: TaskState) -> dict[str, Reason]:
    """The reason of each task that came to this."""
    return {e.id: e.reason.code for e in fleet.events if e.state is state and e.reason}


def rows_answered(fleet: WireFleet) -> Counter[tuple[str, int]]:
    return Counter((result.id, row) for result, _ in fleet.results for row in range(*result.rows))


def every_row_once(rows: int, *names: str) -> Counter[tuple[str, int]]:
    return Counter((name, row) for name in names for row in range(rows))


async def stuck(car: RunningAgent) -> None:
    await car.until(lambda: car.service.executor.journal.stuck, "results wait for room")


async def test_a_fleet_that_settles_late_loses_nothing_and_the_agent_goes_on(
    tmp_path: Path, iotcore: Broker
) -> None:
    names = [f"night-{number}" for number in range(40)]
    async with (
        agent(small_store(tmp_path, iotcore.port)) as car,
        wire_fleet(iotcore.port, TOPICS, settles=False) as fleet,
    ):
        for name in names:
            fleet.send(large(name))
        await fleet.until(lambda: {event.id for event in fleet.events} == set(names), "each is answered")
        refused = codes(fleet, TaskState.REJECTED)
        taken = [name for name in names if name not in refused]
        assert set(refused.values()) == {Reason.STORE_FULL}
        assert taken
        await fleet.until(lambda: all(fleet.is_final(name) for name in taken), "what was taken is done")
        assert not car.service.executor.journal.stuck, "the reserve is what it is for"
        settle_all(fleet)
        await car.until_settled()
        for name in refused:
            fleet.send(large(name))
            await fleet.until(partial(fleet.is_final, name), f"{name}, now that there is room")
        assert rows_answered(fleet) == every_row_once(ROWS, *names)
        assert all(tail == large("any")[1] for _, tail in fleet.results)


async def test_results_that_find_no_room_wait_in_memory_and_no_more_rows_are_run(
    tmp_path: Path, iotcore: Broker
) -> None:
    names = [f"night-{number}" for number in range(12)]
    config = small_store(tmp_path, iotcore.port, run_us=SLOW_US)
    async with agent(config) as car, wire_fleet(iotcore.port, TOPICS, settles=False) as fleet:
        car.car.open_door()
        for name in names:
            fleet.send(growing(name))
        await fleet.until(lambda: {event.id for event in fleet.events} == set(names), "each is taken")
        car.car.close_door()
        await stuck(car)
        await car.until(lambda: not car.service.executor.running, "the executor rests")
        rows = car.rows_done
        assert rows < 40 * len(names)
        fleet.send(task("late"))
        await fleet.heard_event("late", TaskState.REJECTED)
        assert codes(fleet, TaskState.REJECTED) == {"late": Reason.STORE_FULL}
        assert car.rows_done == rows
        answer = await asyncio.to_thread(ask, tmp_path / "agent.sock", {"cmd": "status"})
        assert answer["status"]["store"]["waiting"] >= 1
        settle_all(fleet)
        await fleet.until(lambda: all(fleet.is_final(name) for name in names), "all are done")
        assert rows_answered(fleet) == every_row_once(40, *names)
        fleet.send(task("later"))
        await fleet.until(lambda: fleet.is_final("later"), "new work")


async def test_a_stuck_store_hears_cancel_and_drain_and_lets_leases_run_out(
    tmp_path: Path, iotcore: Broker
) -> None:
    async with (
        agent(small_store(tmp_path, iotcore.port, run_us=SLOW_US)) as car,
        wire_fleet(iotcore.port, TOPICS, settles=False) as fleet,
    ):
        car.car.open_door()
        for number in range(12):
            fleet.send(growing(f"night-{number}"))
        message, tail = growing("short")
        message.lease_s = 3.0
        message.priority = -1
        fleet.send((message, tail))
        await fleet.until(lambda: len({event.id for event in fleet.events}) == 13, "each is taken")
        car.car.close_door()
        await stuck(car)
        fleet.control(Cancel("veh-1", now(), "night-11", 1))
        await car.until(lambda: ("night-11", 1) not in car.service.executor.jobs, "the cancel holds")
        await car.until(lambda: ("short", 1) not in car.service.executor.jobs, "its lease has run out")
        fleet.control(Drain("veh-1", now()))
        await car.until(lambda: not car.service.executor.jobs, "everything is given back")
        settle_all(fleet)
        await fleet.heard_event("night-11", TaskState.CANCELLED)
        await fleet.heard_event("short", TaskState.EXPIRED)
        await car.until(lambda: not car.service.executor.journal.stuck, "everything has found room")
        await car.until_settled()
        fleet.control(Resume("veh-1", now()))
        await car.until(lambda: not car.service.intake.draining, "the end of the drain")
        fleet.send(task("later"))
        await fleet.until(lambda: fleet.is_final("later"), "new work")
        assert max(rows_answered(fleet).values()) == 1


async def test_an_agent_that_stops_while_results_wait_runs_their_rows_again(
    tmp_path: Path, iotcore: Broker
) -> None:
    names = [f"night-{number}" for number in range(5)]
    config = small_store(tmp_path, iotcore.port, run_us=SLOW_US)
    async with wire_fleet(iotcore.port, TOPICS, settles=False) as fleet:
        async with agent(config) as car:
            car.car.open_door()
            for name in names:
                fleet.send(growing(name))
            await fleet.until(lambda: {event.id for event in fleet.events} == set(names), "each is taken")
            car.car.close_door()
            await stuck(car)
        before = rows_answered(fleet)
        fleet.settles = True

        def ended(name: str) -> bool:
            return fleet.is_final(name) or name in codes(fleet, TaskState.RELEASED)

        async with agent(config) as car:
            await fleet.until(lambda: all(map(ended, names)), "all are done or given back")
            await car.until_settled()
        answered = rows_answered(fleet)
        done = [name for name in names if fleet.is_final(name)]
        assert done
        assert every_row_once(40, *done) - answered == Counter()
        assert max((answered - before).values()) == 1, "after the start each result comes once, new or again"
