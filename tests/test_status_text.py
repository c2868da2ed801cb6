"""`parkwatt status` for people: what the car does, why not more, since when and until when."""

import datetime as dt

import pytest

from agent.history.report import Day, Energy
from agent.policy.conditions import CONDITIONS
from agent.protocol.messages import EnergySource, Mode, TaskState
from agent.protocol.reasons import Reason
from agent.status import (
    UNTRIED,
    BackendStatus,
    BlockerStatus,
    Doing,
    LinkStatus,
    MeterStatus,
    PreemptionStatus,
    Status,
    StoreStatus,
    TaskStatus,
)
from agent.status_text import WORDS, described

NOW = dt.datetime(2026, 11, 22, 1, 0, tzinfo=dt.UTC)
TODAY = Day(
    day=NOW.date(),
    length_s=3600,
    ready_s=600,
    working_s=1200,
    settling_s=0,
    blocked_s=1800,
    draining_s=0,
    preempting_s=0,
    asleep_s=0,
    unseen_s=0,
    lost=[],
    tasks={"done": 12, "failed": 1},
    rows=960,
    energy=[
        Energy(EnergySource.COUNTER, 900, 812.0, None, 0.0),
        Energy(EnergySource.NONE, 60, None, None, None),
    ],
    preemptions={},
)


def ago(**parts: float) -> dt.datetime:
    return NOW - dt.timedelta(**parts)


def ahead(**parts: float) -> dt.datetime:
    return NOW + dt.timedelta(**parts)


def status(mode: Mode = Mode.BLOCKED, *blockers: BlockerStatus, **other: object) -> Status:
    return Status(
        **{
            "vehicle": "veh-0001",
            "region": "BR",
            "version": "1.2.3",
            "boot": 7,
            "started_at": ago(hours=9),
            "mode": mode,
            "blockers": list(blockers),
            "budget_w": 0.0,
            "backends": [],
            "tasks": [],
            "preemptions": PreemptionStatus(0),
            "link": LinkStatus(True, ago(hours=9)),
            "store": StoreStatus(0, 0, 53_248, 500_000_000),
            "mode_since": ago(minutes=12),
            "time_zone": "America/Sao_Paulo",
        }
        | other  # type: ignore[arg-type] # each test names what it is about
    )


def task(doing: Doing, state: TaskState = TaskState.ACCEPTED) -> TaskStatus:
    return TaskStatus(f"night-{doing}", 1, state, 3, 8, doing)


def blocker(
    reason: Reason,
    value: float | str | bool | None,
    limit: float | str | None,
    until: dt.datetime | None = None,
) -> BlockerStatus:
    return BlockerStatus(reason, reason.label, value, limit, ago(minutes=12), until)


def mode_of(said: Status) -> str:
    return next(line for line in described(said, NOW) if line.startswith("mode")).removeprefix("mode      ")


def test_a_blocked_car_with_a_broken_gpu_and_no_link_tells_all_of_it() -> None:
    said = status(
        Mode.BLOCKED,
        blocker(Reason.CHARGE_LOW, 24.5, 30.0),
        blocker(Reason.OWNER_PRESENT, True, "Cabin.Door.Row1.DriverSide.IsOpen false or 0"),
        backends=[
            BackendStatus("cpu", "cpu", ["onnx"], 60.0, 12.5, True, resume_at=ahead(seconds=8)),
            BackendStatus("nvidia", "", [], 250.0, None, False, "no driver"),
        ],
        tasks=[TaskStatus("01JD", 2, TaskState.PREEMPTED, 3, 8), task("waiting")],
        preemptions=PreemptionStatus(2, "owner_present", 0.2, 3.5, 7.2),
        link=LinkStatus(False, ago(seconds=3), "connection refused", ahead(seconds=20)),
        store=StoreStatus(1, 4, 53_248, 500_000_000, waiting=2),
        meter=MeterStatus(EnergySource.COUNTER, "", 12.34),
        expected_s=4.5 * 3600,
        today=TODAY,
    )
    assert list(described(said, NOW)) == [
        "parkwatt 1.2.3, vehicle veh-0001 in BR, boot 7, started 9.0 h ago",
        "mode      blocked for 12 min: the traction battery is low, and 1 more reason",
        "  1004 charge_low: the traction battery is low: 24.5 %, limit 30 %, for 12 min",
        "  1001 owner_present: somebody is at the car: needs Cabin.Door.Row1.DriverSide.IsOpen false or 0, for 12 min",
        "stay      4.5 h more expected",
        "power     budget 0 W, joules by counter, 12.3 W at rest",
        "backend   cpu on cpu: onnx, at most 60 W, stops within 12.5 ms, crashed, starts again in 8 s",
        "backend   nvidia: not usable: no driver",
        "tasks     2 waiting",
        "  01JD attempt 2: preempted, 3 of 8 rows",
        "  night-waiting attempt 1: waiting, 3 of 8 rows",
        "today     ready or working 30 min of 60 min, 12 tasks done, 960 rows, 812 J by counter",
        "preempted 2 times, last by owner_present: worker gone 3.5 ms after the cue, 7.2 ms at most",
        "link      down for 3 s: connection refused, next try in 20 s",
        "store     1 task, 4 results not yet settled, 0.1 of 500 MB",
        "  full: 2 changes wait in memory for room, no new tasks are taken",
    ]


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (
            blocker(Reason.OWNER_SCHEDULE, False, "inside policy.schedule", ahead(hours=3.5)),
            (
                "1009 owner_schedule: outside of the owner's schedule: needs inside policy.schedule, for 12 min,"
                " until 01:30 -03 (in 3.5 h)"
            ),
        ),
        (
            blocker(Reason.DEPARTURE_SOON, 600, "more than 900 s before the departure", ahead(days=2)),
            (
                "1010 departure_soon: the owner leaves soon: 600 s, needs more than 900 s before the departure,"
                " for 12 min, until Mon 22:00 -03 (in 2.0 days)"
            ),
        ),
        (
            blocker(Reason.SETTLING, 6, "fewer than 6 starts in the last hour", ahead(minutes=5)),
            "1013 settling: waiting: fewer than 6 starts in the last hour, for 12 min, until 22:05:00 -03 (in 5 min)",
        ),
        (
            blocker(Reason.UNKNOWN_SIGNAL, "Vehicle.Speed", "a good reading, it is never"),
            "1000 unknown_signal: a signal is not known: Vehicle.Speed: needs a good reading, it never came, for 12 min",
        ),
        (
            blocker(Reason.NOT_GRID_POWERED, 12.0, "charge line >= 66 W"),
            "1003 not_grid_powered: grid power is not proven: 12 W, needs charge line >= 66 W, for 12 min",
        ),
        (
            blocker(Reason.AMBIENT_TEMPERATURE, -12.5, "-10..38"),
            "1006 ambient_temperature: the air outside is too cold or too warm: -12.5 C, needs -10..38 C, for 12 min",
        ),
        (
            blocker(Reason.LOW_VOLTAGE, 12.91, 13.2),
            "1008 low_voltage: the low-voltage supply is weak: 12.91 V, limit 13.2 V, for 12 min",
        ),
        (
            blocker(Reason.CONSENT, "not asked", "the owner's consent"),
            "1016 consent: the owner's consent is missing: not asked, needs the owner's consent, for 12 min",
        ),
    ],
)
def test_each_reason_is_told_in_words_with_its_limit_and_its_end(said: BlockerStatus, line: str) -> None:
    assert f"  {line}" in list(described(status(Mode.BLOCKED, said), NOW))


def test_a_car_that_settles_says_when_it_will_be_ready() -> None:
    window = blocker(Reason.SETTLING, 42.0, "owner_present to stay clear", ahead(seconds=42))
    assert mode_of(status(Mode.SETTLING, window)) == (
        "settling for 12 min: all conditions hold, ready at 22:00:42 -03 (in 42 s) if they go on to"
    )


def test_a_car_that_works_says_how_much_of_it_waits() -> None:
    said = status(Mode.WORKING, tasks=[task("running", TaskState.RUNNING), task("waiting"), task("fetching")])
    assert mode_of(said) == "working for 12 min: 1 task runs, 2 wait"
    assert "tasks     1 running, 1 being fetched for, 1 waiting" in list(described(said, NOW))


def test_a_backend_that_nobody_has_needed_yet_is_not_called_broken() -> None:
    untried = BackendStatus("cpu", "", [], 60.0, None, False, UNTRIED)
    lines = list(described(status(Mode.READY, backends=[untried]), NOW))
    assert "backend   cpu: at most 60 W, tried when its first worker starts" in lines


CRASHED = BackendStatus("cpu", "cpu", ["onnx"], 60.0, None, True, resume_at=ahead(seconds=10))
CUT_OFF = LinkStatus(False, ago(seconds=3), "connection refused")
FULL = StoreStatus(1, 4, 53_248, 500_000_000, waiting=2)


@pytest.mark.parametrize(
    ("circumstances", "why"),
    [
        ({}, "no task to run"),
        ({"link": CUT_OFF}, "no task to run, and no link to the fleet"),
        ({"tasks": [task("waiting")]}, "1 task waits"),
        ({"tasks": [task("fetching")]}, "models or inputs of 1 task are being fetched"),
        ({"tasks": [task("waiting")], "store": FULL}, "1 task waits, the store is full"),
        (
            {"tasks": [task("waiting")], "backends": [CRASHED]},
            "1 task waits, cpu has crashed and starts again in 10 s",
        ),
    ],
)
def test_a_car_that_is_ready_and_does_nothing_says_why(circumstances: dict[str, object], why: str) -> None:
    assert mode_of(status(Mode.READY, **circumstances)) == f"ready for 12 min: {why}"


def test_every_reason_of_the_vehicle_that_can_block_has_words() -> None:

    assert {condition.reason for condition in CONDITIONS} | {Reason.UNKNOWN_SIGNAL} == WORDS.keys()


def test_an_agent_that_does_not_know_the_date_says_nothing_of_today() -> None:
    assert not [line for line in described(status(today=None), NOW) if line.startswith("today")]
