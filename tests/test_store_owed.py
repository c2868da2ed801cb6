"""What is owed to the fleet waits for room on the disk, in order, and is never given up."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Hashable
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio
from offers import offer

from agent.store import Ledger, Store, StoreClosed, StoreFull, waiting
from agent.store.waiting import Waiting

MAX_BYTES = 1_000_000
SOON_S = 20.0


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with Store.open(tmp_path / "agent.db", max_bytes=MAX_BYTES) as opened:
        yield opened


def noting(name: str, size_bytes: int) -> Callable[[Ledger], None]:
    return lambda ledger: ledger.notes.write(name, b"\x5a" * size_bytes)


def size_of(ledger: Ledger, name: str) -> int:
    return len(ledger.notes.read(name) or b"")


async def fill(store: Store, left_bytes: int) -> None:
    """Leave about this much of the store."""
    free = await store.run(lambda ledger: ledger.room.max_bytes - ledger.room.used_bytes)
    await store.run(noting("filler", free - left_bytes))


async def until_waiting(store: Store, jobs: int) -> None:
    async with asyncio.timeout(SOON_S):
        while store.writer.waiting != jobs:
            await asyncio.sleep(0.001)


def owe(store: Store, name: str, size_bytes: int, lane: Hashable) -> asyncio.Future[None]:
    return store.owe(noting(name, size_bytes), lane=lane)


async def test_what_is_owed_waits_for_room_and_is_done_when_there_is(store: Store) -> None:
    await fill(store, left_bytes=50_000)
    owed = owe(store, "answer", 200_000, lane="task")
    await until_waiting(store, 1)
    assert not owed.done()
    await store.run(noting("filler", 0))
    await asyncio.wait_for(owed, SOON_S)
    assert store.writer.waiting == 0
    assert await store.run(lambda ledger: size_of(ledger, "answer")) == 200_000


async def test_nobody_overtakes_in_a_lane_and_other_lanes_go_on(store: Store) -> None:
    """The rows of a task are on disk before its end, however small that is."""
    await fill(store, left_bytes=50_000)
    done: list[str] = []

    def watched(name: str, size_bytes: int) -> None:
        owe(store, name, size_bytes, lane=name[0]).add_done_callback(lambda _: done.append(name))

    watched("a1", 200_000)
    watched("a2", 10)
    watched("b1", 10)
    watched("a3", 10)
    await until_waiting(store, 3)
    await store.run(lambda _: None)
    assert done == ["b1"]
    watched("a4", 10)
    await until_waiting(store, 4)
    await store.run(noting("filler", 0))
    await until_waiting(store, 0)
    await store.run(lambda _: None)
    assert done == ["b1", "a1", "a2", "a3", "a4"]


async def test_what_was_settled_makes_room_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for the next attempt of a back-off that has grown long."""
    for pause in ("FIRST_PAUSE_S", "LONGEST_PAUSE_S"):
        monkeypatch.setattr(waiting, pause, 600.0)
    async with Store.open(tmp_path / "agent.db", max_bytes=MAX_BYTES) as store:
        await fill(store, left_bytes=50_000)
        owed = owe(store, "answer", 200_000, lane="task")
        await until_waiting(store, 1)
        await owe(store, "filler", 0, lane="settled")
        await asyncio.wait_for(owed, SOON_S)


async def test_while_something_waits_no_new_task_is_taken(store: Store) -> None:
    await store.run(noting("filler", 250_000))
    assert (await store.run(lambda ledger: ledger.accept(offer("before")))).superseded is None
    owed = owe(store, "answer", 800_000, lane="task")
    await until_waiting(store, 1)
    with pytest.raises(StoreFull, match="results wait for room"):
        await store.run(lambda ledger: ledger.accept(offer("new")))
    await store.run(noting("filler", 0))
    await asyncio.wait_for(owed, SOON_S)


async def test_the_agent_is_told_when_the_store_is_stuck_and_when_it_goes_on(store: Store) -> None:
    told: list[bool] = []
    store.writer.on_stuck = told.append
    await fill(store, left_bytes=50_000)
    owed = [owe(store, f"answer {number}", 200_000, lane=number) for number in range(3)]
    await until_waiting(store, 3)
    await store.run(noting("filler", 0))
    await asyncio.wait_for(asyncio.gather(*owed), SOON_S)
    await store.run(lambda _: None)
    assert told == [True, False]


async def test_whoever_sees_it_stuck_is_told_that_it_goes_on(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lane that rests on what it saw in between is woken by what is told, and by nothing else."""
    await fill(store, left_bytes=50_000)
    seen: list[bool] = []
    told: list[bool] = []
    store.writer.on_stuck = told.append
    hurry = Waiting.hurry

    def looked_at(waiting: Waiting) -> None:
        seen.append(store.writer.stuck)
        hurry(waiting)

    monkeypatch.setattr(Waiting, "hurry", looked_at)
    held = threading.Event()
    store.run(lambda _: held.wait())
    owed = owe(store, "answer", 200_000, lane="task"), owe(store, "filler", 0, lane="room")
    held.set()
    await asyncio.wait_for(asyncio.gather(*owed), SOON_S)
    await store.run(lambda _: None)
    assert seen == [False]
    assert told == []


async def test_what_still_waits_at_the_end_is_not_on_disk_and_says_so(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "agent.db", max_bytes=MAX_BYTES) as store:
        await fill(store, left_bytes=50_000)
        owed = owe(store, "answer", 200_000, lane="task")
        await until_waiting(store, 1)
    with pytest.raises(StoreClosed, match="before there was room"):
        await owed
    async with Store.open(tmp_path / "agent.db", max_bytes=MAX_BYTES) as store:
        assert await store.run(lambda ledger: size_of(ledger, "answer")) == 0


async def test_the_last_attempt_is_at_the_end(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "agent.db", max_bytes=MAX_BYTES) as store:
        await fill(store, left_bytes=50_000)
        owed = owe(store, "answer", 200_000, lane="task")
        await until_waiting(store, 1)
        await store.run(noting("filler", 0))
    await owed


async def test_results_of_any_size_can_be_settled_in_a_store_that_is_full_to_the_brim(store: Store) -> None:
    """Settling needs no page of its own: or a full store could never be emptied."""
    answered, size_bytes = 0, 60_000
    while size_bytes > 8:
        try:
            await store.run(partial(answer_beyond_the_reserve, number=answered, size_bytes=size_bytes))
            answered += 1
        except StoreFull:
            size_bytes //= 2
    assert await store.run(lambda ledger: ledger.room.max_bytes - ledger.room.used_bytes) < 8_192
    for number in range(answered):
        assert await store.run(partial(Ledger.settle, results=[(f"t{number}", 1, 0, 1)])) == 1


def answer_beyond_the_reserve(ledger: Ledger, *, number: int, size_bytes: int) -> None:
    """A task that was accepted while there was room, and its answer."""
    ledger.connection.execute(
        """INSERT INTO tasks (id, attempt, digest, rows_from, rows_to, received_ns, received_at, priority,
            expires_at, lease_s, state, state_at) VALUES (?, 1, zeroblob(32), 0, 1, 0, 0, 0, 0, 60, 'accepted', 0)""",
        (f"t{number}",),
    )
    ledger.emit(f"t{number}", 1, 0, 1, b"\x5a" * size_bytes, final=True)
