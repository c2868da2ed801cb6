"""Which vehicle gets a task: the written order, rule by rule, and what holds for any fleet."""

import datetime as dt
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.protocol.messages import BackendState, Mode, ModelFormat, Offline, OpenTask, State, TaskState
from fleet.errands import Errand, Line
from fleet.placement import Car, Needs, choose

AT = dt.datetime(2026, 11, 22, tzinfo=dt.UTC)
SHA = "a" * 64
CPU = BackendState("cpu", "cpu0", ["onnx"], 60, None, usable=True)
TFLITE = BackendState("tflite", "cpu0", ["tflite"], 60, None, usable=True)
BROKEN = BackendState("cpu", "cpu0", ["onnx"], 60, None, usable=False, why="no onnxruntime")
UNPROBED = BackendState("cpu", "", [], 60, None, usable=False, why="not probed yet")
NEEDS = Needs(SHA, ModelFormat.ONNX, None, None, lease_s=60)
NOW_NS = 1_000


def parked(**changes: Any) -> State:
    state = State(
        vehicle="veh",
        region="BR-SP",
        boot=1,
        seq=1,
        online=True,
        at=AT,
        mode=Mode.READY,
        blockers=[],
        budget_w=60,
        expected_s=3600,
        backends=[CPU],
        models=[],
        open=[],
        version="0",
    )
    return msgspec.structs.replace(state, **changes)


def car(name: str, given: int = 0, held_until_ns: int = 0, **changes: Any) -> Car:
    return Car(name, parked(**changes), given, 2, held_until_ns)


def chosen(*cars: Car, needs: Needs = NEEDS, row_s: float | None = None, back: set[str] | None = None) -> Any:
    return choose(needs, cars, NOW_NS, rows=8, row_s=row_s, given_back_by=back or set())


def busy(tasks: int) -> list[OpenTask]:
    return [OpenTask(f"other-{n}", 1, TaskState.RUNNING, 0) for n in range(tasks)]


@pytest.mark.parametrize(
    ("needs", "unfit"),
    [
        (NEEDS, Car("v", None, 0, 2)),
        (NEEDS, Car("v", Offline("veh", 1), 0, 2)),
        (NEEDS, car("v", mode=Mode.BLOCKED)),
        (NEEDS, car("v", mode=Mode.DRAINING)),
        (NEEDS, car("v", budget_w=0)),
        (NEEDS, car("v", backends=[])),
        (NEEDS, car("v", backends=[BROKEN])),
        (NEEDS, car("v", backends=[TFLITE])),
        (NEEDS, car("v", given=2)),
        (NEEDS, car("v", held_until_ns=NOW_NS + 1)),
        (replace(NEEDS, backend="nvidia"), car("v")),
        (replace(NEEDS, backend="nvidia"), car("v", backends=[UNPROBED])),
        (replace(NEEDS, residency=frozenset({"AR", "BR-RJ"})), car("v")),
        (replace(NEEDS, residency=frozenset()), car("v")),
    ],
)
def test_a_vehicle_that_cannot_do_it_is_not_given_it(needs: Needs, unfit: Car) -> None:
    assert chosen(unfit, needs=needs) is None


@pytest.mark.parametrize("residency", [None, {"BR"}, {"BR-SP"}, {"AR", "BR"}])
def test_data_may_go_where_region_or_country_is_named(residency: set[str] | None) -> None:
    needs = replace(NEEDS, residency=None if residency is None else frozenset(residency))
    assert chosen(car("v"), needs=needs) == "v"


def test_a_car_that_leaves_before_one_row_is_done_gets_nothing() -> None:
    leaving = car("leaving", expected_s=9)
    assert chosen(leaving, row_s=10) is None
    assert chosen(leaving, row_s=9) == "leaving"
    assert chosen(leaving) == "leaving", "nobody knows how long it takes"
    assert chosen(car("unknown", expected_s=None), row_s=10) == "unknown"


def test_long_work_goes_where_the_car_stays_for_all_of_it_but_part_of_it_is_better_than_none() -> None:
    leaving, staying = car("leaving", expected_s=79, budget_w=600), car("staying", expected_s=80)
    assert chosen(leaving, staying, row_s=10) == "staying"
    assert chosen(leaving, row_s=10) == "leaving"
    assert chosen(leaving, staying, row_s=5) == "leaving"


def test_a_backend_that_was_never_probed_gets_its_chance() -> None:
    assert chosen(car("unprobed", backends=[UNPROBED])) == "unprobed"


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        (car("z", mode=Mode.WORKING), car("a", mode=Mode.SETTLING, models=[SHA])),
        (car("z"), car("a", mode=Mode.PREEMPTING)),
        (car("z"), car("gave-it-back", models=[SHA])),
        (car("z", models=[SHA], open=busy(1)), car("a", budget_w=600)),
        (car("z", open=busy(1)), car("a", backends=[UNPROBED])),
        (car("z", open=busy(1)), car("a", expected_s=59)),
        (car("z", open=busy(1)), car("a", expected_s=None)),
        (car("z", open=busy(1)), car("a", open=busy(2), budget_w=600)),
        (car("z"), car("a", given=1, budget_w=600)),
        (car("z", budget_w=61), car("a")),
        (car("a"), car("b")),
    ],
)
def test_of_two_that_fit_the_better_one_gets_it(better: Car, worse: Car) -> None:
    for pair in ((better, worse), (worse, better)):
        assert chosen(*pair, back={"gave-it-back"}) == better.id
    assert chosen(worse, back={"gave-it-back"}) == worse.id


states = st.builds(
    parked,
    mode=st.sampled_from(Mode),
    region=st.sampled_from(["BR", "BR-SP", "AR"]),
    budget_w=st.sampled_from([0.0, 10.0, 60.0]),
    expected_s=st.sampled_from([None, 30.0, 600.0]),
    backends=st.lists(st.sampled_from([CPU, TFLITE, BROKEN, UNPROBED]), max_size=2),
    models=st.sampled_from([[], [SHA]]),
    open=st.integers(0, 3).map(busy),
)
fleets = st.lists(
    st.builds(
        Car,
        id=st.sampled_from("abcdefgh"),
        state=st.none() | st.just(Offline("veh", 1)) | states,
        given=st.integers(0, 2),
        room=st.just(2),
        held_until_ns=st.sampled_from([0, NOW_NS, NOW_NS + 1]),
    ),
    unique_by=lambda one: one.id,
    max_size=6,
)
wants = st.builds(
    Needs,
    st.just(SHA),
    st.sampled_from(ModelFormat),
    st.sampled_from([None, "cpu", "tflite"]),
    st.sampled_from([None, frozenset({"BR"}), frozenset({"BR-SP", "AR"})]),
    st.sampled_from([10.0, 60.0]),
)
row_times = st.sampled_from([None, 1.0, 40.0])


@given(fleets, wants, row_times, st.sets(st.sampled_from("abcdefgh")), st.randoms())
def test_the_choice_depends_on_the_fleet_and_not_on_its_order(
    fleet: list[Car], needs: Needs, row_s: float | None, back: set[str], chance: Any
) -> None:
    shuffled = list(fleet)
    chance.shuffle(shuffled)
    assert chosen(*fleet, needs=needs, row_s=row_s, back=back) == chosen(
        *shuffled, needs=needs, row_s=row_s, back=back
    )


@given(fleets, wants, row_times, st.sets(st.sampled_from("abcdefgh")))
def test_it_is_given_to_nobody_only_if_nobody_alone_would_get_it(
    fleet: list[Car], needs: Needs, row_s: float | None, back: set[str]
) -> None:
    able = {one.id for one in fleet if chosen(one, needs=needs, row_s=row_s) is not None}
    best = chosen(*fleet, needs=needs, row_s=row_s, back=back)
    assert (best in able) if able else (best is None)
    for one in fleet:  # who is left out does not matter, unless it was the best
        if one.id != best:
            others = [other for other in fleet if other is not one]
            assert chosen(*others, needs=needs, row_s=row_s, back=back) == best


@given(fleets, wants, row_times)
def test_who_gets_it_may_have_it(fleet: list[Car], needs: Needs, row_s: float | None) -> None:
    best = chosen(*fleet, needs=needs, row_s=row_s)
    if best is None:
        return
    one = next(one for one in fleet if one.id == best)
    assert isinstance(one.state, State)
    assert one.given < 2
    assert one.held_until_ns <= NOW_NS
    assert one.state.mode not in {Mode.BLOCKED, Mode.DRAINING}
    assert one.state.budget_w > 0
    assert needs.residency is None or {one.state.region, one.state.region[:2]} & needs.residency
    assert one.state.expected_s is None or row_s is None or one.state.expected_s >= row_s


def errand(name: str, order: int, priority: int = 0, needs: Needs = NEEDS) -> Errand:
    return Errand(name, order, priority, needs, 8, AT + dt.timedelta(seconds=order))


def in_turn(line: Line, now_ns: int = NOW_NS, without: set[Needs] | None = None) -> list[str]:
    names = []
    while one := line.first(now_ns, without or set()):
        names.append(one.id)
        line.remove(one)
    return names


def test_the_larger_priority_goes_first_then_the_older() -> None:
    line = Line()
    for one in (errand("young", 3), errand("old", 1), errand("urgent", 4, priority=5), errand("mid", 2)):
        line.add(one)
    assert in_turn(line) == ["urgent", "old", "mid", "young"]


def test_needs_that_nobody_fulfils_hold_up_no_others() -> None:
    line, rare = Line(), replace(NEEDS, backend="rare")
    for one in (errand("stuck", 1, 100, rare), errand("other", 2), errand("stuck-too", 3, 99, rare)):
        line.add(one)
    assert in_turn(line, without={rare}) == ["other"]
    assert in_turn(line) == ["stuck", "stuck-too"]


def test_one_that_is_held_back_waits_and_one_that_ended_never_comes() -> None:
    line = Line()
    held, ended, ready = errand("held", 1), errand("ended", 2), errand("ready", 3)
    line.add(held, not_before_ns=NOW_NS + 1)
    line.add(ended)
    line.add(ready)
    assert line.first(NOW_NS) is ended
    line.remove(ended)
    assert in_turn(line) == ["ready"]
    assert (len(line), line.next_ns) == (1, NOW_NS + 1)
    line.add(ready, not_before_ns=NOW_NS + 2)  # given back
    assert in_turn(line, NOW_NS + 1) == ["held"]
    assert in_turn(line, NOW_NS + 2) == ["ready"]


def test_what_waits_too_long_is_told_once() -> None:
    line = Line()
    first, second = errand("first", 1), errand("second", 2)
    line.add(first)
    line.add(second)
    line.remove(first)
    assert line.expired(AT) == []
    assert line.next_expiry == first.expires_at
    assert line.expired(AT + dt.timedelta(seconds=9)) == [second]
    assert line.expired(AT + dt.timedelta(seconds=9)) == []
    assert line.next_expiry is None
