"""Guards one by one: what they let pass that they should not, and what time does to them."""

import math

import pytest
from cars import FULLY_EQUIPPED, NS, Car
from parking import NOON_S, Parking

from agent.policy.memory import FRESH
from agent.policy.orders import Orders
from agent.policy.settings import PolicySettings
from agent.policy.verdict import Policy
from agent.protocol.reasons import Reason
from firmware_shims import vss
from firmware_shims.reading import Quality, Value

OPT_IN = PolicySettings(require_grid_proof=False, pack_budget_pct_per_day=5)


@pytest.mark.parametrize(
    ("bad", "unknown"),
    [(vss.CHARGE_LINE_POWER, vss.PACK_CURRENT), (vss.PACK_CURRENT, vss.CHARGE_LINE_POWER)],
)
def test_a_dip_of_one_half_of_the_proof_excuses_no_unknown_other_half(bad: str, unknown: str) -> None:
    parking = Parking().settled()
    parking.car.values[bad] = -100.0
    parking.car.qualities[unknown] = Quality.STALE
    assert parking.reasons() == [Reason.UNKNOWN_SIGNAL]


def test_dips_of_grid_power_that_follow_each_other_share_one_grace() -> None:
    parking = Parking().settled()
    assert parking.sees(vss.CHARGE_LINE_POWER, 0.0).allowed
    assert parking.sees(vss.CHARGE_LINE_POWER, 7200.0, after_s=2).allowed
    assert parking.sees(vss.CHARGE_LINE_POWER, 0.0, after_s=1).allowed
    assert parking.look(after_s=1).allowed
    assert parking.reasons(after_s=0.001) == [Reason.NOT_GRID_POWERED]


@pytest.mark.parametrize("dip_s", [0.5, 1.0, 1.4])
def test_however_many_dips_there_are_their_grace_is_one(dip_s: float) -> None:
    parking, dark_s = Parking().settled(), 0.0
    while parking.sees(vss.CHARGE_LINE_POWER, 0.0, after_s=5).allowed and dark_s < 20:
        parking.sees(vss.CHARGE_LINE_POWER, 7200.0, after_s=dip_s)
        dark_s += dip_s
    assert 3 <= dark_s < 3 + dip_s


def test_a_supply_that_falls_while_the_car_settles_blocks_when_it_crosses_and_not_at_the_end() -> None:
    parking = Parking()
    parking.look()
    parking.sees(vss.LOW_VOLTAGE_BATTERY, 12.0)
    settling = parking.look(after_s=30)  # grid power is proven
    assert settling.settling
    assert settling.next_ns is not None
    crosses_s = (settling.next_ns - parking.now_ns) / NS
    assert crosses_s == pytest.approx(45 * math.log(2) - 30, abs=0.01)
    assert parking.reasons(after_s=crosses_s) == [Reason.LOW_VOLTAGE]


def test_grid_power_that_held_for_the_time_of_its_proof_has_its_grace_again() -> None:
    parking = Parking().settled()
    for _ in range(5):
        assert parking.sees(vss.CHARGE_LINE_POWER, 0.0).allowed
        assert parking.sees(vss.CHARGE_LINE_POWER, 7200.0, after_s=3).allowed
        assert parking.look(after_s=30).allowed
    assert parking.sees(vss.CHARGE_LINE_POWER, 0.0).allowed
    assert parking.reasons(after_s=3.001) == [Reason.NOT_GRID_POWERED]


@pytest.mark.parametrize("charge_s", [-1.0, -86_400.0])
def test_a_charge_that_ended_long_ago_lets_no_work_come_nearer_to_the_departure(charge_s: float) -> None:
    parking = Parking(orders=Orders(departure_s=NOON_S + 900 + 180 + 10)).settled()
    assert parking.sees(vss.TIME_TO_COMPLETE, charge_s).allowed
    assert parking.look(after_s=9).allowed
    assert parking.reasons(after_s=1) == [Reason.DEPARTURE_SOON]


STARTS = [
    (vss.SOC, 29.9, 30.0, Reason.CHARGE_LOW),
    (vss.PACK_TEMPERATURE_MAX, 35.1, 35.0, Reason.PACK_TEMPERATURE),
    (vss.PACK_TEMPERATURE_MIN, 4.9, 5.0, Reason.PACK_TEMPERATURE),
    (vss.AMBIENT_TEMPERATURE, 38.1, 38.0, Reason.AMBIENT_TEMPERATURE),
    (vss.AMBIENT_TEMPERATURE, -10.1, -10.0, Reason.AMBIENT_TEMPERATURE),
    (vss.CHIP_TEMPERATURE, 75.1, 75.0, Reason.CHIP_TEMPERATURE),
    (vss.LOW_VOLTAGE_BATTERY, 13.19, 13.2, Reason.LOW_VOLTAGE),
    (vss.LOW_VOLTAGE_BATTERY, 11.7, 13.2, Reason.LOW_VOLTAGE),
    (vss.CHARGE_LINE_POWER, 65.9, 66.1, Reason.NOT_GRID_POWERED),
    (vss.PACK_CURRENT, -0.51, -0.5, Reason.NOT_GRID_POWERED),
    (vss.GRID_LIMIT, 59.9, 60.0, Reason.GRID_LIMIT),
    (vss.TIME_TO_COMPLETE, 2001.0, 1999.0, Reason.DEPARTURE_SOON),  # a tenth more: 2,200 s
]


@pytest.mark.parametrize(("path", "outside", "inside", "reason"), STARTS)
def test_work_begins_only_at_the_start_threshold(
    path: str, outside: float, inside: float, reason: Reason
) -> None:
    for value, begins in ((outside, False), (inside, True)):
        parking = Parking(orders=Orders(departure_s=NOON_S + 900 + 2200 + 0.5))
        parking.car.values[path] = value
        assert parking.settle().allowed is begins
        parking.look(after_s=60)
        assert parking.reasons() == ([] if begins else [reason])


@pytest.mark.parametrize(
    ("fixed_w", "sent_w", "budget_w"), [(100, 80.0, 60), (80, 59.0, 0), (59, 80.0, 0), (30, 100.0, 0)]
)
def test_of_a_fixed_and_a_sent_grid_limit_the_lower_one_holds(
    fixed_w: float, sent_w: float, budget_w: float
) -> None:
    parking = Parking(PolicySettings(grid_limit_w=fixed_w))
    parking.car.values[vss.GRID_LIMIT] = sent_w
    assert parking.settle().budget_w == budget_w


def test_the_budget_is_what_the_grid_leaves_where_the_smallest_backend_fits() -> None:
    policy = Policy(PolicySettings(), frozenset(FULLY_EQUIPPED), compute_w=60, least_w=20)
    car = Car({**FULLY_EQUIPPED, vss.GRID_LIMIT: 25.0})
    _, memory = policy.judge(car.snapshot(0), FRESH, 0, unix_s=NOON_S)
    verdict, _ = policy.judge(car.snapshot(60 * NS), memory, 60 * NS, unix_s=NOON_S + 60)
    assert verdict.allowed
    assert verdict.budget_w == 25


HUGE: list[Value] = [10**400, -(10**400), 1e13, 1e308, -1e308, math.inf, -math.inf, math.nan]
NUMBERS = (
    *(vss.SPEED, vss.CHARGE_LINE_POWER, vss.PACK_CURRENT, vss.SOC, vss.PACK_TEMPERATURE_MIN),
    *(vss.PACK_TEMPERATURE_MAX, vss.CHIP_TEMPERATURE, vss.AMBIENT_TEMPERATURE, vss.LOW_VOLTAGE_BATTERY),
    *(vss.GRID_LIMIT, vss.TIME_TO_COMPLETE),
)


@pytest.mark.parametrize("path", NUMBERS)
def test_a_number_that_no_car_can_mean_never_allows_work_and_breaks_nothing(path: str) -> None:
    parking = Parking(orders=Orders(departure_s=NOON_S + 86_400)).settled()
    grace_s = 3.001
    for value in HUGE:
        parking.sees(path, value, after_s=10_000)
        assert not parking.look(after_s=grace_s).allowed


class TestPackUse:
    """True use by work in any 24 hours stays within the budget, whatever the reading hides."""

    @staticmethod
    def on_pack(reads_pct: float) -> Parking:
        parking = Parking(OPT_IN)
        parking.car.values |= {vss.CHARGE_LINE_POWER: 0.0, vss.CABLE_CONNECTED: False, vss.SOC: reads_pct}
        return parking.settled()

    def test_what_a_reading_in_whole_percents_hides_counts_each_time_anew(self) -> None:
        parking = self.on_pack(reads_pct=70.0)
        for _ in range(4):  # 70.9 falls to 70.1, then the grid charges it to 70.9 again
            parking.look(after_s=7200)
            parking.car.values |= {vss.CHARGE_LINE_POWER: 7200.0, vss.CABLE_CONNECTED: True}
            assert parking.settled().look().allowed
            parking.car.values |= {vss.CHARGE_LINE_POWER: 0.0, vss.CABLE_CONNECTED: False}
            parking.look()
        assert parking.look(after_s=60).on_pack
        parking.car.values |= {vss.CHARGE_LINE_POWER: 7200.0, vss.CABLE_CONNECTED: True}
        parking.settled()
        parking.car.values |= {vss.CHARGE_LINE_POWER: 0.0, vss.CABLE_CONNECTED: False}
        assert Reason.PACK_BUDGET in parking.reasons()

    def test_grid_power_that_is_not_proven_yet_is_energy_from_the_pack(self) -> None:
        parking = Parking(OPT_IN)
        parking.car.values[vss.SOC] = 59.9
        assert parking.reasons() == [Reason.PACK_BUDGET]
        assert parking.reasons(after_s=29.999) == [Reason.PACK_BUDGET]
        assert parking.look(after_s=0.001).settling
        ready = parking.look(after_s=60)
        assert ready.allowed
        assert not ready.on_pack

    def test_the_budget_is_there_again_24_hours_after_it_was_used(self) -> None:
        parking = self.on_pack(reads_pct=70.0)
        for soc_pct in (69.0, 68.0, 67.0, 66.0):
            assert parking.sees(vss.SOC, soc_pct, after_s=3600).allowed
        last = parking.sees(vss.SOC, 65.0, after_s=3600)
        assert [blocker.reason for blocker in last.blockers] == [Reason.PACK_BUDGET]
        assert last.next_ns == parking.now_ns + 20 * 3600 * NS
        assert parking.reasons(after_s=20 * 3600 - 0.001) == [Reason.PACK_BUDGET]
        assert parking.look(after_s=0.001).settling
        assert parking.look(after_s=180).on_pack
        assert parking.sees(vss.SOC, 64.0).allowed is False


def ends_drain(parking: Parking) -> None:
    parking.orders = Orders()


ECONOMIC = {
    "charge": (vss.SOC, 24.9, 64.0),
    "grid limit": (vss.GRID_LIMIT, 0.0, 11_000.0),
    "departure": (vss.TIME_TO_COMPLETE, 86_400.0, 0.0),
}


@pytest.mark.parametrize(("path", "bad", "good"), ECONOMIC.values(), ids=list(ECONOMIC))
def test_after_an_economic_cause_has_ended_work_it_must_stay_clear_for_180_s(
    path: str, bad: float, good: float
) -> None:
    parking = Parking(orders=Orders(departure_s=NOON_S + 80_000)).settled()
    assert not parking.sees(path, bad).urgent
    assert parking.sees(path, good, after_s=1).settling
    assert parking.look(after_s=100).settling
    parking.sees(path, bad)
    assert parking.sees(path, good, after_s=1).settling
    assert parking.look(after_s=179.999).settling
    assert parking.look(after_s=0.001).allowed


CLEARS = [
    *((door, True, False, 60) for door in vss.DOORS),
    (vss.DRIVER_LOCK, False, True, 60),
    (vss.GEAR, vss.GEAR_DRIVE, vss.GEAR_PARK, 60),
    (vss.SPEED, 5.0, 0.0, 60),
    (vss.CABLE_CONNECTED, False, True, 30),
    (vss.PACK_TEMPERATURE_MAX, 40.1, 35.0, 60),
    (vss.AMBIENT_TEMPERATURE, 42.1, 38.0, 60),
    (vss.CHIP_TEMPERATURE, 90.0, 75.0, 0),
    (vss.LOW_VOLTAGE_BATTERY, 11.7, 13.6, 0),
    (vss.COMPUTE_RAIL, "GOING_DOWN", "ON", 60),
]


@pytest.mark.parametrize(("path", "bad", "good", "window_s"), CLEARS)
def test_after_a_cue_has_cleared_work_waits_for_the_window_of_its_guard(
    path: str, bad: Value, good: Value, window_s: float
) -> None:
    parking = Parking().settled()
    assert parking.sees(path, bad).urgent
    parking.sees(path, good, after_s=0.001)
    if window_s:
        assert parking.look().settling
        assert parking.look(after_s=window_s - 0.001).settling
        parking.look(after_s=0.001)
    assert parking.look().allowed


def test_grid_power_that_was_lost_is_proven_anew() -> None:
    parking = Parking().settled()
    parking.sees(vss.CHARGE_LINE_POWER, 0.0)
    assert parking.reasons(after_s=3.001) == [Reason.NOT_GRID_POWERED]
    parking.sees(vss.CHARGE_LINE_POWER, 7200.0, after_s=0.001)
    assert parking.look(after_s=29.999).settling
    assert parking.look(after_s=0.001).allowed


def test_an_unknown_in_between_does_not_shorten_the_180_s() -> None:
    parking = Parking().settled()
    parking.sees(vss.SOC, 24.9)
    parking.car.qualities[vss.SOC] = Quality.STALE
    parking.sees(vss.SOC, 64.0, after_s=1)
    parking.car.qualities.clear()
    assert parking.look(after_s=1).settling
    assert parking.look(after_s=179.999).settling
    assert parking.look(after_s=0.001).allowed


def test_outside_of_the_schedule_work_ends_gently_and_begins_180_s_into_the_next_window() -> None:
    parking = Parking(PolicySettings(schedule=("mon-sun 00:00-13:00", "mon-sun 14:00-24:00"))).settled()
    one_o_clock_s = NOON_S + 3600
    verdict = parking.look(after_s=one_o_clock_s - parking.unix_s)
    assert [blocker.reason for blocker in verdict.blockers] == [Reason.OWNER_SCHEDULE]
    assert not verdict.urgent
    assert parking.look(after_s=3600).settling
    assert parking.look(after_s=179.999).settling
    assert parking.look(after_s=0.001).allowed


def test_a_departure_that_did_not_take_place_is_forgotten_after_an_hour() -> None:
    parking = Parking(orders=Orders(departure_s=NOON_S + 1200)).settled()
    assert parking.reasons(after_s=1000) == [Reason.DEPARTURE_SOON]
    late_s = NOON_S + 1200 + 3600 - parking.unix_s
    assert parking.reasons(after_s=late_s) == [Reason.DEPARTURE_SOON]
    assert parking.look(after_s=0.001).settling


@pytest.mark.parametrize(
    ("settings", "orders"),
    [
        (PolicySettings(schedule=("mon-sun 00:00-24:00",)), Orders()),
        (PolicySettings(), Orders(departure_s=NOON_S + 86_400)),
    ],
    ids=["schedule", "departure"],
)
def test_without_a_clock_that_can_be_trusted_what_needs_one_is_unknown(
    settings: PolicySettings, orders: Orders
) -> None:
    parking = Parking(settings, orders=orders).settled()
    parking.clock_is_known = False
    assert parking.reasons() == [Reason.UNKNOWN_SIGNAL]
