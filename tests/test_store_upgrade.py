"""Stores of every schema that ever was, as the agent of that time has written them (old_stores/schema-N.sql).

Each holds the same night: `answered` waits for the fleet's word, `failed` is not told yet, `half` was preempted with four
rows sent and two more committed, `accepted` has not begun, and of `confirmed` the fleet has the first four rows.
"""

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from agent.protocol import framing
from agent.protocol.messages import TaskState
from agent.protocol.reasons import Reason
from agent.store import Ledger, Store
from agent.store.schema import MIGRATIONS

FOLDER = Path(__file__).parent / "old_stores"
MAX_BYTES = 50_000_000
NEWEST = len(MIGRATIONS)
OLDER = range(1, NEWEST)


def laid(path: Path, version: int) -> Path:
    """Put the store of that schema at `path`."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((FOLDER / f"schema-{version}.sql").read_text())
        connection.execute("PRAGMA journal_mode = WAL")
    return path


def schema_of(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def task_body(name: str) -> bytes:
    return hashlib.shake_256(name.encode()).digest(120)


def unsettled(ledger: Ledger) -> Iterator[tuple[str, tuple[int, int], bytes]]:
    """Task, rows and tensor of each result, from the bytes that would be sent."""
    for kept in ledger.unsettled(0, 100):
        result, tail = framing.decode_result(ledger.result_body(kept.key) or b"")
        assert (kept.id, (kept.row_from, kept.row_to)) == (result.id, result.rows)
        yield result.id, result.rows, bytes(tail)


def tensor(name: str, rows: tuple[int, int]) -> bytes:
    return hashlib.shake_256(f"{name} {rows}".encode()).digest(48)


def test_every_schema_that_ever_was_is_tried_here() -> None:
    found = {file.name for file in FOLDER.glob("*.sql")}
    assert found >= {f"schema-{version}.sql" for version in OLDER}, "dump a store of the last schema, too"


@pytest.mark.parametrize("version", OLDER)
async def test_an_upgrade_keeps_everything_that_is_owed(tmp_path: Path, version: int) -> None:
    path = laid(tmp_path / "agent.db", version)
    assert schema_of(path) == version
    async with Store.open(path, max_bytes=MAX_BYTES) as store:
        assert (store.boot, store.salvage) == (3, ""), "the start after its second, and nothing was broken"
        await store.run(look_for_the_night)
        await store.run(end_the_night)
    assert schema_of(path) == NEWEST


def look_for_the_night(ledger: Ledger) -> None:
    assert list(unsettled(ledger)) == [
        ("answered", (0, 8), tensor("answered", (0, 8))),
        ("half", (0, 4), tensor("half", (0, 4))),
    ]
    (failed,) = ledger.untold()
    assert (failed.id, failed.state) == ("failed", TaskState.FAILED)
    assert (failed.reason_code, failed.reason_text) == (Reason.INFERENCE_FAILED, "no")
    assert {task.id: task.state for task in ledger.open_tasks()} == {
        "half": TaskState.PREEMPTED,
        "accepted": TaskState.ACCEPTED,
        "confirmed": TaskState.ACCEPTED,
    }
    for task in ledger.open_tasks():
        assert ledger.body(task.id, task.attempt) == task_body(task.id)
    assert [(rows.row_from, rows.row_to, rows.outputs) for rows in ledger.pending_rows("half", 1)] == [
        (4, 6, b"rows 4 and 5")
    ]
    assert ledger.missing("half", 1) == [(6, 8)]
    assert ledger.missing("confirmed", 1) == [(4, 8)]
    assert ledger.facts.draining()
    assert ledger.facts.time_floor() > 0


def end_the_night(ledger: Ledger) -> None:
    """What was begun by the old release is ended and confirmed under the new one."""
    for name, rows in (("half", (4, 8)), ("accepted", (0, 8)), ("confirmed", (4, 8))):
        ledger.emit(name, 1, *rows, f"the rest of {name}".encode(), final=True)
    ledger.told("failed", 1)
    owed = [(kept.id, kept.attempt, kept.row_from, kept.row_to) for kept in ledger.unsettled(0, 100)]
    assert len(owed) == 5
    assert ledger.settle(owed) == 5
    counts = ledger.counts()
    assert (counts.open_tasks, counts.unsettled_results, ledger.untold()) == (0, 0, [])


@pytest.mark.parametrize("version", [version for version in OLDER if version > 1])
async def test_the_orders_of_the_vehicle_os_and_the_notes_survive(tmp_path: Path, version: int) -> None:
    async with Store.open(laid(tmp_path / "agent.db", version), max_bytes=MAX_BYTES) as store:
        orders = await store.run(lambda ledger: ledger.facts.orders())
        note = await store.run(lambda ledger: ledger.notes.read("costs"))
    assert (orders.paused, orders.consent, note) == (True, False, b"known")


async def test_what_could_not_be_taken_stays_counted(tmp_path: Path) -> None:
    async with Store.open(laid(tmp_path / "agent.db", 3), max_bytes=MAX_BYTES) as store:
        counts = await store.run(lambda ledger: ledger.dead_letters.counts())
    assert counts == {Reason.MALFORMED: 1}
