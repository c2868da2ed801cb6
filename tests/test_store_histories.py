"""Random histories of tasks, rows, results, restarts and power cuts against a small model in memory."""

import asyncio
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from offers import NOW, offer

from agent.protocol.messages import TaskState
from agent.store import Ledger, Outcome, RowsRefused, Store, TaskEnded

T = TypeVar("T")
Range = tuple[int, int]
ROWS = 6
MAX_BYTES = 50_000_000

task_ids = st.sampled_from(["left", "right"])
ranges = st.tuples(st.integers(0, ROWS - 1), st.integers(1, ROWS)).filter(lambda rows: rows[0] < rows[1])
ends = st.sampled_from([TaskState.FAILED, TaskState.CANCELLED, TaskState.EXPIRED, TaskState.RELEASED])


@dataclass
class Attempt:
    """What a task should look like."""

    body: bytes
    state: TaskState = TaskState.ACCEPTED
    told: bool = True
    pending: set[Range] = field(default_factory=set)
    answered: set[Range] = field(default_factory=set)

    @property
    def done(self) -> set[int]:
        return {row for begin, end in self.pending | self.answered for row in range(begin, end)}

    def end(self, state: TaskState) -> None:
        self.state = state
        self.told = state is TaskState.DONE
        self.pending = set()


def overlap(one: Range, other: Range) -> bool:
    return one[0] < other[1] and other[0] < one[1]


def rows_of(parts: list[Range]) -> list[int]:
    return [row for begin, end in parts for row in range(begin, end)]


class Histories(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self.folder = Path(tempfile.mkdtemp(prefix="histories-"))
        self.tasks: dict[tuple[str, int], Attempt] = {}
        self.outbox: list[tuple[str, int, int, int]] = []
        self.boot = 0
        self.open(self.folder / "0" / "agent.db")

    def open(self, path: Path) -> None:
        path.parent.mkdir(exist_ok=True)
        self.path = path
        self.store = self.do_async(lambda: Store.open(path, max_bytes=MAX_BYTES))
        self.boot += 1
        assert self.store.boot == self.boot

    def do_async(self, act: Callable[[], T]) -> T:
        async def acting() -> T:
            return act()

        return self.runner.run(acting())

    def do(self, job: Callable[[Ledger], T]) -> T:
        async def doing() -> T:
            return await self.store.run(job)

        return self.runner.run(doing())

    def teardown(self) -> None:
        self.runner.run(self.store.close())
        self.runner.close()
        shutil.rmtree(self.folder)

    def newest(self, task_id: str) -> int:
        return max((attempt for known, attempt in self.tasks if known == task_id), default=0)

    @rule(task_id=task_ids, ahead=st.integers(-1, 2), body=st.sampled_from([b"one", b"two"]))
    def offer(self, task_id: str, ahead: int, body: bytes) -> None:
        newest = self.newest(task_id)
        attempt = max(1, newest + ahead)
        acceptance = self.do(lambda ledger: ledger.accept(offer(task_id, attempt, body=body, rows=(0, ROWS))))
        if attempt < newest:
            assert acceptance.outcome is Outcome.STALE
            return
        if attempt == newest:
            same = self.tasks[task_id, attempt].body == body
            assert acceptance.outcome is (Outcome.REPEAT if same else Outcome.CONFLICT)
            return
        before = self.tasks.get((task_id, newest))
        if before and before.state.is_open:
            assert acceptance.outcome is Outcome.SUPERSEDES
            before.end(TaskState.SUPERSEDED)
        else:
            assert acceptance.outcome is Outcome.NEW
        self.tasks[task_id, attempt] = Attempt(body)

    @precondition(lambda self: self.tasks)
    @rule(data=st.data(), rows=ranges)
    def commit(self, data: st.DataObject, rows: Range) -> None:
        key = data.draw(st.sampled_from(sorted(self.tasks)))
        task = self.tasks[key]
        wrong = any(overlap(rows, done) for done in task.pending | task.answered)
        if self.refused(
            task, wrong, lambda ledger: ledger.commit_rows(*key, *rows, outputs=b"o", usage=b"u")
        ):
            return
        task.pending.add(rows)

    @precondition(lambda self: self.tasks)
    @rule(data=st.data(), rows=ranges, final=st.booleans())
    def emit(self, data: st.DataObject, rows: Range, final: bool) -> None:
        key = data.draw(st.sampled_from(sorted(self.tasks)))
        task = self.tasks[key]
        covered = {part for part in task.pending if overlap(rows, part)}
        wrong = any(overlap(rows, done) for done in task.answered)
        whole = sum(end - begin for begin, end in {rows, *task.answered}) == ROWS
        if self.refused(
            task, wrong or final is not whole, lambda ledger: ledger.emit(*key, *rows, b"r", final=final)
        ):
            return
        task.pending -= covered
        task.answered.add(rows)
        self.outbox.append((*key, *rows))
        if final:
            task.end(TaskState.DONE)

    @precondition(lambda self: self.tasks)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        """As the executor does it: compute what is missing, answer what is pending, the last part as final."""
        key = data.draw(st.sampled_from(sorted(self.tasks)))
        task = self.tasks[key]
        if not task.state.is_open:
            return

        def finish(ledger: Ledger) -> list[Range]:
            for missing in ledger.missing(*key):
                ledger.commit_rows(*key, *missing, outputs=b"o", usage=b"u")
            parts = [(part.row_from, part.row_to) for part in ledger.pending_rows(*key)]
            for part in parts:
                ledger.emit(*key, *part, b"r", final=part == parts[-1])
            return parts

        parts = self.do(finish)
        task.answered.update(parts)
        self.outbox.extend((*key, *part) for part in parts)
        task.end(TaskState.DONE)

    @precondition(lambda self: self.tasks)
    @rule(data=st.data(), state=ends)
    def end(self, data: st.DataObject, state: TaskState) -> None:
        key = data.draw(st.sampled_from(sorted(self.tasks)))
        task = self.tasks[key]
        if not self.refused(task, False, lambda ledger: ledger.set_state(*key, state, 1012, "drain", at=NOW)):
            task.end(state)

    @precondition(lambda self: self.tasks)
    @rule(data=st.data())
    def tell(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.tasks)))
        self.do(lambda ledger: ledger.told(*key))
        self.tasks[key].told = True

    @precondition(lambda self: self.tasks)
    @rule(data=st.data(), stray=ranges)
    def settle(self, data: st.DataObject, stray: Range) -> None:
        key = data.draw(st.sampled_from(sorted(self.tasks)))
        some = data.draw(st.lists(st.sampled_from(self.outbox), unique=True)) if self.outbox else []
        confirmed = [*some, (*key, *stray)]
        owed = [result for result in self.outbox if result in confirmed]
        assert self.do(lambda ledger: ledger.settle(confirmed)) == len(owed)
        self.outbox = [result for result in self.outbox if result not in confirmed]

    @rule()
    def restart(self) -> None:
        self.runner.run(self.store.close())
        self.open(self.path)

    @rule()
    def power_cut(self) -> None:
        """The files as they lie on the disk now are all that the next start finds."""
        copy = self.folder / str(self.boot) / "agent.db"
        copy.parent.mkdir()
        for name in ("agent.db", "agent.db-wal"):
            shutil.copyfile(self.path.with_name(name), copy.with_name(name))
        self.runner.run(self.store.close())
        self.open(copy)

    def refused(self, task: Attempt, wrong: bool, job: Callable[[Ledger], object]) -> bool:
        """Whether the ledger refused the job; it does exactly when the model would."""
        try:
            self.do(job)
        except TaskEnded:
            assert not task.state.is_open
            return True
        except RowsRefused:
            assert wrong
            assert task.state.is_open
            return True
        assert task.state.is_open
        assert not wrong
        return False

    @invariant()
    def the_ledger_says_what_the_model_says(self) -> None:
        self.do(self.compare)

    def compare(self, ledger: Ledger) -> None:
        for key, expected in self.tasks.items():
            row = ledger.task(*key)
            assert row is not None
            assert (row.state, row.told) == (expected.state, expected.told)
            if not expected.state.is_open:
                assert row.rows_answered == len(rows_of(sorted(expected.answered)))
                continue
            done, missing = rows_of(ledger.rows_done(*key)), rows_of(ledger.missing(*key))
            assert sorted(done + missing) == list(range(ROWS))
            assert set(done) == expected.done
            pending = [(part.row_from, part.row_to) for part in ledger.pending_rows(*key)]
            assert pending == sorted(expected.pending)
        still_open = {(row.id, row.attempt) for row in ledger.open_tasks()}
        assert still_open == {key for key, task in self.tasks.items() if task.state.is_open}
        owed = [(row.id, row.attempt, row.row_from, row.row_to) for row in ledger.unsettled(0, 1_000)]
        assert owed == self.outbox
        assert ledger.counts().unsettled_results == len(self.outbox)
        for task in self.tasks.values():
            answered = rows_of(sorted(task.answered))
            assert len(answered) == len(set(answered))


def test_no_history_answers_a_row_twice_or_loses_one() -> None:
    run_state_machine_as_test(
        Histories, settings=settings(max_examples=40, stateful_step_count=30, deadline=None, database=None)
    )
