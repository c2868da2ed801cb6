"""One row per cue: what ends work that is under way, when, and how fast. Through the real signals, policy and guard."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pytest
from cars import FULLY_EQUIPPED, NS
from guard_bench import COMPUTE_W, MONDAY_S, Bench, in_thread

from agent.policy.area import Area
from agent.policy.conditions import CONDITIONS
from agent.policy.orders import Orders
from agent.policy.region import POSITION, Region
from agent.policy.settings import PolicySettings
from agent.protocol.reasons import Reason
from firmware_shims import vss
from firmware_shims.reading import Quality, Reading, Value

READY_S = 61.0
"""When the car has been ready for a second."""
SLACK_S = 0.001
"""Time alone ends work not so much too early, and at most twice as much too late."""

Cue = Callable[[Bench], None]


@dataclass(frozen=True)
class Row:
    """A cue, the condition that it breaks, the reason that is given, and how long the car may still work."""

    says: str
    cue: Cue
    breaks: str
    reason: Reason
    after_s: float = 0.0
    urgent: bool = True
    settings: PolicySettings = field(default_factory=PolicySettings)
    orders: Orders = field(default_factory=Orders)
    values: Mapping[str, Value] = field(default_factory=dict)
    sources: Mapping[str, Sequence[str]] = field(default_factory=dict)


def shows(path: str, *values: Value) -> Cue:
    def cue(bench: Bench) -> None:
        for value in values:
            bench.show(path, value)

    return cue


def in_turn(*cues: Cue) -> Cue:
    def cue(bench: Bench) -> None:
        for each in cues:
            each(bench)

    return cue


def invalid(path: str) -> Cue:
    def cue(bench: Bench) -> None:
        bench.car.qualities[path] = Quality.INVALID
        bench.guard.update([Reading(path, None, "car", bench.clock(), Quality.INVALID)])

    return cue


def silent(*paths: str) -> Cue:
    return lambda bench: bench.mute.update(paths)


def hangs(source: str) -> Cue:
    return lambda bench: bench.dead.add(source)


def second_source_says(path: str, value: Value) -> Cue:
    return lambda bench: bench.guard.update([Reading(path, value, "second", bench.clock.forward(0.01))])


def asks(orders: Orders) -> Cue:
    return lambda bench: bench.guard.follow(orders)


def nothing(_: Bench) -> None:
    """Only time passes."""


OWNER = [
    *(Row(f"{door[14:]} opens", shows(door, True), "owner away", Reason.OWNER_PRESENT) for door in vss.DOORS),
    Row("driver sits down", shows(vss.DRIVER_SEAT, True), "owner away", Reason.OWNER_PRESENT),
    Row("brake is pressed", shows(vss.BRAKE, 1.0), "owner away", Reason.OWNER_PRESENT),
    *(
        Row(f"power {state}", shows(vss.LOW_VOLTAGE_STATE, state), "owner away", Reason.OWNER_PRESENT)
        for state in ("ACC", "ON", "START", "UNDEFINED", "off", "")
    ),
    Row("unlocked", shows(vss.DRIVER_LOCK, False), "locked", Reason.OWNER_PRESENT),
    *(
        Row(f"gear {gear}", shows(vss.GEAR, gear), "parked", Reason.NOT_PARKED)
        for gear in (0, 1, -1, 8, vss.GEAR_DRIVE, 125)
    ),
    *(
        Row(f"{speed_kmh} km/h", shows(vss.SPEED, speed_kmh), "parked", Reason.NOT_PARKED)
        for speed_kmh in (0.51, -0.51, 130.0)
    ),
    Row("vehicle OS pauses", asks(Orders(paused=True)), "not paused", Reason.PAUSED),
    Row("consent withdrawn", asks(Orders(consent=False)), "consent", Reason.CONSENT),
    Row(
        "given consent forgotten",
        asks(Orders()),
        "consent",
        Reason.CONSENT,
        settings=PolicySettings(require_consent=True),
        orders=Orders(consent=True),
    ),
]

ON_PACK = PolicySettings(require_grid_proof=False, pack_budget_pct_per_day=3)
NO_GRID: Mapping[str, Value] = {vss.CHARGE_LINE_POWER: 0.0, vss.CABLE_CONNECTED: False}
ENERGY = [
    Row("cable out", shows(vss.CABLE_CONNECTED, False), "cable in", Reason.NOT_GRID_POWERED),
    Row("AC gone", shows(vss.CHARGE_LINE_POWER, 0.0), "grid power", Reason.NOT_GRID_POWERED, after_s=3),
    Row(
        "AC below 1.1 x compute",
        shows(vss.CHARGE_LINE_POWER, 1.1 * COMPUTE_W - 0.1),
        "grid power",
        Reason.NOT_GRID_POWERED,
        after_s=3,
    ),
    Row("pack discharges", shows(vss.PACK_CURRENT, -0.6), "grid power", Reason.NOT_GRID_POWERED, after_s=3),
    Row("charge under the floor", shows(vss.SOC, 19.9), "charge, floor", Reason.CHARGE_LOW),
    Row("charge low", shows(vss.SOC, 24.9), "charge", Reason.CHARGE_LOW, urgent=False),
    Row(
        "pack budget used up",
        shows(vss.SOC, 69.0, 68.0, 67.0),
        "pack energy",
        Reason.PACK_BUDGET,
        urgent=False,
        settings=ON_PACK,
        values={**NO_GRID, vss.SOC: 70.0},
    ),
    Row(
        "pack low",
        shows(vss.SOC, 66.0),
        "pack energy",
        Reason.PACK_BUDGET,
        urgent=False,
        settings=PolicySettings(
            require_grid_proof=False, pack_budget_pct_per_day=5, pack_soc_stop_pct=66, pack_soc_start_pct=67
        ),
        values={**NO_GRID, vss.SOC: 67.0},
    ),
    Row(
        "grid lost, pack may not give",
        in_turn(shows(vss.SOC, 59.0), shows(vss.CABLE_CONNECTED, False)),
        "pack energy",
        Reason.PACK_BUDGET,
        urgent=False,
        settings=ON_PACK,
    ),
    Row("grid limit", shows(vss.GRID_LIMIT, 59.0), "grid limit", Reason.GRID_LIMIT, urgent=False),
]

MACHINE = [
    Row("pack hot", shows(vss.PACK_TEMPERATURE_MAX, 40.1), "pack temperature", Reason.PACK_TEMPERATURE),
    Row("pack cold", shows(vss.PACK_TEMPERATURE_MIN, -0.1), "pack temperature", Reason.PACK_TEMPERATURE),
    Row("air hot", shows(vss.AMBIENT_TEMPERATURE, 42.1), "ambient temperature", Reason.AMBIENT_TEMPERATURE),
    Row("chip hot", shows(vss.CHIP_TEMPERATURE, 90.0), "chip temperature", Reason.CHIP_TEMPERATURE),
    Row("12 V under the floor", shows(vss.LOW_VOLTAGE_BATTERY, 11.7), "12 V, floor", Reason.LOW_VOLTAGE),
    Row(
        "12 V low, filtered",
        shows(vss.LOW_VOLTAGE_BATTERY, 12.0),
        "12 V",
        Reason.LOW_VOLTAGE,
        # from 13.6 V towards 12.0 V with 45 s: 12.8 V is half of the way; then 10 s
        after_s=45 * math.log(2) + 10,
    ),
    *(
        Row(f"own rail {state}", shows(vss.COMPUTE_RAIL, state), "own power rail", Reason.LOW_VOLTAGE)
        for state in ("GOING_DOWN", "FAULT", "OFF", "")
    ),
]

REGION = Region("BR", Area([[(-60, -30), (-40, -30), (-40, -5), (-60, -5), (-60, -30)]]), margin_m=1000)
AT_HOME = {vss.LATITUDE: -23.5, vss.LONGITUDE: -46.6}
PLACE = [
    Row("across the border", shows(vss.LONGITUDE, -61.0), "region", Reason.REGION_MISMATCH, values=AT_HOME),
    Row("north of the region", shows(vss.LATITUDE, -4.9), "region", Reason.REGION_MISMATCH, values=AT_HOME),
]

LEAVING = MONDAY_S + READY_S + 900
TIMES = [
    Row(
        "schedule ends",
        nothing,
        "schedule",
        Reason.OWNER_SCHEDULE,
        after_s=120 - READY_S,
        urgent=False,
        settings=PolicySettings(schedule=("mon 00:00-00:02",)),
    ),
    Row(
        "owner will leave",
        nothing,
        "departure",
        Reason.DEPARTURE_SOON,
        after_s=20,
        urgent=False,
        orders=Orders(departure_s=LEAVING + 20),
    ),
    Row(
        "owner says that he leaves in 10 minutes",
        asks(Orders(departure_s=LEAVING - 300)),
        "departure",
        Reason.DEPARTURE_SOON,
        urgent=False,
    ),
    Row(
        "charge will take until the departure",
        shows(vss.TIME_TO_COMPLETE, 3600.0),
        "departure",
        Reason.DEPARTURE_SOON,
        urgent=False,
        orders=Orders(departure_s=LEAVING + 3600),
    ),
    Row("fleet drains", asks(Orders(draining=True)), "no drain", Reason.DRAINING, urgent=False),
]

GUARDED_BY = {
    vss.LOW_VOLTAGE_STATE: "owner away",
    **dict.fromkeys(vss.DOORS, "owner away"),
    vss.DRIVER_SEAT: "owner away",
    vss.BRAKE: "owner away",
    vss.DRIVER_LOCK: "locked",
    vss.GEAR: "parked",
    vss.SPEED: "parked",
    vss.CHARGE_LINE_POWER: "grid power",
    vss.PACK_CURRENT: "grid power",
    vss.CABLE_CONNECTED: "cable in",
    vss.SOC: "charge",
    vss.PACK_TEMPERATURE_MIN: "pack temperature",
    vss.PACK_TEMPERATURE_MAX: "pack temperature",
    vss.CHIP_TEMPERATURE: "chip temperature",
    vss.AMBIENT_TEMPERATURE: "ambient temperature",
    vss.LOW_VOLTAGE_BATTERY: "12 V",
    vss.COMPUTE_RAIL: "own power rail",
    vss.GRID_LIMIT: "grid limit",
    vss.TIME_TO_COMPLETE: "departure",
}
LEAVES_TOMORROW = Orders(departure_s=MONDAY_S + 86_400)
"""With it the time that the charge still takes is looked at too."""


def unknown(says: str, cue: Cue, breaks: str, after_s: float = 0.0) -> Row:
    return Row(says, cue, breaks, Reason.UNKNOWN_SIGNAL, after_s, orders=LEAVES_TOMORROW)


PACK = tuple(path for path in FULLY_EQUIPPED if "TractionBattery" in path)
BODY = tuple(path for path in FULLY_EQUIPPED if path not in PACK)
UNKNOWN = [
    *(
        unknown(f"{path[8:]} goes stale", silent(path), breaks, after_s=0.5)
        for path, breaks in GUARDED_BY.items()
    ),
    *(unknown(f"{path[8:]} is invalid", invalid(path), breaks) for path, breaks in GUARDED_BY.items()),
    unknown("the bus is silent", silent(*FULLY_EQUIPPED), "owner away", after_s=0.5),
    *(
        replace(unknown(f"{source} hangs", hangs(source), breaks, 1.0), sources={"body": BODY, "pack": PACK})
        for source, breaks in (("body", "owner away"), ("pack", "charge"))
    ),
]

TWO_SOURCES: list[tuple[str, Value]] = [
    (vss.DRIVER_DOOR, True),
    (vss.DRIVER_SEAT, True),
    (vss.DRIVER_LOCK, False),
    (vss.GEAR, vss.GEAR_DRIVE),
    (vss.LOW_VOLTAGE_STATE, "ON"),
    (vss.CABLE_CONNECTED, False),
    (vss.BRAKE, 100.0),
    (vss.SPEED, 50.0),
]
CONTRADICTION = [
    replace(
        unknown(f"{path[8:]}: two sources contradict", second_source_says(path, value), GUARDED_BY[path]),
        sources={"first": tuple(FULLY_EQUIPPED), "second": (path,)},
    )
    for path, value in TWO_SOURCES
]

ROWS = [*OWNER, *ENERGY, *MACHINE, *PLACE, *TIMES, *UNKNOWN, *CONTRADICTION]


def ready(row: Row) -> Bench:
    bench = Bench({**FULLY_EQUIPPED, **row.values}, row.settings, row.sources, region=REGION)
    bench.guard.follow(row.orders)
    bench.drive(READY_S)
    assert bench.guard.verdict.allowed, bench.guard.verdict.blockers
    assert bench.guard.admit(bench.kill)
    return bench


@pytest.mark.parametrize("row", ROWS, ids=[row.says for row in ROWS])
def test_each_cue_alone_shuts_the_gate_in_the_event_that_brought_it(row: Row) -> None:
    bench = ready(row)
    in_thread(lambda: row.cue(bench))
    if row.after_s:
        bench.drive(row.after_s - SLACK_S)
        assert bench.guard.verdict.allowed, bench.guard.verdict.blockers
        assert not bench.killed_in
        in_thread(lambda: bench.drive(3 * SLACK_S, step_s=SLACK_S))
    verdict = bench.guard.verdict
    assert not verdict.allowed
    assert bench.reasons() == {row.reason}
    assert verdict.budget_w == 0
    assert verdict.urgent is row.urgent
    assert bench.killed_in == (["reader_0"] if row.urgent else [])
    assert not bench.guard.admit(bench.kill)
    judged = dict(zip((condition.name for condition in CONDITIONS), verdict.judged, strict=True))
    assert not judged[row.breaks].holds


def test_every_condition_has_a_row() -> None:
    assert {row.breaks for row in ROWS} | {"rested"} == {condition.name for condition in CONDITIONS}


def test_every_signal_that_any_condition_looks_at_goes_stale_and_invalid_in_a_row() -> None:
    """All but the position: a car that loses it is where it was last seen, see test_region."""
    looked_at = {path for condition in CONDITIONS for path in (*condition.required, *condition.optional)}
    looked_at -= set(POSITION)
    assert looked_at == set(GUARDED_BY) == set(FULLY_EQUIPPED)


def test_rest_is_the_one_condition_that_ends_no_work_but_lets_none_begin() -> None:
    bench = Bench(FULLY_EQUIPPED, PolicySettings(starts_per_hour=2))
    began_ns = bench.clock()
    for _ in range(2):
        bench.drive(READY_S, step_s=0.4)
        assert bench.guard.verdict.allowed
        bench.show(vss.DRIVER_DOOR, True)
        bench.car.values[vss.DRIVER_DOOR] = False
    bench.drive(READY_S, step_s=0.4)
    assert bench.reasons() == {Reason.SETTLING}
    first_start_s = 60.4
    bench.drive(3600 + first_start_s - (bench.clock() - began_ns) / NS - 0.01, step_s=0.4)
    assert not bench.guard.verdict.allowed
    bench.drive(0.012)
    assert bench.guard.verdict.allowed


def test_a_wall_clock_that_is_set_forward_past_the_schedule_is_noticed_within_half_a_minute() -> None:
    bench = Bench(FULLY_EQUIPPED, PolicySettings(schedule=("mon 00:00-06:00",)))
    bench.drive(READY_S)
    bench.wall_ahead_s = 6 * 3600
    bench.drive(30)
    assert bench.reasons() == {Reason.OWNER_SCHEDULE}
    bench.wall_ahead_s = -3600
    bench.drive(30)
    assert bench.reasons() == {Reason.OWNER_SCHEDULE}  # it is Sunday again
