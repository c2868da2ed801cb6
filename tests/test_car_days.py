"""A few hundred simulated car-days: the policy keeps its promises, and the simulation would notice if it did not."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta

import pytest

from agent.policy.memory import Memory
from agent.policy.orders import Orders
from agent.policy.verdict import Policy, Verdict
from benchmarks import car_days, car_days_report
from benchmarks.car_day_counts import Counts, Loss, Promise, Told
from benchmarks.car_days import PolicyOf
from benchmarks.car_lives import Life
from benchmarks.car_traits import DAY_S, LIFE_DAYS, Traits, draw
from benchmarks.simulated_car import BOOTED_NS, NS, Car
from benchmarks.simulated_energy import CHARGER_EFFICIENCY
from benchmarks.simulated_sensors import Sensors
from firmware_shims import vss
from firmware_shims.reading import Reading, Snapshot, Value

DAYS, SEED = 400, 1
CARS = range(DAYS // LIFE_DAYS)


def simulated(processes: int) -> Counts:
    counts = Counts()
    for piece in car_days.simulate(DAYS, SEED, processes):
        counts.add(piece)
    return counts


@pytest.fixture(scope="module")
def counts() -> Counts:
    return simulated(processes=1)


def test_nothing_that_must_not_happen_did(counts: Counts) -> None:
    assert counts.broken == dict.fromkeys(Promise, 0.0)
    assert counts.departures[Told.IN_TIME].below == 0


@pytest.mark.parametrize("promise", Promise, ids=lambda promise: promise.name)
def test_each_promise_was_challenged(counts: Counts, promise: Promise) -> None:
    assert counts.challenged[promise] > 0


def test_every_second_is_either_usable_or_lost_for_a_reason(counts: Counts) -> None:
    usable_s = sum(minutes * days for minutes, days in counts.usable_min.items()) * 60
    assert counts.days == sum(counts.usable_min.values()) == DAYS
    assert usable_s + sum(counts.lost_s.values()) == pytest.approx(DAYS * DAY_S, rel=1e-3)
    assert usable_s > 0
    assert counts.lost_s[Loss.CHARGE_ENDED] > 0
    assert counts.lost_s[Loss.OTHER] == 0


def test_the_number_of_processes_changes_nothing(counts: Counts) -> None:
    assert simulated(processes=2) == counts


def test_the_report_has_a_line_of_its_own_for_charging_that_had_ended(counts: Counts) -> None:
    report = "\n".join(car_days_report.lines(counts, SEED, 1.0, 1))
    assert "plugged in, but grid power not proven because charging had ended" in report
    for promise in Promise:
        assert f"{promise.broken:<55} {0:>9}" in report


# A 0 means something only if a worse policy does not get it.


@dataclass(frozen=True)
class Misled:
    """The real policy, to which something is told that is not so."""

    policy: Policy
    shown: dict[str, Value]
    orders: Callable[[Orders], Orders]

    def judge(
        self, snapshot: Snapshot, memory: Memory, now_ns: int, *, orders: Orders, unix_s: float | None
    ) -> tuple[Verdict, Memory]:
        wrong = {
            path: Reading(path, self.shown[path], "wrong", now_ns)
            for path in snapshot.readings
            if path in self.shown
        }
        misled = Snapshot(snapshot.at_ns, {**snapshot.readings, **wrong})
        return self.policy.judge(misled, memory, now_ns, orders=self.orders(orders), unix_s=unix_s)


def misled(
    shown: dict[str, Value] | None = None, orders: Callable[[Orders], Orders] = lambda orders: orders
) -> PolicyOf:
    return lambda traits: Misled(car_days.real_policy(traits), shown or {}, orders)


def set_to(**limits: float) -> PolicyOf:
    """The real policy with limits that no configuration file may have."""

    def policy_of(traits: Traits) -> Policy:
        real = car_days.real_policy(traits)
        return replace(real, settings=real.settings.model_copy(update=limits))

    return policy_of


NO_FLOOR = set_to(
    soc_floor_pct=0.0, soc_stop_pct=0.0, soc_start_pct=0.0, pack_soc_stop_pct=0.0, pack_soc_start_pct=0.0
)
WORSE: list[tuple[str, PolicyOf, Promise]] = [
    ("does not see the driver's door", misled({vss.DRIVER_DOOR: False}), Promise.OWNER),
    ("does not see the lock", misled({vss.DRIVER_LOCK: True}), Promise.OWNER),
    ("does not see the speed", misled({vss.SPEED: 0.0}), Promise.PARKED),
    ("has no floor", NO_FLOOR, Promise.FLOOR),
    ("has five minutes of grace", set_to(grid_lost_s=300.0), Promise.GRID),
    (
        "believes in grid power that is not there",
        misled({vss.CHARGE_LINE_POWER: 9e3, vss.PACK_CURRENT: 9.0}),
        Promise.BUDGET,
    ),
    (
        "knows of no departure",
        misled(orders=lambda orders: replace(orders, departure_s=None)),
        Promise.DEPARTURE,
    ),
    ("starts as often as it likes", set_to(starts_per_hour=1000), Promise.STARTS),
    (
        "takes consent for granted",
        misled(orders=lambda orders: replace(orders, consent=True)),
        Promise.WORD,
    ),
    ("ignores drains", misled(orders=lambda orders: replace(orders, draining=False)), Promise.HOURS),
    ("lets the chip boil", set_to(chip_stop_c=120.0, chip_derate_c=110.0, chip_resume_c=105.0), Promise.HEAT),
    ("does not see the low-voltage supply", misled({vss.LOW_VOLTAGE_BATTERY: 13.9}), Promise.SUPPLY),
]


@pytest.mark.parametrize(
    ("policy_of", "promise"), [case[1:] for case in WORSE], ids=[case[0] for case in WORSE]
)
def test_a_policy_is_caught_that(policy_of: PolicyOf, promise: Promise) -> None:
    assert any(car_days.live(SEED, [number], policy_of).broken[promise] for number in CARS)


# The physics, by hand.


def plugged_in(number: int = 0) -> Car:
    car = Car(draw(SEED, number), soc_pct=50.0)
    car.plug_in(3700.0, in_the_mood=True)
    car.settle()
    return car


def after(car: Car, hours: float) -> Car:
    car.pass_to(car.now_ns + int(hours * 3600 * NS))
    return car


def test_work_slows_charging_by_what_it_draws() -> None:
    idle, working = plugged_in(), plugged_in()
    working.energy.work_w = 300.0
    idle_pct, working_pct = (after(car, 1.0).energy.charge.pct for car in (idle, working))
    assert idle_pct - working_pct == pytest.approx(100 * 300 / idle.traits.machine.pack_wh)
    assert working.energy.idle.pct == pytest.approx(idle_pct)


def test_charging_ends_at_the_target_and_the_line_carries_nothing_with_the_cable_in() -> None:
    car = next(car for car in map(plugged_in, range(50)) if not car.traits.charging.holds_by_grid)
    assert car.energy.line_w == 3700.0
    while not car.energy.charge.full:
        car.pass_to(car.next_ns())
        car.settle()
    assert car.energy.charge.pct == pytest.approx(car.traits.charging.target_pct, abs=0.01)
    assert car.energy.cable_w == 3700.0
    assert car.energy.line_w == 0.0
    car.read_line()
    assert car.sensors.value(vss.CHARGE_LINE_POWER) == 0.0


def test_work_that_the_line_does_not_carry_comes_out_of_the_pack() -> None:
    car = plugged_in()
    car.energy.work_w = 300.0
    assert car.energy.from_pack_w == 0.0
    car.supply("mains", 0.0)
    assert car.energy.from_pack_w == 300.0
    car.supply("mains", 0.05)
    assert car.energy.from_pack_w == pytest.approx(300 - 3700 * 0.05 * CHARGER_EFFICIENCY)


def test_a_car_that_nobody_needs_falls_asleep_and_shows_only_what_the_computer_reads_itself() -> None:
    car = Car(draw(SEED, 0), soc_pct=50.0)
    while not car.asleep:
        car.pass_to(car.next_ns())
        car.settle()
    assert vss.GEAR not in car.snapshot().readings
    assert vss.CHIP_TEMPERATURE in car.snapshot().readings
    car.touch({vss.DRIVER_DOOR: True}, owner=True)
    car.settle()
    assert car.snapshot().good(vss.DRIVER_DOOR) is True


@pytest.mark.parametrize("reads", [39.9, 40.1])
def test_a_reading_that_leaves_a_limit_on_which_it_stood_is_looked_at(reads: float) -> None:
    sensors = Sensors([vss.PACK_TEMPERATURE_MAX], {vss.PACK_TEMPERATURE_MAX: (39.0, 40.0, 41.0)})
    sensors.show(vss.PACK_TEMPERATURE_MAX, 40.0, BOOTED_NS)
    sensors.changed = False
    sensors.show(vss.PACK_TEMPERATURE_MAX, reads, BOOTED_NS)
    assert sensors.changed


def test_a_car_that_stood_at_the_limit_in_a_summer_night_is_looked_at_when_it_gets_warmer() -> None:
    """Drawn once among a million days: the pack read 40.0 at one step of the weather and 40.7 at the next."""
    assert car_days.live(10, [3626]).broken == dict.fromkeys(Promise, 0.0)


def test_a_car_does_not_switch_itself_off_under_an_owner_who_came_back() -> None:
    car = Car(draw(SEED, 0), soc_pct=50.0)
    car.touch({vss.LOW_VOLTAGE_STATE: "ACC"}, owner=True)
    car.switch_off()
    assert car.snapshot().good(vss.LOW_VOLTAGE_STATE) == "ACC"
    car.touch({}, owner=False)
    car.switch_off()
    assert car.snapshot().good(vss.LOW_VOLTAGE_STATE) == "OFF"


def test_the_owner_who_came_back_before_the_car_had_switched_itself_off_is_left_alone() -> None:
    """Drawn once among 800,000 days: nothing but the ignition showed that somebody sat inside."""
    assert car_days.live(5, [2848]).broken == dict.fromkeys(Promise, 0.0)


def test_a_life_is_the_same_each_time_it_is_drawn_and_covers_all_its_days() -> None:
    first, second = (Life(draw(SEED, 3)).happenings() for _ in range(2))
    assert [happening[:2] for happening in first] == [happening[:2] for happening in second]
    days = {(at_ns - BOOTED_NS) // (DAY_S * NS) for at_ns, _, _ in first}
    assert days == set(range(LIFE_DAYS))


def offset_changes(traits: Traits) -> bool:
    return traits.begins.utcoffset() != (traits.begins + timedelta(days=LIFE_DAYS - 1)).utcoffset()


def test_the_owners_nights_are_an_hour_longer_or_shorter_when_the_clocks_change() -> None:
    fleet = (draw(SEED, number) for number in range(2000))
    nightly = (traits for traits in fleet if traits.schedule and traits.schedule[0].from_h == 22)
    traits = next(traits for traits in nightly if offset_changes(traits))
    car, began_ns, nights_h = Car(traits, soc_pct=50.0), BOOTED_NS, []
    for at_ns, _, befall in Life(traits).happenings():
        before = car.in_hours
        befall(car)
        if before and not car.in_hours and began_ns > BOOTED_NS:
            nights_h.append(round((at_ns - began_ns) / NS / 3600))
        elif car.in_hours and not before:
            began_ns = at_ns
    assert sorted(set(nights_h)) in ([7, 8], [8, 9])
    assert len(nights_h) - nights_h.count(8) == 1
