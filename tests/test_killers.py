"""Whose fault it was that a worker died: what the agent concludes from who was in it, and keeps over a restart."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from wire_fleet import task

from agent.job import Job
from agent.killers import DEATHS, Killers
from agent.protocol.messages import TaskState
from agent.protocol.reasons import Reason
from agent.store import Store
from backends.group import Reaped
from backends.process import WorkerDied

REAPED = Reaped(at_ns=0, returncode=-11)
DEATH = WorkerDied(-11, "ended by SIGSEGV")


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with Store.open(tmp_path / "agent.db", max_bytes=1_000_000) as opened:
        yield opened


def fails(error: BaseException) -> None:
    raise error


def job(name: str) -> Job:
    message, tail = task(name, count=8)
    return Job(message, [memoryview(tail)], (0, 8), 8, [(0, 8)], lease_end_ns=0, arrival=0)


async def test_a_model_is_at_fault_when_its_worker_dies_twice_with_nothing_else_in_hand(store: Store) -> None:
    killers, first, second = Killers(store, fails), job("night-1"), job("night-2")
    killers.blame([first], "cpu", REAPED)
    assert killers.ending(first, 1, DEATH) is None
    killers.blame([second], "cpu", REAPED)  # another task of the same model
    ending = killers.ending(second, DEATHS, DEATH)
    assert ending is not None
    assert (ending.state, ending.code) == (TaskState.FAILED, Reason.MODEL_INVALID)
    assert ending.text == "this model ended its worker 2 times: ended by SIGSEGV"


async def test_a_run_in_between_clears_the_model_but_not_the_job_that_was_there_twice(store: Store) -> None:
    killers, again, other = Killers(store, fails), job("night-1"), job("night-2")
    for _ in range(DEATHS):
        killers.blame([again], "cpu", REAPED)
        killers.worked(again.task.model.sha256)
    assert killers.ending(other, DEATHS, DEATH) is None
    ending = killers.ending(again, DEATHS, DEATH)
    assert ending is not None
    assert ending.code is Reason.MODEL_INVALID


async def test_of_several_in_the_worker_none_is_blamed_and_each_is_tried_alone(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    killers, jobs = Killers(store, fails), [job("night-1"), job("night-2")]
    for _ in range(DEATHS):
        killers.blame(jobs, "cpu", REAPED)
    assert [each.alone for each in jobs] == [True, True]
    assert [killers.ending(each, DEATHS, DEATH) for each in jobs] == [None, None]
    assert "tasks night-1/1, night-2/1 were in the worker of cpu when it died" in caplog.text


async def test_a_backend_that_dies_of_everything_gives_the_tasks_back(store: Store) -> None:
    ending = Killers(store, fails).ending(job("night-1"), DEATHS + 1, DEATH)
    assert ending is not None
    assert (ending.state, ending.code) == (TaskState.RELEASED, Reason.BACKEND_CRASHED)
    assert ending.text == "ended by SIGSEGV"


async def test_a_restart_forgets_no_death(store: Store) -> None:
    Killers(store, fails).blame([job("night-1")], "cpu", REAPED)
    restarted = Killers(store, fails)
    await restarted.restore()
    assert not restarted.refused(job("night-1").task.model.sha256)
    restarted.blame([job("night-2")], "cpu", REAPED)
    assert restarted.refused(job("night-1").task.model.sha256)
