"""The dispatcher's queue on disk: any history of it against a model in memory, and files that are no queue."""

import asyncio
import datetime as dt
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pytest
from fake_vehicle import MODEL, numbers, read_numbers
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from agent.protocol.messages import Datatype, EnergySource, Task, Usage
from agent.protocol.reasons import Reason
from fleet.answer import Output, Rows
from fleet.queue_file import APPLICATION_ID, QueueUnusable
from fleet.queue_ledger import KEEP_ENDED_S, Ledger
from fleet.queue_records import Added, Kept, Sent
from fleet.task_queue import QueueFailed, TaskQueue
from fleet.work import Work

T = TypeVar("T")
ROWS = 6
AT = 1_795_310_400.0
EXPIRES_AT = AT + 300
USAGE = Usage(0.1, 0.1, None, EnergySource.NONE, None, "fake", "fake0")
EPOCH = dt.datetime.fromtimestamp(0, dt.UTC)
task_ids = st.sampled_from([f"night-{number}" for number in range(6)])
cars = st.sampled_from(["veh-a", "veh-b"])
ranges = st.tuples(st.integers(0, ROWS - 1), st.integers(1, ROWS)).filter(lambda rows: rows[0] < rows[1])


def task(task_id: str, first: int = 0) -> tuple[Task, bytes]:
    """Rows of the numbers from `first` on."""
    work = Work(MODEL, [numbers(range(first, first + ROWS))])
    message = work.task(task_id, 1, "any", issued_at=EPOCH, expires_at=EPOCH)
    return message, b"".join(work.tails())


def answered(begin: int, end: int, attempt: int, name: str = "y") -> Rows:
    _, data = task("any", begin)
    return Rows(begin, end, attempt, {name: Output(Datatype.INT32, (1,), data[: 4 * (end - begin)])}, USAGE)


def add(ledger: Ledger, task_id: str, first: int = 0) -> Added:
    return ledger.add(*task(task_id, first), (0, ROWS), EXPIRES_AT)


def begin(ledger: Ledger, task_id: str, vehicle: str) -> Sent | None:
    made = ledger.begin(task_id, vehicle, "BR", issued_at=AT)
    return made.sent if made else None


@dataclass
class Known:
    """What a task should look like."""

    first: int
    sent: list[str] = field(default_factory=list)
    out: set[int] = field(default_factory=set)
    rows: set[int] = field(default_factory=set)
    state: str = "open"


class Histories(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self.folder = Path(tempfile.mkdtemp(prefix="queues-"))
        self.opened = 0
        self.known: dict[str, Known] = {}
        self.ended: list[str] = []
        self.open(self.folder / "0" / "queue.db")

    def open(self, path: Path) -> None:
        path.parent.mkdir(exist_ok=True)
        self.path = path
        self.opened += 1
        self.queue = TaskQueue.open(path)

    def do(self, step: Callable[[Ledger], T]) -> T:
        async def doing() -> T:
            return await self.queue.run(step)

        return self.runner.run(doing())

    def teardown(self) -> None:
        self.runner.run(self.queue.close())
        self.runner.close()
        shutil.rmtree(self.folder)

    @rule(task_id=task_ids, first=st.sampled_from([0, 7]))
    def add(self, task_id: str, first: int) -> None:
        added = self.do(lambda ledger: add(ledger, task_id, first))
        before = self.known.setdefault(task_id, Known(first))
        if added is Added.NEW:
            assert before.sent == []
            assert before.state == "open"
        else:
            assert added is (Added.REPEAT if before.first == first else Added.CONFLICT)

    @rule(task_id=task_ids, vehicle=cars)
    def begin(self, task_id: str, vehicle: str) -> None:
        made = self.do(lambda ledger: ledger.begin(task_id, vehicle, "BR", issued_at=AT))
        known = self.known.get(task_id)
        if known is None or known.state != "open":
            assert made is None
            return
        known.sent.append(vehicle)
        known.out.add(len(known.sent))
        assert made is not None
        assert made.sent == Sent(task_id, len(known.sent), vehicle, "BR")
        missing = sorted(set(range(ROWS)) - known.rows)
        assert (made.task.rows or (0, ROWS)) == (missing[0], missing[-1] + 1)
        again = self.do(lambda ledger: ledger.assignment(task_id, len(known.sent)))
        assert again.body == made.body, "a repeat is the same bytes"

    @rule(task_id=task_ids, vehicle=cars, attempt=st.integers(1, 2), rows=ranges, alike=st.integers(0, 9))
    def keep(self, task_id: str, vehicle: str, attempt: int, rows: tuple[int, int], alike: int) -> None:
        """A result comes, of an attempt that was made at this vehicle or not."""
        known = self.known.get(task_id)
        first = known is None or not known.rows  # says what the others have to be like
        name = "y" if alike or first else "z"
        kept = self.do(lambda ledger: ledger.keep(task_id, vehicle, answered(*rows, attempt, name), AT))
        made_there = known is not None and known.sent[attempt - 1 : attempt] == [vehicle]
        if known is None or known.state != "open" or not made_there:
            assert kept is Kept.UNWANTED
            return
        if name == "z":
            self.end_of(task_id, "failed")
            assert kept is Kept.ENDED
            return
        new = set(range(*rows)) - known.rows
        known.rows |= new
        if len(known.rows) == ROWS:
            self.end_of(task_id, "done")
        expected = Kept.TAKEN if new else Kept.UNWANTED
        assert kept is (Kept.ENDED if known.state == "done" else expected)

    @rule(task_id=task_ids, vehicle=cars, parts=st.lists(ranges, min_size=1, max_size=6))
    def work(self, task_id: str, vehicle: str, parts: list[tuple[int, int]]) -> None:
        """As it goes most of the time: a new attempt, and results of it that may overlap."""
        if task_id not in self.known:
            self.add(task_id, 0)
        self.begin(task_id, vehicle)
        for rows in parts:
            self.keep(task_id, vehicle, max(1, len(self.known[task_id].sent)), rows, 1)
            self.do(self.compare)

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        task_id = data.draw(st.sampled_from(sorted(self.known)))
        ended = self.do(lambda ledger: ledger.end(task_id, Reason.CANCELLED, "by the fleet", AT))
        assert ended is (self.known[task_id].state == "open")
        if ended:
            self.end_of(task_id, "failed")

    @precondition(lambda self: self.known)
    @rule(data=st.data(), attempt=st.integers(1, 3))
    def over(self, data: st.DataObject, attempt: int) -> None:
        task_id = data.draw(st.sampled_from(sorted(self.known)))
        self.do(lambda ledger: ledger.over(task_id, attempt, None))
        self.known[task_id].out.discard(attempt)

    @precondition(lambda self: self.ended)
    @rule(data=st.data())
    def take(self, data: st.DataObject) -> None:
        task_id = data.draw(st.sampled_from(self.ended))
        assert self.do(lambda ledger: ledger.taken(task_id, AT))
        assert not self.do(lambda ledger: ledger.taken(task_id, AT)), "once"
        self.known[task_id].state = "taken"
        self.ended.remove(task_id)

    @rule()
    def restart(self) -> None:
        self.runner.run(self.queue.close())
        self.open(self.path)

    @rule()
    def power_cut(self) -> None:
        """The files as they lie on the disk now are all that the next start finds."""
        copy = self.folder / str(self.opened) / "queue.db"
        copy.parent.mkdir()
        for name in ("queue.db", "queue.db-wal"):
            if self.path.with_name(name).exists():
                shutil.copyfile(self.path.with_name(name), copy.with_name(name))
        self.runner.run(self.queue.close())
        self.open(copy)

    def end_of(self, task_id: str, state: str) -> None:
        self.known[task_id].state = state
        self.ended.append(task_id)

    @invariant()
    def the_queue_says_what_the_model_says(self) -> None:
        self.do(self.compare)

    def compare(self, ledger: Ledger) -> None:
        still_open = {found.task.id: (found, out) for found, out in ledger.left()}
        assert set(still_open) == {name for name, known in self.known.items() if known.state == "open"}
        for task_id, (found, out) in still_open.items():
            known = self.known[task_id]
            assert found.rows_missing == ROWS - len(known.rows)
            newest = len(known.sent)
            expected = Sent(task_id, newest, known.sent[-1], "BR") if newest in known.out else None
            assert (out and out.sent) == expected
            assert found.out == (newest if expected else None)
        assert set(ledger.untaken()) == set(self.ended)
        for task_id in self.ended:
            finished = ledger.finished(task_id)
            assert finished is not None
            assert (finished.failure is None) is (self.known[task_id].state == "done")
            values = [value for rows in finished.rows for value in read_numbers(rows.outputs["y"].data)]
            if finished.failure is None:
                assert values == list(range(ROWS)), "every row once, in order"
            else:
                assert values == sorted(self.known[task_id].rows)
        left_over = {(name, sent.number) for name in ledger.left_over() for sent in ledger.left_over_of(name)}
        assert left_over == {
            (name, number)
            for name, known in self.known.items()
            for number in known.out
            if known.state != "open"
        }


def test_no_history_loses_a_task_or_has_a_row_twice() -> None:
    run_state_machine_as_test(
        Histories, settings=settings(max_examples=60, stateful_step_count=30, deadline=None, database=None)
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "queue.db"


async def test_tasks_are_handed_out_in_the_order_in_which_they_ended(path: Path) -> None:
    async with TaskQueue.open(path) as queue:
        for at, task_id in enumerate(["first", "second", "third"]):
            await queue.run(lambda ledger, task_id=task_id: add(ledger, task_id))  # type: ignore[misc]  # bound now
            await queue.run(
                lambda ledger, task_id=task_id, at=at: ledger.end(  # type: ignore[misc]  # as above
                    task_id, Reason.CANCELLED, "", AT - at
                )
            )
        assert await queue.run(Ledger.untaken) == ["third", "second", "first"]


async def test_a_taken_task_is_remembered_for_as_long_as_vehicles_remember_it(path: Path) -> None:
    def life(ledger: Ledger, task_id: str, now_at: float) -> Added:
        added = add(ledger, task_id)
        begin(ledger, task_id, "veh-a")
        ledger.end(task_id, Reason.CANCELLED, "", now_at)
        ledger.taken(task_id, now_at)
        return added

    async with TaskQueue.open(path) as queue:
        assert await queue.run(lambda ledger: life(ledger, "night-1", AT)) is Added.NEW
        late = EXPIRES_AT + KEEP_ENDED_S
        assert await queue.run(lambda ledger: life(ledger, "night-2", late)) is Added.NEW
        assert await queue.run(lambda ledger: life(ledger, "night-1", late)) is Added.REPEAT
        assert await queue.run(lambda ledger: life(ledger, "night-3", late + 1)) is Added.NEW
        assert await queue.run(lambda ledger: life(ledger, "night-1", late + 1)) is Added.NEW


async def test_rows_of_an_attempt_that_was_not_made_at_this_vehicle_are_not_taken(path: Path) -> None:
    async with TaskQueue.open(path) as queue:
        await queue.run(lambda ledger: add(ledger, "night-1"))
        await queue.run(lambda ledger: begin(ledger, "night-1", "veh-a"))
        whole = answered(0, ROWS, 1)
        assert await queue.run(lambda ledger: ledger.keep("night-1", "veh-b", whole, AT)) is Kept.UNWANTED
        later = answered(0, ROWS, 2)
        assert await queue.run(lambda ledger: ledger.keep("night-1", "veh-a", later, AT)) is Kept.UNWANTED
        assert await queue.run(lambda ledger: ledger.keep("night-1", "veh-a", whole, AT)) is Kept.ENDED


async def test_rows_beyond_those_that_were_asked_for_end_the_task(path: Path) -> None:
    async with TaskQueue.open(path) as queue:
        await queue.run(lambda ledger: add(ledger, "night-1"))
        await queue.run(lambda ledger: begin(ledger, "night-1", "veh-a"))
        rows = answered(ROWS, ROWS + 1, 1)
        assert await queue.run(lambda ledger: ledger.keep("night-1", "veh-a", rows, AT)) is Kept.ENDED
        finished = await queue.run(lambda ledger: ledger.finished("night-1"))
        assert finished is not None
        assert "102 bad_tensor: rows [6, 7) were not asked for" in str(finished.failure)


async def test_a_second_dispatcher_on_a_queue_is_refused(path: Path) -> None:
    async with TaskQueue.open(path):
        with pytest.raises(QueueUnusable, match=r"queue .*queue.db: in use by process \d+; stop that"):
            TaskQueue.open(path)
    await TaskQueue.open(path).close()


def foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE photos (name)")


def newer(path: Path) -> None:
    asyncio.run(opened_and_closed(path))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")


async def opened_and_closed(path: Path) -> None:
    async with TaskQueue.open(path):
        pass


def damaged(path: Path) -> None:
    asyncio.run(opened_and_closed(path))
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 3000)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (foreign, "another application's database, its id is 0x00000000"),
        (newer, "schema version 99 is newer than 1"),
        (lambda path: path.write_bytes(b"hello"), "not a database, it begins with b'hello'"),
        (lambda path: path.with_name("queue.db-wal").write_bytes(b"log"), "empty, but queue.db-wal holds 3"),
        (damaged, "SQLITE_CORRUPT"),
        (lambda path: path.mkdir(), "Is a directory"),
    ],
)
def test_a_file_that_is_no_queue_is_left_as_it_is(
    path: Path, spoil: Callable[[Path], object], words: str
) -> None:
    spoil(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(QueueUnusable, match=r"queue .*queue.db: .*; ") as caught:
        TaskQueue.open(path)
    assert words in str(caught.value)
    assert (path.read_bytes() if path.is_file() else None) == before


async def test_a_folder_that_is_not_there_is_one_line(path: Path) -> None:
    with pytest.raises(QueueUnusable, match="No such file or directory; name a file in a folder"):
        TaskQueue.open(path.parent / "nowhere" / "queue.db")


async def test_a_step_that_cannot_be_written_ends_the_queue(path: Path) -> None:
    """What was committed before stands; nothing is answered as if it were safe."""

    async with TaskQueue.open(path) as queue:
        await queue.run(lambda ledger: add(ledger, "kept"))
        await queue.run(lambda ledger: ledger._execute("PRAGMA max_page_count = 1"))
        full = [queue.run(lambda ledger, n=n: add(ledger, f"lost-{n}")) for n in range(100)]  # type: ignore[misc]  # bound now
        results = await asyncio.gather(*full, return_exceptions=True)
        assert isinstance(results[-1], QueueFailed)
        assert "database or disk is full" in str(results[-1])
        with pytest.raises(QueueFailed, match="the queue has failed: database or disk is full"):
            await queue.run(Ledger.untaken)
        durable = sum(result is Added.NEW for result in results)
    async with TaskQueue.open(path) as queue:
        assert len(await queue.run(Ledger.left)) == 1 + durable


async def test_the_file_is_marked_as_a_queue_and_private(path: Path) -> None:
    await opened_and_closed(path)
    assert int.from_bytes(path.read_bytes()[68:72]) == APPLICATION_ID
    assert path.stat().st_mode & 0o777 == 0o600
