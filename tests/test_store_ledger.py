"""What the car took over, what it did and what it still owes."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from offers import BODY, NOW, offer

from agent.protocol.messages import TaskState
from agent.protocol.reasons import Reason
from agent.store import Ledger, Outcome, RowsRefused, TaskEnded, UnknownTask
from agent.store.database import connect

DAY_S = 86_400


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with closing(connect(tmp_path / "agent.db", 50_000_000)) as connection:
        yield Ledger(connection)


def answer(ledger: Ledger, task_id: str, attempt: int = 1, rows: tuple[int, int] = (0, 8)) -> int:
    return ledger.emit(task_id, attempt, *rows, b"labels", final=True)


def owed(ledger: Ledger) -> list[tuple[str, int, int, int]]:
    return [(row.id, row.attempt, row.row_from, row.row_to) for row in ledger.unsettled(0, 100)]


def test_a_new_task_is_taken_over_with_its_bytes(ledger: Ledger) -> None:
    acceptance = ledger.accept(offer("night-1", body=b"line\n\x00\xff"))
    assert acceptance.outcome is Outcome.NEW
    assert acceptance.task.state is TaskState.ACCEPTED
    assert ledger.open_tasks() == [acceptance.task]
    assert ledger.body("night-1", 1) == b"line\n\x00\xff"


def test_a_repeated_task_is_answered_with_its_present_state_and_runs_once(ledger: Ledger) -> None:
    ledger.accept(offer())
    ledger.set_state("night-1", 1, TaskState.PREEMPTED, Reason.OWNER_PRESENT, "a door is open", at=NOW + 9)
    again = ledger.accept(offer())
    assert again.outcome is Outcome.REPEAT
    assert (again.task.state, again.task.reason_code) == (TaskState.PREEMPTED, 1001)
    assert (again.task.reason_text, again.task.state_at) == ("a door is open", NOW + 9)
    assert len(ledger.open_tasks()) == 1


def test_other_bytes_under_a_known_identity_are_a_conflict(ledger: Ledger) -> None:
    ledger.accept(offer())
    assert ledger.accept(offer(body=b"forged")).outcome is Outcome.CONFLICT
    assert ledger.body("night-1", 1) == BODY


def test_an_older_attempt_is_stale_also_when_it_was_never_seen(ledger: Ledger) -> None:
    ledger.accept(offer(attempt=3))
    stale = ledger.accept(offer(attempt=2))
    assert (stale.outcome, stale.task.attempt) == (Outcome.STALE, 3)
    assert ledger.task("night-1", 2) is None


def test_a_newer_attempt_ends_the_open_one_in_the_same_breath(ledger: Ledger) -> None:
    ledger.accept(offer(attempt=1))
    ledger.commit_rows("night-1", 1, 0, 2, outputs=b"o", usage=b"u")
    acceptance = ledger.accept(offer(attempt=2, rows=(2, 8)))
    assert acceptance.outcome is Outcome.SUPERSEDES
    assert acceptance.superseded == ledger.task("night-1", 1)
    assert [row.attempt for row in ledger.open_tasks()] == [2]
    assert [(row.attempt, row.state) for row in ledger.untold()] == [(1, TaskState.SUPERSEDED)]
    assert ledger.missing("night-1", 2) == [(2, 8)]


def test_a_newer_attempt_of_an_ended_task_is_simply_new(ledger: Ledger) -> None:
    ledger.accept(offer(attempt=1))
    ledger.set_state("night-1", 1, TaskState.RELEASED, Reason.DRAINING, at=NOW)
    acceptance = ledger.accept(offer(attempt=2))
    assert (acceptance.outcome, acceptance.superseded) == (Outcome.NEW, None)


def test_work_is_ordered_by_priority_then_deadline_then_arrival(ledger: Ledger) -> None:
    ledger.accept(offer("late", expires_at=NOW + 900))
    ledger.accept(offer("soon", expires_at=NOW + 60))
    ledger.accept(offer("soon-too", expires_at=NOW + 60))
    ledger.accept(offer("urgent", priority=10, expires_at=NOW + 9_000))
    ledger.set_state("late", 1, TaskState.RUNNING, at=NOW)
    assert [row.id for row in ledger.open_tasks()] == ["urgent", "soon", "soon-too", "late"]


def test_an_end_is_said_until_the_broker_has_it(ledger: Ledger) -> None:
    ledger.accept(offer())
    ledger.set_state("night-1", 1, TaskState.FAILED, Reason.INFERENCE_FAILED, "NaN", at=NOW + 1)
    (row,) = ledger.untold()
    assert (row.id, row.state, row.reason_code) == ("night-1", TaskState.FAILED, Reason.INFERENCE_FAILED)
    ledger.told("night-1", 1)
    assert ledger.untold() == []


def test_the_end_that_is_said_again_counts_the_rows_that_were_answered(ledger: Ledger) -> None:
    ledger.accept(offer())
    ledger.emit("night-1", 1, 0, 3, b"r", final=False)
    ledger.settle([("night-1", 1, 0, 3)])
    ledger.commit_rows("night-1", 1, 3, 4, outputs=b"o", usage=b"u")
    ledger.set_state("night-1", 1, TaskState.CANCELLED, Reason.CANCELLED, at=NOW)
    assert [row.rows_answered for row in ledger.untold()] == [3]


def test_the_first_end_of_a_task_stays(ledger: Ledger) -> None:
    ledger.accept(offer())
    ledger.set_state("night-1", 1, TaskState.CANCELLED, Reason.CANCELLED, at=NOW)
    with pytest.raises(TaskEnded, match="night-1 attempt 1 has ended: cancelled"):
        ledger.set_state("night-1", 1, TaskState.FAILED, Reason.INFERENCE_FAILED, at=NOW)
    with pytest.raises(TaskEnded):
        ledger.commit_rows("night-1", 1, 0, 1, outputs=b"", usage=b"")
    with pytest.raises(TaskEnded):
        ledger.emit("night-1", 1, 0, 8, b"", final=True)
    with pytest.raises(TaskEnded):
        ledger.body("night-1", 1)


@pytest.mark.parametrize("state", [TaskState.DONE, TaskState.RELEASED])
def test_an_ended_task_leaves_its_identity_and_what_is_owed(ledger: Ledger, state: TaskState) -> None:
    ledger.accept(offer())
    ledger.emit("night-1", 1, 0, 2, b"r", final=False)
    ledger.emit("night-1", 1, 2, 4, b"r", final=False)
    ledger.settle([("night-1", 1, 0, 2)])
    ledger.commit_rows("night-1", 1, 4, 6, outputs=b"o", usage=b"u")
    if state is TaskState.DONE:
        ledger.emit("night-1", 1, 4, 8, b"r", final=True)
    else:
        ledger.set_state("night-1", 1, state, Reason.DRAINING, at=NOW)
    tables = ("tasks", "bodies", "rows", "results")
    left = [ledger.connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in tables]  # noqa: S608 - our own names
    assert left == [1, 0, 0, len(owed(ledger))]


def test_nothing_is_recorded_for_a_task_that_is_not_known(ledger: Ledger) -> None:
    with pytest.raises(UnknownTask, match="task ghost attempt 4 is not known"):
        ledger.set_state("ghost", 4, TaskState.RUNNING, at=NOW)
    ledger.told("ghost", 4)
    assert ledger.task("ghost", 4) is None


def test_done_is_only_ever_said_by_the_final_result(ledger: Ledger) -> None:
    ledger.accept(offer())
    with pytest.raises(ValueError, match="by its final result"):
        ledger.set_state("night-1", 1, TaskState.DONE, at=NOW)


def test_committed_rows_survive_the_owner_and_only_the_rest_is_computed(ledger: Ledger) -> None:
    ledger.accept(offer(rows=(2, 10)))
    ledger.emit("night-1", 1, 3, 4, b"r", final=False)
    ledger.commit_rows("night-1", 1, 2, 3, outputs=b"ab", usage=b"{}")
    ledger.commit_rows("night-1", 1, 6, 7, outputs=b"c", usage=b"{}")
    ledger.set_state("night-1", 1, TaskState.PREEMPTED, Reason.OWNER_PRESENT, at=NOW)
    assert ledger.rows_done("night-1", 1) == [(2, 4), (6, 7)]  # what touches is one range
    assert ledger.missing("night-1", 1) == [(4, 6), (7, 10)]
    assert [(row.row_from, row.row_to, row.outputs) for row in ledger.pending_rows("night-1", 1)] == [
        (2, 3, b"ab"),
        (6, 7, b"c"),
    ]


@pytest.mark.parametrize("rows", [(0, 1), (1, 3), (2, 3), (0, 8)])
def test_rows_are_never_committed_twice(ledger: Ledger, rows: tuple[int, int]) -> None:
    ledger.accept(offer())
    ledger.emit("night-1", 1, 0, 2, b"r", final=False)
    ledger.settle([("night-1", 1, 0, 2)])
    ledger.commit_rows("night-1", 1, 2, 4, outputs=b"o", usage=b"u")
    with pytest.raises(RowsRefused, match="overlap"):
        ledger.commit_rows("night-1", 1, *rows, outputs=b"o", usage=b"u")


@pytest.mark.parametrize("rows", [(1, 3), (7, 9), (4, 4), (5, 4)])
def test_rows_outside_the_task_are_refused(ledger: Ledger, rows: tuple[int, int]) -> None:
    ledger.accept(offer(rows=(2, 8)))
    with pytest.raises(RowsRefused, match="not within"):
        ledger.commit_rows("night-1", 1, *rows, outputs=b"", usage=b"")
    with pytest.raises(RowsRefused, match="not within"):
        ledger.emit("night-1", 1, *rows, b"", final=False)


def test_a_short_task_goes_straight_to_the_outbox_and_is_done(ledger: Ledger) -> None:
    ledger.accept(offer())
    key = answer(ledger, "night-1")
    row = ledger.task("night-1", 1)
    assert row is not None
    assert (row.state, row.rows_answered, row.told) == (TaskState.DONE, 8, True)
    assert ledger.open_tasks() == []
    assert [(result.key, result.size_bytes) for result in ledger.unsettled(0, 10)] == [(key, 6)]
    assert ledger.result_body(key) == b"labels"


def test_a_result_takes_the_place_of_the_pending_rows_it_covers(ledger: Ledger) -> None:
    ledger.accept(offer())
    for row in range(4):
        ledger.commit_rows("night-1", 1, row, row + 1, outputs=b"o", usage=b"u")
    ledger.emit("night-1", 1, 0, 3, b"r", final=False)
    assert [row.row_from for row in ledger.pending_rows("night-1", 1)] == [3]
    assert ledger.missing("night-1", 1) == [(4, 8)]


def test_rows_that_were_committed_together_can_leave_in_two_results(ledger: Ledger) -> None:
    """A batch can be larger than a message."""
    ledger.accept(offer())
    ledger.commit_rows("night-1", 1, 0, 8, outputs=b"labels", usage=b"{}")
    ledger.emit("night-1", 1, 0, 5, b"labels", final=False)
    assert ledger.missing("night-1", 1) == [(5, 8)], "what an agent that dies here has to compute again"
    ledger.emit("night-1", 1, 5, 8, b"labels", final=True)
    assert owed(ledger) == [("night-1", 1, 0, 5), ("night-1", 1, 5, 8)]


def test_a_final_result_answers_every_row(ledger: Ledger) -> None:
    ledger.accept(offer())
    ledger.emit("night-1", 1, 0, 2, b"r", final=False)
    ledger.commit_rows("night-1", 1, 2, 4, outputs=b"o", usage=b"u")
    with pytest.raises(RowsRefused, match=r"final=True, but with \(4, 8\) it has 6 of 8 answered"):
        ledger.emit("night-1", 1, 4, 8, b"r", final=True)


def test_the_result_that_answers_the_last_row_is_the_final_one(ledger: Ledger) -> None:
    ledger.accept(offer())
    with pytest.raises(RowsRefused, match="8 of 8 answered"):
        ledger.emit("night-1", 1, 0, 8, b"r", final=False)


def test_results_are_published_in_the_order_they_were_made_a_page_at_a_time(ledger: Ledger) -> None:
    for task_id in "abcde":
        ledger.accept(offer(task_id))
        answer(ledger, task_id)
    first = ledger.unsettled(0, 2)
    rest = ledger.unsettled(first[-1].key, 10)
    assert [result.id for result in (*first, *rest)] == list("abcde")


def test_a_page_never_skips_a_result_that_was_made_after_its_place_was_settled(ledger: Ledger) -> None:
    ledger.accept(offer("a"))
    held = answer(ledger, "a")
    ledger.settle([("a", 1, 0, 8)])
    ledger.accept(offer("b"))
    answer(ledger, "b")
    assert [result.id for result in ledger.unsettled(held, 10)] == ["b"]


def test_settling_forgets_what_the_fleet_has_and_nothing_else(ledger: Ledger) -> None:
    for task_id in "ab":
        ledger.accept(offer(task_id))
        answer(ledger, task_id)
    (key, *_) = [result.key for result in ledger.unsettled(0, 1)]
    confirmed = [("a", 1, 0, 8), ("a", 2, 0, 8), ("b", 1, 0, 7), ("ghost", 1, 0, 8)]
    assert ledger.settle(confirmed) == 1
    assert ledger.settle(confirmed) == 0
    assert owed(ledger) == [("b", 1, 0, 8)]
    assert ledger.result_body(key) is None


def test_rows_that_the_fleet_confirmed_early_are_not_computed_again(ledger: Ledger) -> None:
    ledger.accept(offer())
    key = ledger.emit("night-1", 1, 0, 2, b"r", final=False)
    assert ledger.settle([("night-1", 1, 0, 2)]) == 1
    assert ledger.settle([("night-1", 1, 0, 2)]) == 0
    assert ledger.missing("night-1", 1) == [(2, 8)]
    assert owed(ledger) == []
    assert ledger.result_body(key) is None
    answer(ledger, "night-1", rows=(2, 8))
    assert owed(ledger) == [("night-1", 1, 2, 8)]


def test_results_of_a_superseded_attempt_are_owed_until_they_are_settled(ledger: Ledger) -> None:
    ledger.accept(offer(attempt=1))
    ledger.emit("night-1", 1, 0, 2, b"r", final=False)
    ledger.accept(offer(attempt=2))
    assert owed(ledger) == [("night-1", 1, 0, 2)]
    ledger.settle([("night-1", 1, 0, 2)])
    assert owed(ledger) == []


def test_the_time_floor_only_ever_rises(ledger: Ledger) -> None:
    assert ledger.facts.time_floor() == 0
    ledger.facts.raise_time_floor(NOW)
    ledger.facts.raise_time_floor(NOW - 1)
    assert ledger.facts.time_floor() == NOW


def test_of_drain_and_resume_the_newest_holds_in_whatever_order_they_come(ledger: Ledger) -> None:
    assert not ledger.facts.draining()
    assert ledger.facts.drain("drain", NOW)
    assert not ledger.facts.drain("resume", NOW + 2)
    assert not ledger.facts.drain("drain", NOW + 1)
    assert ledger.facts.drain("drain", NOW + 3)
    assert ledger.facts.drain("resume", NOW + 3)
    assert ledger.facts.draining()


def test_an_ended_task_is_forgotten_a_day_after_it_expired(ledger: Ledger) -> None:
    ledger.accept(offer(expires_at=NOW))
    answer(ledger, "night-1")
    ledger.settle([("night-1", 1, 0, 8)])
    assert ledger.prune(NOW + DAY_S) == 0
    assert ledger.accept(offer()).outcome is Outcome.REPEAT
    assert ledger.prune(NOW + DAY_S + 1) == 1
    assert ledger.task("night-1", 1) is None


def test_what_is_owed_is_never_forgotten(ledger: Ledger) -> None:
    for task_id in ("open", "unsettled", "untold"):
        ledger.accept(offer(task_id, expires_at=NOW))
    answer(ledger, "unsettled")
    ledger.set_state("untold", 1, TaskState.EXPIRED, Reason.EXPIRED, at=NOW)
    assert ledger.prune(NOW + 10 * DAY_S) == 0


def test_forgetting_goes_in_small_steps(ledger: Ledger) -> None:
    for number in range(5):
        ledger.accept(offer(f"night-{number}", expires_at=NOW))
        answer(ledger, f"night-{number}")
        ledger.settle([(f"night-{number}", 1, 0, 8)])
    assert [ledger.prune(NOW + 1, keep_s=0, limit=3) for _ in range(3)] == [3, 2, 0]


def test_the_status_counts_what_is_open_and_owed(ledger: Ledger) -> None:
    ledger.accept(offer("a"))
    ledger.accept(offer("b"))
    ledger.emit("a", 1, 0, 2, b"12345", final=False)
    answer(ledger, "b")
    counts = ledger.counts()
    assert (counts.open_tasks, counts.unsettled_results, counts.unsettled_bytes) == (1, 2, 11)
    ledger.settle([("a", 1, 0, 2), ("b", 1, 0, 8)])
    assert (ledger.counts().unsettled_results, ledger.counts().unsettled_bytes) == (0, 0)
    assert counts.used_bytes % 4096 == 0
    assert counts.used_bytes > 0
