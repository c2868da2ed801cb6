import itertools

import pytest

from agent.guard import Cue
from agent.policy.condition import Cause
from agent.policy.verdict import Blocker, Verdict
from agent.preemption import Preemption, Preemptions
from agent.protocol.reasons import Reason

MS = 1_000_000
DOOR = Verdict(False, 0.0, (Blocker(Reason.OWNER_PRESENT, Cause.OWNER, True, None, 0),), None, ())


def first() -> int:
    return 12 * MS


def second() -> int:
    return 13 * MS


CUE = Cue(DOOR, seen_ns=10 * MS, shut_ns=11 * MS, killed_ns=12 * MS, victims=(first,))


@pytest.fixture
def done() -> list[Preemption]:
    return []


@pytest.mark.parametrize("order", list(itertools.permutations(["cue", "reaped"])), ids="-".join)
def test_the_time_line_is_complete_in_whatever_order_it_is_told(
    done: list[Preemption], order: tuple[str]
) -> None:
    preemptions = Preemptions(done.append)
    tell = {"cue": lambda: preemptions.begin(CUE), "reaped": lambda: preemptions.reaped(first, 16 * MS)}
    for word in order:
        tell[word]()
    assert [(each.reason, each.kill_ms, each.silent_ms) for each in done] == [
        (Reason.OWNER_PRESENT, 2.0, 6.0)
    ]
    assert not preemptions.under_way


def test_the_end_of_an_earlier_worker_ends_no_later_preemption(done: list[Preemption]) -> None:
    preemptions = Preemptions(done.append)
    preemptions.reaped(second, 9 * MS)
    preemptions.begin(CUE)
    assert preemptions.under_way
    assert not done


def test_the_earliest_cue_of_a_preemption_counts(done: list[Preemption]) -> None:
    preemptions = Preemptions(done.append)
    preemptions.begin(CUE)
    preemptions.begin(Cue(DOOR, seen_ns=13 * MS, shut_ns=13 * MS, killed_ns=None))
    preemptions.reaped(first, 16 * MS)
    assert [each.seen_ns for each in done] == [10 * MS]


def test_a_preemption_ends_with_the_last_of_its_workers(done: list[Preemption]) -> None:
    preemptions = Preemptions(done.append)
    preemptions.begin(Cue(DOOR, 10 * MS, 11 * MS, 12 * MS, (first, second)))
    preemptions.reaped(second, 14 * MS)
    assert preemptions.under_way
    preemptions.reaped(first, 16 * MS)
    assert [each.silent_ms for each in done] == [6.0]


def test_a_worker_that_started_meanwhile_holds_up_no_preemption(done: list[Preemption]) -> None:
    preemptions = Preemptions(done.append)
    preemptions.begin(CUE)
    preemptions.begin(Cue(DOOR, 13 * MS, 13 * MS, 13 * MS, (second,)))  # the car was ready again for a moment
    preemptions.reaped(first, 16 * MS)
    assert [each.seen_ns for each in done] == [10 * MS]
    preemptions.reaped(second, 18 * MS)
    assert [each.silent_ms for each in done] == [6.0, 5.0]


def test_a_cue_without_a_worker_is_no_preemption(done: list[Preemption]) -> None:
    preemptions = Preemptions(done.append)
    preemptions.begin(Cue(DOOR, seen_ns=1, shut_ns=2, killed_ns=None))
    assert not preemptions.under_way
    assert preemptions.count == 0


def test_the_time_line_ends_with_the_last_event_out(done: list[Preemption]) -> None:
    preemptions = Preemptions(done.append)
    preemptions.said(Reason.OWNER_PRESENT, 5 * MS)
    preemptions.begin(CUE)
    preemptions.reaped(first, 16 * MS)
    assert preemptions.done[-1].said_ms is None
    preemptions.said(Reason.OWNER_PRESENT, 18 * MS)
    preemptions.said(Reason.OWNER_PRESENT, 19 * MS)
    preemptions.said(Reason.CHARGE_LOW, 25 * MS)
    assert preemptions.done[-1].said_ms == 9.0
