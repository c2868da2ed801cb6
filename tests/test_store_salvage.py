"""A store that is found broken makes way for a new one; what the fleet waits for is read out of it first."""

import hashlib
import random
import time
from pathlib import Path

import pytest
from offers import NOW, offer
from stored_tasks import (
    MAX_BYTES,
    ROWS,
    overwrite,
    owed,
    pages,
    pages_of,
    result_body,
    task_body,
    worked,
)

from agent.protocol.messages import TaskState
from agent.protocol.reasons import Reason
from agent.reports import utc_now
from agent.store import Outcome, Store, StoreUnusable
from agent.store.aside import set_aside

NAMES = [f"night-{number}" for number in range(40)]
TASKS_ROOT = 2
ANSWERED, FAILED, HALF, ACCEPTED = (NAMES[kind::4] for kind in range(4))
ALL_OWED = {(name, 0, ROWS) for name in ANSWERED} | {(name, 0, 4) for name in HALF}


def broken_ones(folder: Path) -> list[str]:
    """What lies aside, without logs."""
    return sorted(
        file.name for file in folder.glob("*.corrupt-*") if not file.name.endswith(("-wal", "-shm"))
    )


def last_page_of(path: Path, content: bytes) -> int:
    """The page on which these bytes end."""
    return pages_of(path, content[-16:])[-1]


def opened(path: Path) -> Store:
    return Store.open(path, max_bytes=MAX_BYTES)


def assert_owed_is_true(found: dict[tuple[str, int, int], bytes]) -> None:
    """Whatever is left of the results is what was in them."""
    assert found.keys() <= ALL_OWED
    for (name, begin, end), body in found.items():
        assert body == result_body(name, (begin, end))


async def test_a_broken_page_costs_what_was_on_it_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "agent.db"
    boot = await worked(path, NAMES)
    overwrite(path, [last_page_of(path, result_body("night-8"))])
    async with opened(path) as store:
        found = await store.run(owed)
        assert found.keys() == ALL_OWED - {("night-8", 0, ROWS)}
        assert_owed_is_true(found)
        lost = await store.run(lambda ledger: ledger.task("night-8", 1))
        assert lost is not None
        assert (lost.state, lost.reason_code, lost.rows_answered) == (TaskState.RELEASED, Reason.RESTARTED, 0)
        untold = {row.id for row in await store.run(lambda ledger: ledger.untold())}
        assert untold == {*FAILED, "night-8"}
        assert store.boot == boot + 1
        (aside,) = broken_ones(tmp_path)
        assert aside.endswith("-unread")
        assert aside in store.salvage
        assert "saved 19 results, 11 ends and 20 open tasks; known to be lost are 1 results" in store.salvage
        assert store.salvage in caplog.text


async def test_what_was_saved_can_be_settled_repeated_and_worked_on(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    await worked(path, NAMES)
    overwrite(path, [last_page_of(path, result_body("night-8"))])
    async with opened(path) as store:
        settled = [(name, 1, begin, end) for name, begin, end in ALL_OWED]
        assert await store.run(lambda ledger: ledger.settle(settled)) == 19
        again = [offer(name, body=task_body(name)) for name in (ANSWERED[0], FAILED[0], ACCEPTED[0])]
        answers = await store.run(lambda ledger: [ledger.accept(task).outcome for task in again])
        assert answers == [Outcome.REPEAT] * 3
        assert {row.id for row in await store.run(lambda ledger: ledger.open_tasks())} == {*HALF, *ACCEPTED}
        assert await store.run(lambda ledger: ledger.missing(HALF[0], 1)) == [(4, ROWS)]
        assert await store.run(lambda ledger: ledger.body(HALF[0], 1)) == task_body(HALF[0])
        assert await store.run(lambda ledger: ledger.facts.time_floor()) == NOW
        assert await store.run(lambda ledger: ledger.facts.draining())
        assert await store.run(lambda ledger: ledger.notes.read("costs")) == b"known"


async def test_a_task_whose_bytes_are_broken_is_given_back(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    await worked(path, NAMES)
    overwrite(path, [last_page_of(path, task_body(ACCEPTED[3]))])
    async with opened(path) as store:
        assert (await store.run(owed)).keys() == ALL_OWED
        row = await store.run(lambda ledger: ledger.task(ACCEPTED[3], 1))
        assert row is not None
        assert (row.state, row.told) == (TaskState.RELEASED, False)
        assert "1 open tasks, and what stood" in store.salvage


@pytest.mark.parametrize("part", ["leaf", "root"])
async def test_a_result_outlives_the_row_of_its_task(tmp_path: Path, part: str) -> None:
    """What is left of the task is what `settled` needs. With the root of its table every row is gone."""
    path = tmp_path / "agent.db"
    names = [f"night-{number}" for number in range(200)]
    await worked(path, names)
    (leaf,) = pages_of(path, hashlib.sha256(task_body("night-0")).digest())
    overwrite(path, [TASKS_ROOT if part == "root" else leaf])
    async with opened(path) as store:
        found = await store.run(owed)
        assert len(found) == 100
        assert found["night-0", 0, ROWS] == result_body("night-0")
        row = await store.run(lambda ledger: ledger.task("night-0", 1))
        assert row is not None
        assert row.digest == bytes(32), "its row is not the one that was"
        assert await store.run(lambda ledger: ledger.settle([("night-0", 1, 0, ROWS)])) == 1


@pytest.mark.parametrize("seed", range(25))
async def test_wherever_it_is_broken_what_is_saved_is_true_and_the_agent_starts(
    tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)  # noqa: S311 - a seed, so that a run can be repeated
    path = tmp_path / "agent.db"
    boot = await worked(path, NAMES)
    overwrite(path, chance.sample(range(1, pages(path)), chance.randint(1, 4)))
    async with opened(path) as store:
        assert store.boot > boot
        found = await store.run(owed)
        assert_owed_is_true(found)
        bodies = await store.run(
            lambda ledger: {row.id: ledger.body(row.id, 1) for row in ledger.open_tasks()}
        )
        assert bodies == {name: task_body(name) for name in bodies}
        if found.keys() != ALL_OWED:
            assert broken_ones(tmp_path)[0].endswith("-unread")
        intact = await store.run(
            lambda ledger: ledger.connection.execute("PRAGMA integrity_check").fetchall()
        )
        assert intact == [("ok",)]


@pytest.mark.parametrize("left", [6, 60, 6_000, 20_000, 100_000])
async def test_a_store_cut_short_is_kept_and_the_agent_starts(tmp_path: Path, left: int) -> None:
    path = tmp_path / "agent.db"
    boot = await worked(path, NAMES)
    cut = path.read_bytes()[:left]
    path.write_bytes(cut)
    async with opened(path) as store:
        assert store.boot > boot
        assert_owed_is_true(await store.run(owed))
        (aside,) = broken_ones(tmp_path)
        assert (tmp_path / aside).read_bytes() == cut


async def test_where_the_boot_cannot_be_read_it_is_counted_on_from_the_minutes_since_1970(
    tmp_path: Path,
) -> None:
    path = tmp_path / "agent.db"
    await worked(path, NAMES)
    overwrite(path, [0])
    async with opened(path) as store:
        assert store.boot - 1 == pytest.approx(time.time() // 60, abs=1)
        first = store.boot
    async with opened(path) as store:
        assert store.boot == first + 1


async def test_what_only_the_log_holds_is_saved_too(tmp_path: Path) -> None:
    """A kill leaves the newest commits in the write-ahead log."""
    path, killed = tmp_path / "agent.db", tmp_path / "killed"
    killed.mkdir()
    async with opened(path) as store:
        await store.run(lambda ledger: ledger.accept(offer("early", body=task_body("early"))))
        await store.run(lambda ledger: ledger.emit("early", 1, 0, ROWS, result_body("early"), final=True))
        for tail in ("", "-wal"):
            file = path.with_name(path.name + tail)
            (killed / file.name).write_bytes(file.read_bytes())
    store_file = killed / "agent.db"
    (killed / "agent.db.lock").write_text("1\n")
    overwrite(store_file, [5])
    async with opened(store_file) as store:
        assert await store.run(owed) == {("early", 0, ROWS): result_body("early")}


async def test_an_emptied_store_is_kept_with_its_log(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    async with opened(path):
        log = path.with_name("agent.db-wal").read_bytes()
    path.write_bytes(b"")
    path.with_name("agent.db-wal").write_bytes(log)
    async with opened(path):
        (aside,) = broken_ones(tmp_path)
        assert aside.endswith("-unread")
        assert (tmp_path / f"{aside}-wal").read_bytes() == log


@pytest.mark.parametrize("log_is_gone", [False, True])
async def test_an_agent_that_dies_while_it_saves_does_it_again_from_the_same_files(
    tmp_path: Path, log_is_gone: bool
) -> None:
    path = tmp_path / "agent.db"
    await worked(path, NAMES)
    overwrite(path, [last_page_of(path, result_body("night-8"))])
    path.with_name("agent.db-wal").write_bytes(b"")
    aside = set_aside(path, utc_now())
    path.with_name("agent.db.new").write_bytes(b"half a store")
    if log_is_gone:
        path.with_name("agent.db-wal").unlink()
    async with opened(path) as store:
        assert (await store.run(owed)).keys() == ALL_OWED - {("night-8", 0, ROWS)}
    assert broken_ones(tmp_path) == [aside.name]


async def test_of_broken_stores_that_were_read_to_the_end_the_newest_two_are_kept(tmp_path: Path) -> None:
    """A free page is nothing that anybody waits for."""
    path = tmp_path / "agent.db"
    now_s = [NOW]
    for start in range(4):
        async with Store.open(path, max_bytes=MAX_BYTES, wall=lambda: now_s[0]) as store:
            assert (await store.run(owed)).keys() == ({("kept", 0, ROWS)} if start else set())
            if not start:
                await store.run(lambda ledger: ledger.accept(offer("kept", body=task_body("kept"))))
                await store.run(
                    lambda ledger: ledger.emit("kept", 1, 0, ROWS, result_body("kept"), final=True)
                )
            await store.run(lambda ledger: ledger.notes.write("passing", b"\x5a" * 40_000))
            await store.run(lambda ledger: ledger.notes.write("passing", b""))
        break_free_list(path)
        now_s[0] += 60
    async with Store.open(path, max_bytes=MAX_BYTES, wall=lambda: now_s[0]) as store:
        assert "everything that the fleet waits for" in store.salvage
    names = broken_ones(tmp_path)
    assert len(names) == 2
    assert not any(name.endswith("-unread") for name in names)


def break_free_list(path: Path) -> None:
    """File format, section 1.3: the first trunk page of the free list stands at offset 32."""
    with path.open("r+b") as file:
        file.seek(32)
        file.write((2**31).to_bytes(4, "big"))


async def test_a_disk_that_breaks_every_store_is_a_case_for_a_person(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    now_s = [NOW]
    for _ in range(5):
        async with Store.open(path, max_bytes=MAX_BYTES, wall=lambda: now_s[0]):
            pass
        overwrite(path, [0])
        now_s[0] += 60
    before = path.read_bytes()
    with pytest.raises(StoreUnusable, match="4 broken ones lie beside it already"):
        Store.open(path, max_bytes=MAX_BYTES, wall=lambda: now_s[0])
    assert path.read_bytes() == before


async def test_the_store_says_so_until_the_broken_one_is_taken_away(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    await worked(path, NAMES)
    overwrite(path, [last_page_of(path, result_body("night-8"))])
    async with opened(path) as store:
        said = store.salvage
    async with opened(path) as store:
        assert store.salvage == said
    for file in tmp_path.glob("*.corrupt-*"):
        file.unlink()
    async with opened(path) as store:
        assert store.salvage == ""
