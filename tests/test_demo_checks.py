import datetime as dt
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.demo import model
from agent.demo.checks import Facts, check
from agent.demo.files import Sample
from agent.demo.owner import Visit
from agent.demo.record import Tick, rates, seconds_of, working_s
from agent.demo.summary import described
from agent.demo.wire import Counted, counted
from agent.demo.workload import LONG_ROWS, ROWS, Order, Tally, labels_of, orders
from agent.preemption import Preemption
from agent.protocol.messages import Datatype, EnergySource, Event, Mode, TaskState, Usage
from agent.protocol.reasons import Reason
from agent.store import Counts
from fleet.client import Output, Rows

LABELS = ("c", "python", "shell")
USAGE = Usage(0.01, 0.01, 0.5, EnergySource.MODEL, None, "cpu", "cpu")
PREEMPTION = Preemption(Reason.OWNER_PRESENT, 1_000_000, 1_100_000, 1_250_000, 8_000_000)
NOW = dt.datetime(2026, 11, 22, tzinfo=dt.UTC)


def files(*labels: str) -> list[Sample]:
    return [Sample(Path(f"/{label}"), label, b"") for label in labels]


def answer(begin: int, *labels: str) -> Rows:
    scores = b"".join(struct.pack("<3f", *(float(label == each) for each in LABELS)) for label in labels)
    return Rows(begin, begin + len(labels), 1, {model.OUTPUT: Output(Datatype.FP32, (3,), scores)}, USAGE)


def good_tally(right: int = 10) -> Tally:
    tally = Tally(asked={"t1": 10})
    order = Order("t1", files(*["c"] * 10))
    tally.answered(order, answer(0, *["c"] * right, *["shell"] * (10 - right)), LABELS)
    tally.tasks_done = 1
    return tally


def good_ticks() -> list[Tick]:
    modes = [Mode.SETTLING] * 4 + [Mode.WORKING] * 6 + [Mode.BLOCKED] * 4 + [Mode.WORKING] * 2
    return [
        Tick(
            at_s=0.25 * number,
            mode=mode,
            door_open=mode is Mode.BLOCKED,
            blockers=("owner_present",) if mode is Mode.BLOCKED else (),
            budget_w=25.0 if mode is Mode.WORKING else 0.0,
            rows=1 if mode is Mode.WORKING else 0,
            worker_mib=None if mode is Mode.BLOCKED else 60.0,
        )
        for number, mode in enumerate(modes)
    ]


def facts(**changes: Any) -> Facts:
    good = Facts(
        tally=good_tally(),
        counted=Counted(once=10),
        preempted={"t1": Event("t1", 1, TaskState.PREEMPTED, NOW, 1, 1, 4, 10)},
        visit=Visit(2.5, PREEMPTION, 6, 4.5, 6, 6.6),
        ticks=good_ticks(),
        wall_s=4.0,
        owed=Counts(0, 0, 0, 4096),
        watts_per_core=7.0,
    )
    return replace(good, **changes)


def failed(found: Facts) -> list[str]:
    return [each.name for each in check(found) if not each.holds]


def changed_tally(**changes: Any) -> Tally:
    return replace(good_tally(), **changes)


def test_a_good_run_passes_every_check() -> None:
    assert failed(facts()) == []


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"tally": changed_tally(tasks_done=0, failures=["t1: 110 expired"])}, "every task ended well"),
        ({"tally": changed_tally(asked={"t1": 10, "t2": 0})}, "every task ended well"),
        ({"counted": Counted(once=9, missing=1)}, "every row was answered exactly once"),
        ({"counted": Counted(once=9, twice=1)}, "every row was answered exactly once"),
        ({"counted": Counted(once=10, unasked=1)}, "every row was answered exactly once"),
        ({"tally": changed_tally(rows_done=9)}, "every row was answered exactly once"),
        ({"visit": Visit(2.5, None, 6, 4.5, 6, 6.6)}, "the door stopped inference"),
        ({"visit": Visit(2.5, PREEMPTION, 6, 4.5, 7, 6.6)}, "the door stopped inference"),
        ({"visit": Visit(2.5, PREEMPTION, None, 4.5, None, 6.6)}, "the door stopped inference"),
        (
            {"visit": Visit(2.5, replace(PREEMPTION, reason=Reason.UNKNOWN_SIGNAL), 6, 4.5, 6, 6.6)},
            "the door stopped inference",
        ),
        ({"visit": Visit(2.5, PREEMPTION, 6, 4.5, 6, None)}, "work resumed by itself"),
        ({"tally": good_tally(right=8)}, "labels right >= 90% (the demo's own threshold)"),
        ({"owed": Counts(1, 0, 0, 4096)}, "nothing is owed"),
        ({"owed": Counts(0, 1, 9, 4096)}, "nothing is owed"),
    ],
)
def test_a_run_fails_by_what_went_wrong(changes: dict[str, Any], name: str) -> None:
    assert failed(facts(**changes)) == [name]


def test_a_run_in_which_nothing_was_done_fails() -> None:
    empty = facts(tally=Tally(), counted=Counted(), visit=Visit(), ticks=[], preempted={})
    assert failed(empty) == [
        "every task ended well",
        "the door stopped inference",
        "work resumed by itself",
        "labels right >= 90% (the demo's own threshold)",
    ]
    assert "the work was done before the owner came" in "\n".join(described(empty, check(empty)))


def test_rows_are_counted_over_all_results() -> None:
    asked = {"a": 8, "b": 2}
    results = {("a", 1, 0, 5): 1, ("a", 2, 5, 8): 2, ("b", 1, 0, 1): 1}
    assert counted(asked, results) == Counted(once=9, twice=0, missing=1, repeats=1)


def test_a_row_of_two_attempts_is_answered_twice() -> None:
    assert counted({"a": 8}, {("a", 1, 0, 8): 1, ("a", 2, 7, 8): 1}) == Counted(once=7, twice=1)


def test_rows_that_nobody_asked_for_are_counted() -> None:
    assert counted({"a": 2}, {("a", 1, 0, 3): 1}) == Counted(once=2, unasked=1)


def test_the_summary_fits_a_terminal_and_says_what_is_modelled() -> None:
    found = facts()
    lines = list(described(found, check(found)))
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    assert "0.0500 J a row, 0.5 J in all" in text
    assert "by model: CPU seconds x 7 W per core; no meter here" in text
    assert "0.25 ms from the cue" in text
    assert "7.0 ms from the cue" in text
    assert "t1 with 4 of 10 rows done" in text
    assert text.count("\nok ") == 6


def test_without_a_meter_the_summary_says_so() -> None:
    found = facts(tally=changed_tally(joules={}))
    assert "energy       no meter" in described(found, check(found))


def test_seconds_tell_what_the_car_did_in_their_order() -> None:
    seconds = list(seconds_of(good_ticks()))
    assert [second.modes for second in seconds] == [
        (Mode.SETTLING,),
        (Mode.WORKING,),
        (Mode.WORKING, Mode.BLOCKED),
        (Mode.BLOCKED, Mode.WORKING),
    ]
    assert [second.rows for second in seconds] == [0, 4, 2, 2]
    assert [second.door_open for second in seconds] == [False, False, True, True]
    assert working_s(good_ticks()) == pytest.approx(8 * 0.25)
    assert rates(good_ticks())[4:11] == [4.0] * 6 + [0.0]


def test_tasks_go_over_the_files_again_and_again() -> None:
    pool = files(*"abcdefg")
    supply = orders(pool)
    first, second = next(supply), next(supply)
    assert (len(first.files), len(second.files)) == (LONG_ROWS, ROWS)
    assert [sample.label for sample in [*first.files, *second.files]] == list("abcdefg" * 11)[:72]


def test_an_answer_is_scored_by_the_rows_it_has() -> None:
    tally = Tally()
    order = Order("t1", files("c", "python", "shell", "shell"))
    tally.answered(order, answer(1, "python", "c"), LABELS)
    assert {kind: (score.right, score.total) for kind, score in tally.scores.items()} == {
        "python": (1, 1),
        "shell": (0, 1),
    }
    assert (tally.rows_done, tally.joules[EnergySource.MODEL]) == (2, 0.5)


def test_the_label_is_the_likeliest() -> None:
    assert labels_of(struct.pack("<6f", 0.1, 0.7, 0.2, 0.5, 0.2, 0.3), LABELS) == ["python", "c"]
