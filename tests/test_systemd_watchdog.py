"""What feeds the watchdog: each look over the real part, alive and not."""

import asyncio
import contextlib
import re
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from agents import TOPICS, agent, write_config
from cars import HandClock
from wire_fleet import task, wire_fleet

from agent import watchdog
from agent.duties import Duties
from agent.notify import Notices
from agent.runs import Runs
from agent.store import Store
from agent.threads import Threads
from fleet.broker import Broker


class Meals(Notices):
    """Counts."""

    def __init__(self) -> None:
        super().__init__()
        self.eaten = 0

    def alive(self) -> None:
        self.eaten += 1


@contextlib.asynccontextmanager
async def fed(*looks: watchdog.Look) -> AsyncIterator[Meals]:
    meals = Meals()
    feeding = asyncio.create_task(watchdog.feed(meals, looks, 0.03))
    try:
        yield meals
    finally:
        feeding.cancel()
        await asyncio.wait([feeding])


async def until_more(meals: Meals, number: int) -> None:
    wanted = meals.eaten + number
    async with asyncio.timeout(20):
        while meals.eaten < wanted:
            await asyncio.sleep(0.005)


async def test_it_is_fed_until_a_part_is_found_dead_twice(caplog: pytest.LogCaptureFixture) -> None:
    looked: list[str] = []
    trouble = ""

    def look() -> str:
        looked.append(trouble)
        return trouble

    async with fed(lambda: "", look) as meals:
        await until_more(meals, 3)
        trouble = "the part has been dead for 1 s"
        async with asyncio.timeout(20):
            while looked.count(trouble) < 5:
                await asyncio.sleep(0.005)
        assert meals.eaten == looked.count("") + 1, "what the first look finds may pass"
        (record,) = caplog.records
        assert record.getMessage() == "the watchdog is not fed: the part has been dead for 1 s"
        trouble = ""
        await until_more(meals, 2)


async def for_ever() -> None:
    await asyncio.get_running_loop().create_future()


async def again_and_again(turned: asyncio.Event) -> None:
    while True:
        turned.set()
        await asyncio.sleep(0.01)


async def at_once() -> None:
    """Nothing to do."""


async def test_a_duty_that_does_not_go_on_is_named() -> None:
    turned, loop = asyncio.Event(), asyncio.get_running_loop()
    async with Duties() as duties:
        begun_s = loop.time()
        duties.start("turning", again_and_again(turned), within_s=0.3)
        duties.start("waiting", for_ever())
        while loop.time() - begun_s < 0.4:
            turned.clear()
            await turned.wait()  # it has just gone on, however long the machine stood before
            assert duties.stuck() == ""
        duties.start("stuck", for_ever(), within_s=0.05)
        await asyncio.sleep(0.1)
        turned.clear()
        await turned.wait()
        assert re.fullmatch(r"task stuck has not gone on for \d+ s, 0.05 s are its limit", duties.stuck())


async def test_a_duty_is_only_late_while_there_is_something_to_do() -> None:
    due = False
    async with Duties() as duties:
        duties.start("leases", for_ever(), within_s=0.01, due=lambda: due)
        await asyncio.sleep(0.05)
        assert duties.stuck() == ""
        due = True
        assert duties.stuck().startswith("task leases has not gone on for ")


async def test_a_duty_that_has_ended_is_named() -> None:
    async with Duties() as duties:
        duties.start("short", at_once())
        await asyncio.sleep(0.01)
        assert duties.stuck() == "task short has ended"


async def test_a_duty_may_clean_up_when_it_is_cancelled() -> None:
    steps: list[str] = []

    async def careful(name: str) -> None:
        try:
            await for_ever()
        finally:
            await asyncio.sleep(0)
            steps.append(name)

    async with Duties() as duties:
        for name in ("first", "last"):
            duties.start(name, careful(name))
        await asyncio.sleep(0)
    assert steps == ["last", "first"]


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with Store.open(tmp_path / "agent.db", max_bytes=10_000_000) as opened:
        yield opened


async def test_a_store_that_writes_for_ever_is_found(store: Store) -> None:
    clock, let_go = HandClock(), threading.Event()
    look = watchdog.store(store.writer, clock)
    assert look() == ""
    writing = store.run(lambda _: let_go.wait(20))
    async with asyncio.timeout(20):
        while store.writer.busy_since_ns is None:
            await asyncio.sleep(0.005)
    clock.now_ns = store.writer.busy_since_ns
    clock.forward(watchdog.COMMIT_MOST_S)
    assert look() == ""
    clock.forward(1)
    assert look() == "the store has been writing for 11 s, 10 s are its limit"
    let_go.set()
    await writing
    async with asyncio.timeout(20):  # the thread puts it away behind the answer
        while look():
            await asyncio.sleep(0.005)


async def test_a_store_whose_thread_has_ended_is_found(store: Store) -> None:
    await store.close()
    assert watchdog.store(store.writer, HandClock())() == "the store's thread has ended"


def until(event: threading.Event) -> None:
    event.wait()


async def test_a_thread_that_ends_without_a_word_is_found() -> None:
    leave = threading.Event()
    async with Threads() as threads:
        threads.start("can", until, leave)
        threads.start("guard", until, threads.stop)
        look = watchdog.threads(threads, ["can", "guard"])
        assert look() == ""
        leave.set()
        async with asyncio.timeout(20):
            while threads.runs("can"):
                await asyncio.sleep(0.005)
        assert look() == "thread can has ended"


async def test_a_thread_that_does_not_end_is_left_behind(caplog: pytest.LogCaptureFixture) -> None:
    deaf = threading.Event()
    async with Threads() as threads:
        threads.start("driver", until, deaf)
        began_s = time.monotonic()
    assert time.monotonic() - began_s < 60  # it would stay for ever
    assert "thread driver does not end, and is left behind" in caplog.text
    deaf.set()


async def test_work_that_waits_and_is_not_done_is_found(
    tmp_path: Path, iotcore: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs = False
    real = Runs.run

    async def run(*arguments: Any) -> Any:
        if hangs:
            await for_ever()
        return await real(*arguments)

    monkeypatch.setattr(Runs, "run", run)
    config = write_config(tmp_path, iotcore.port, run_us=60_000)
    now_s = 0.0
    async with agent(config) as car, wire_fleet(iotcore.port, TOPICS) as fleet:
        look = watchdog.Progress(car.service.executor, lambda: now_s)
        fleet.send(task("night-1", count=200))
        await car.until_rows(3)
        now_s = 61.0
        assert look() == "", "rows were done"
        hangs = True
        await car.until(lambda: car.service.executor.idles, "nothing is in the worker's hands")
        assert look() == ""
        now_s += 60
        assert look() == ""
        now_s += 1
        assert look() == "work waits that is allowed, and none has been done for 61 s, 60 s are the limit"
        car.car.open_door()
        assert look() == "", "the owner is there: nothing is expected"
