"""One thread writes; the loop that serves the car never waits for it."""

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from offers import offer
from stored_tasks import overwrite, pages

from agent.store import Acceptance, Ledger, Outcome, RowsRefused, Store, StoreFailed, StoreFull

MAX_BYTES = 1_000_000


class Disk:
    """A disk that counts its commits, and hangs in them between `hang` and `release`."""

    def __init__(self) -> None:
        self.commits = 0
        self.statements: list[str] = []
        self.reached = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._moves = threading.Event()
        self._moves.set()

    def attach(self, ledger: Ledger) -> None:
        ledger.connection.set_trace_callback(self._traced)

    def hang(self) -> None:
        self._moves.clear()

    def release(self) -> None:
        self._moves.set()

    def _traced(self, statement: str) -> None:
        self.statements.append(statement)
        if statement == "COMMIT":
            self.commits += 1
            if not self._moves.is_set():
                self._loop.call_soon_threadsafe(self.reached.set)
                self._moves.wait(30)


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with Store.open(tmp_path / "agent.db", max_bytes=MAX_BYTES) as opened:
        yield opened


async def disk_of(store: Store) -> Disk:
    disk = Disk()
    await store.run(disk.attach)
    return disk


async def hanging(store: Store, disk: Disk) -> asyncio.Future[None]:
    """A job whose commit hangs: what is queued meanwhile forms the next group."""
    disk.hang()
    first = store.run(nothing)
    await disk.reached.wait()
    disk.commits = 0
    return first


def nothing(_: Ledger) -> None:
    pass


def accepting(task_id: str, size_bytes: int = 20) -> Callable[[Ledger], Acceptance]:
    task = offer(task_id, body=bytes(size_bytes))
    return lambda ledger: ledger.accept(task)


async def filled(store: Store, size_bytes: int) -> int:
    """How many tasks of this size were taken over before the store was full."""
    held = 0
    with contextlib.suppress(StoreFull):
        while True:
            await store.run(accepting(f"t{held}", size_bytes))
            held += 1
    return held


async def test_jobs_that_wait_for_the_disk_share_one_commit(store: Store) -> None:
    disk = await disk_of(store)
    first = await hanging(store, disk)
    waiting = [store.run(accepting(f"night-{i}")) for i in range(100)]
    disk.release()
    acceptances = await asyncio.gather(*waiting)
    await first
    assert {acceptance.outcome for acceptance in acceptances} == {Outcome.NEW}
    assert disk.commits == 1
    assert (await store.run(lambda ledger: ledger.counts())).open_tasks == 100


async def test_a_job_that_fails_takes_nothing_of_its_group_with_it(store: Store) -> None:
    disk = await disk_of(store)

    def overlapping(ledger: Ledger) -> None:
        ledger.accept(offer("bad"))
        ledger.commit_rows("bad", 1, 0, 2, outputs=b"", usage=b"")
        ledger.commit_rows("bad", 1, 1, 3, outputs=b"", usage=b"")

    first = await hanging(store, disk)
    before = store.run(accepting("before"))
    failing = store.run(overlapping)
    after = store.run(accepting("after"))
    disk.release()
    await asyncio.gather(first, before, after)
    with pytest.raises(RowsRefused):
        await failing
    assert disk.commits == 1
    assert [task.id for task in await store.run(lambda ledger: ledger.open_tasks())] == ["before", "after"]


async def test_a_group_in_which_nobody_fails_needs_no_savepoint(store: Store) -> None:
    disk = await disk_of(store)
    first = await hanging(store, disk)
    disk.statements.clear()
    waiting = [store.run(accepting(f"night-{i}")) for i in range(3)]
    disk.release()
    await asyncio.gather(first, *waiting)
    kinds = [statement.split()[0] for statement in disk.statements]
    assert [kind for kind in kinds if kind not in {"SELECT", "INSERT", "PRAGMA", "--"}] == ["BEGIN", "COMMIT"]
    assert kinds.count("PRAGMA") == 2, "the room is counted once for all of them"


async def test_the_tasks_of_one_group_leave_the_reserve_to_results(store: Store) -> None:
    disk = await disk_of(store)
    await store.run(accepting("first"))
    hung = await hanging(store, disk)
    jobs = [store.run(accepting("before", 20_000))]
    answer = store.run(lambda ledger: ledger.emit("first", 1, 0, 8, bytes(200_000), final=True))
    jobs += [store.run(accepting(f"t{i}", 20_000)) for i in range(25)]  # would fit, were nothing kept back
    disk.release()
    await asyncio.gather(hung, answer)
    outcomes = await asyncio.gather(*jobs, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {Acceptance, StoreFull}
    left = await store.run(lambda ledger: ledger.room.max_bytes - ledger.room.used_bytes)
    reserve = await store.run(lambda ledger: ledger.room.reserve_bytes)
    assert reserve <= left < reserve + 60_000


async def test_when_the_commit_fails_every_job_of_the_group_has_failed(store: Store) -> None:
    disk = await disk_of(store)

    def orphan(ledger: Ledger) -> None:
        ledger.connection.execute("PRAGMA defer_foreign_keys = ON")  # what is wrong shows at the commit
        ledger.connection.execute("INSERT INTO bodies VALUES (999, x'00')")

    first = await hanging(store, disk)
    innocent = store.run(accepting("innocent"))
    guilty = store.run(orphan)
    disk.release()
    await first
    for job in (innocent, guilty):
        with pytest.raises(StoreFailed, match="FOREIGN KEY"):
            await job
    assert await store.run(lambda ledger: ledger.task("innocent", 1)) is None
    assert (await store.run(accepting("innocent"))).outcome is Outcome.NEW


async def test_the_loop_goes_on_while_the_disk_hangs_and_the_hang_can_be_seen(tmp_path: Path) -> None:
    stamps = iter(range(1, 1_000))
    async with Store.open(tmp_path / "agent.db", max_bytes=MAX_BYTES, clock=lambda: next(stamps)) as store:
        disk = await disk_of(store)
        committed_ns = store.writer.last_commit_ns
        stuck = await hanging(store, disk)
        queued = store.run(accepting("night-1"))
        for _ in range(100):
            await asyncio.sleep(0)
        assert not stuck.done()
        assert not queued.done()
        assert store.writer.alive
        assert store.writer.busy_since_ns is not None
        assert store.writer.busy_since_ns > committed_ns
        assert store.writer.last_commit_ns == committed_ns
        disk.release()
        await queued
        await store.run(nothing)
        assert store.writer.last_commit_ns > committed_ns


async def test_closing_commits_what_was_queued_and_takes_nothing_more(store: Store, tmp_path: Path) -> None:
    waiting = [store.run(accepting(f"night-{i}")) for i in range(50)]
    await asyncio.gather(store.close(), store.close())
    assert all(job.done() and job.result().outcome is Outcome.NEW for job in waiting)
    assert store.writer.busy_since_ns is None
    with pytest.raises(StoreFailed, match="closed"):
        store.run(nothing)
    async with Store.open(tmp_path / "agent.db", max_bytes=MAX_BYTES) as again:
        assert (await again.run(lambda ledger: ledger.counts())).open_tasks == 50


async def test_who_stops_waiting_takes_back_neither_the_job_nor_an_answer_to_others(store: Store) -> None:
    disk = await disk_of(store)
    first = await hanging(store, disk)
    abandoned = store.run(accepting("night-1"))
    behind = store.run(accepting("night-2"))
    abandoned.cancel()
    disk.release()
    await asyncio.gather(first, behind)
    assert (await store.run(accepting("night-1"))).outcome is Outcome.REPEAT


# pytest sees the thread die, and so does the agent: that is what is tested
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_a_dead_writer_fails_what_waits_and_is_seen(store: Store) -> None:
    disk = await disk_of(store)

    def dies(_: Ledger) -> None:
        raise SystemExit

    first = await hanging(store, disk)
    killed = store.run(dies)
    beside = store.run(accepting("night-1"))
    disk.release()
    await first
    for job in (killed, beside):
        with pytest.raises(StoreFailed, match="thread has died"):
            await job
    await store.close()
    assert not store.writer.alive
    with pytest.raises(StoreFailed, match="closed"):
        store.run(nothing)


async def test_a_full_store_refuses_new_work_keeps_what_it_owes_and_recovers(store: Store) -> None:
    held = await filled(store, 50_000)
    assert 5 <= held <= 12, "half of so small a store is kept for results"
    await store.run(lambda ledger: ledger.emit("t0", 1, 0, 8, b"labels", final=True))
    assert (await store.run(lambda ledger: ledger.counts())).open_tasks == held - 1
    assert await store.run(lambda ledger: ledger.settle([("t0", 1, 0, 8)])) == 1
    assert (await store.run(accepting("next", 45_000))).task.id == "next"


async def test_a_full_store_costs_the_tasks_that_still_fit_nothing(store: Store) -> None:
    disk = await disk_of(store)
    first = await hanging(store, disk)
    fits = store.run(accepting("fits"))
    too_large = store.run(lambda ledger: ledger.notes.write("large", bytes(2 * MAX_BYTES)))
    fits_too = store.run(accepting("fits-too"))
    disk.release()
    await asyncio.gather(first, fits, fits_too)
    with pytest.raises(StoreFull, match="full"):
        await too_large


async def test_a_file_that_refuses_to_be_written_is_a_failure_of_the_store(store: Store) -> None:
    def refused(ledger: Ledger) -> Acceptance:
        ledger.connection.execute("PRAGMA query_only = ON")  # every write is SQLITE_READONLY from here on
        try:
            return ledger.accept(offer())
        finally:
            ledger.connection.execute("PRAGMA query_only = OFF")

    with pytest.raises(StoreFailed, match="readonly"):
        await store.run(refused)
    assert await store.run(lambda ledger: ledger.open_tasks()) == []


async def test_a_store_that_turns_out_corrupt_fails_the_job_and_not_the_agent(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    async with Store.open(path, max_bytes=MAX_BYTES) as store:
        for number in range(20):
            await store.run(accepting(f"t{number}", 10_000))
    async with Store.open(path, max_bytes=MAX_BYTES) as store:
        overwrite(path, range(20, pages(path)))
        with pytest.raises(StoreFailed, match=r"malformed \(SQLITE_CORRUPT\); start the agent again"):
            await store.run(lambda ledger: [ledger.body(task.id, 1) for task in ledger.open_tasks()])
        assert await store.run(lambda ledger: ledger.facts.time_floor()) == 0


async def test_a_bug_in_a_job_is_handed_to_whoever_gave_it(store: Store) -> None:
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        await store.run(lambda ledger: ledger.connection.execute("SELECT * FROM nowhere"))
    with pytest.raises(ZeroDivisionError):
        await store.run(lambda _: 1 // 0)
