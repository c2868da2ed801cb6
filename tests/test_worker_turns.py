"""More rows than a program takes at a time are one errand for the worker: it runs them in turns."""

import asyncio
from pathlib import Path

import pytest
from agents import TOPICS, agent, write_config
from row_by_row import BAD
from run_sizes import sizes_of_runs
from wire_fleet import task, wire_fleet
from workers import BYTES, LONG_US, started

from backends.kernel import Cancelled, KernelError, Model, Tensor
from backends.slots import Slot
from fleet.broker import Broker

WIDTH = 1024
TASKS = 24


@pytest.fixture(autouse=True)
def workers_find_the_backends_of_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


def filled(slot: Slot) -> None:
    for row in range(slot.rows):
        slot.inputs[0][row * WIDTH : (row + 1) * WIDTH] = bytes([row]) * WIDTH


@pytest.mark.parametrize(("rows", "together"), [(1, [1]), (3, [3] * 3), (8, [3] * 6 + [2] * 2)])
async def test_every_row_is_run_in_its_turn_and_lies_in_its_place(rows: int, together: list[int]) -> None:
    async with started("row_by_row:Few") as worker:
        program = await worker.load(BYTES)
        with worker.slot(program, rows) as slot:
            filled(slot)
            done = await worker.run(slot)
            answers = [bytes(slot.outputs[0][row * WIDTH : (row + 1) * WIDTH]) for row in range(rows)]
        assert [answer[0] for answer in answers] == list(range(rows))
        assert [answer[-1] for answer in answers] == together
        assert done.spent.joules == -(-rows // 3)
        assert 0 < done.spent.begin_ns < done.spent.end_ns


async def test_every_turn_has_what_all_rows_share() -> None:
    inputs = (Tensor("row", "UINT8", (2,)), Tensor("table", "UINT8", (3,), shared=True))
    async with started("row_by_row:Echo") as worker:
        program = await worker.load(Model(BYTES.path, BYTES.sha256, "onnx", inputs))
        with worker.slot(program, 4) as slot:
            slot.inputs[0][:] = bytes(range(8))
            slot.inputs[1][:] = b"abc"
            await worker.run(slot)
            assert slot.outputs[0] == bytes(range(8))
            assert slot.outputs[1] == b"abc" * 4


async def test_a_row_that_fails_fails_what_it_was_run_with() -> None:
    async with started("row_by_row:One") as worker:
        program = await worker.load(BYTES)
        with worker.slot(program, 3) as slot:
            filled(slot)
            slot.inputs[0][WIDTH] = BAD
            with pytest.raises(KernelError, match="a bad row"):
                await worker.run(slot)
            slot.inputs[0][WIDTH] = 0
            await worker.run(slot)


async def test_a_cancel_ends_the_turn_that_runs_and_there_is_no_next() -> None:
    async with started("row_by_row:One", run_us=LONG_US) as worker:
        program = await worker.load(BYTES)
        with worker.slot(program, 100) as slot:
            for _ in range(2):
                run = asyncio.ensure_future(worker.run(slot))
                await asyncio.sleep(0.02)
                worker.cancel(slot)
                async with asyncio.timeout(30):
                    with pytest.raises(Cancelled):
                        await run


async def test_small_tasks_of_a_model_that_takes_one_row_share_an_errand(
    tmp_path: Path, iotcore: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_config(tmp_path, iotcore.port, backend="row_by_row:One", run_us=100)
    async with agent(config) as car, wire_fleet(iotcore.port, TOPICS) as fleet:
        sizes = sizes_of_runs(car, monkeypatch)
        car.car.open_door()
        for number in range(TASKS):
            fleet.send(task(f"small-{number}", count=1))
        await car.until(lambda: len(car.service.executor.jobs) == TASKS, "all wait when the work begins")
        car.car.close_door()
        await fleet.until(lambda: all(fleet.is_final(f"small-{n}") for n in range(TASKS)), "all answers")
    assert sum(sizes) == TASKS
    assert max(sizes) > 1


async def test_rows_that_take_long_are_run_one_by_one(
    tmp_path: Path, iotcore: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_config(tmp_path, iotcore.port, backend="row_by_row:One", run_us=10_000)
    async with agent(config) as car, wire_fleet(iotcore.port, TOPICS) as fleet:
        sizes = sizes_of_runs(car, monkeypatch)
        fleet.send(task("night-1", count=6))
        await fleet.until(lambda: fleet.is_final("night-1"), "the answer")
    assert sizes == [1] * 6
