import pytest
from cars import PARKED_AND_CHARGING
from hypothesis import given
from hypothesis import strategies as st
from parking import Parking

from agent.policy.condition import Cause
from agent.policy.modes import Situation, mode_of
from agent.policy.orders import Orders
from agent.policy.settings import PolicySettings
from agent.policy.verdict import Policy
from agent.protocol.messages import Mode
from agent.protocol.reasons import Reason
from firmware_shims import vss
from firmware_shims.reading import Quality, Value

SETTINGS = PolicySettings()
POLICY = Policy(SETTINGS, frozenset(PARKED_AND_CHARGING), compute_w=60)


def test_a_parked_charging_cool_car_is_ready_after_the_settle_time_and_not_a_moment_before() -> None:
    parking = Parking()
    assert parking.look().settling
    assert parking.look(after_s=SETTINGS.settle_s - 0.001).settling
    ready = parking.look(after_s=0.001)
    assert ready.allowed
    assert ready.budget_w == 60


CUES: list[tuple[str, Value, Reason]] = [
    *((door, True, Reason.OWNER_PRESENT) for door in vss.DOORS),
    (vss.DRIVER_SEAT, True, Reason.OWNER_PRESENT),
    (vss.BRAKE, 3.0, Reason.OWNER_PRESENT),
    *((vss.LOW_VOLTAGE_STATE, state, Reason.OWNER_PRESENT) for state in ("ACC", "ON", "START", "UNDEFINED")),
    *((vss.GEAR, gear, Reason.NOT_PARKED) for gear in (0, 1, -1, vss.GEAR_DRIVE)),
    (vss.SPEED, 0.6, Reason.NOT_PARKED),
    (vss.SPEED, -2.0, Reason.NOT_PARKED),
    (vss.SOC, 19.9, Reason.CHARGE_LOW),
    (vss.SOC, 24.9, Reason.CHARGE_LOW),
    (vss.PACK_TEMPERATURE_MAX, 40.1, Reason.PACK_TEMPERATURE),
    (vss.PACK_TEMPERATURE_MIN, -0.1, Reason.PACK_TEMPERATURE),
    (vss.CHIP_TEMPERATURE, 90.0, Reason.CHIP_TEMPERATURE),
]


@pytest.mark.parametrize(
    ("path", "value", "reason"), CUES, ids=[f"{path[8:]}={value}" for path, value, _ in CUES]
)
def test_each_cue_alone_ends_work_in_the_same_look(path: str, value: Value, reason: Reason) -> None:
    parking = Parking()
    assert parking.settle().allowed
    parking.car.values[path] = value
    verdict = parking.look()
    assert not verdict.allowed
    assert [blocker.reason for blocker in verdict.blockers] == [reason]
    assert verdict.budget_w == 0


@pytest.mark.parametrize("quality", [Quality.STALE, Quality.INVALID, Quality.NEVER])
@pytest.mark.parametrize("path", sorted(PARKED_AND_CHARGING))
def test_each_signal_that_is_not_known_ends_work_at_once(path: str, quality: Quality) -> None:
    parking = Parking()
    assert parking.settle().allowed
    parking.car.qualities[path] = quality
    verdict = parking.look()
    assert verdict.urgent
    assert [(blocker.reason, blocker.value) for blocker in verdict.blockers] == [
        (Reason.UNKNOWN_SIGNAL, path)
    ]


@pytest.mark.parametrize("value", [float("nan"), "7200", False])
@pytest.mark.parametrize("path", [vss.SPEED, vss.SOC, vss.CHARGE_LINE_POWER, vss.CHIP_TEMPERATURE, vss.GEAR])
def test_a_value_of_the_wrong_kind_never_allows_work(path: str, value: Value) -> None:
    parking = Parking()
    parking.car.values[path] = value
    assert not parking.settle().allowed


def test_an_open_door_is_the_owner_even_while_the_seat_is_unknown() -> None:
    parking = Parking()
    parking.settle()
    parking.car.qualities[vss.DRIVER_SEAT] = Quality.STALE
    parking.car.values[vss.DRIVER_DOOR] = True
    assert parking.reasons() == [Reason.OWNER_PRESENT]


def test_grid_power_may_dip_for_three_seconds_and_no_longer() -> None:
    parking = Parking()
    parking.settle()
    parking.car.values[vss.CHARGE_LINE_POWER] = 0.0
    assert parking.look().allowed
    assert parking.look(after_s=SETTINGS.grid_lost_s).allowed
    assert parking.reasons(after_s=0.001) == [Reason.NOT_GRID_POWERED]


def test_a_dip_of_grid_power_before_it_was_proven_starts_the_proof_again() -> None:
    parking = Parking()
    parking.car.values[vss.PACK_CURRENT] = -0.6
    assert parking.reasons() == [Reason.NOT_GRID_POWERED]
    parking.car.values[vss.PACK_CURRENT] = 0.0
    parking.look(after_s=100)
    parking.car.values[vss.PACK_CURRENT] = -0.6
    assert not parking.look(after_s=SETTINGS.grid_proof_s - 1).allowed
    parking.car.values[vss.PACK_CURRENT] = 0.0
    parking.look(after_s=0.1)
    assert parking.look(after_s=SETTINGS.grid_proof_s - 1).settling
    assert parking.look(after_s=1).allowed


def test_grid_power_must_carry_the_computer() -> None:
    parking = Parking()
    parking.car.values[vss.CHARGE_LINE_POWER] = 1.1 * 60 - 0.1
    assert Reason.NOT_GRID_POWERED in parking.reasons()


def test_each_guard_has_its_own_hysteresis() -> None:
    parking = Parking()
    parking.car.values |= {vss.SOC: 29.0, vss.CHIP_TEMPERATURE: 76.0, vss.PACK_TEMPERATURE_MAX: 36.0}
    assert set(parking.reasons()) == {Reason.CHARGE_LOW, Reason.CHIP_TEMPERATURE, Reason.PACK_TEMPERATURE}
    parking.car.values |= {vss.SOC: 30.0, vss.CHIP_TEMPERATURE: 75.0, vss.PACK_TEMPERATURE_MAX: 35.0}
    assert parking.settle().allowed
    parking.car.values |= {vss.SOC: 25.0, vss.CHIP_TEMPERATURE: 79.0, vss.PACK_TEMPERATURE_MAX: 40.0}
    assert parking.look().allowed


def test_the_power_budget_derates_with_the_chip_before_it_reaches_zero() -> None:
    parking = Parking()
    parking.settle()
    budgets_w = []
    for chip_c in (79.0, 80.0, 85.0, 89.0):
        parking.car.values[vss.CHIP_TEMPERATURE] = chip_c
        budgets_w.append(parking.look().budget_w)
    assert budgets_w == pytest.approx([60, 60, 30, 6])


def test_low_charge_ends_work_gently_and_the_floor_at_once() -> None:
    parking = Parking()
    parking.settle()
    parking.car.values[vss.SOC] = 24.0
    assert not parking.look().urgent
    parking.car.values[vss.SOC] = 19.0
    assert parking.look().urgent


def test_a_drain_is_not_urgent_and_shows_as_its_own_mode() -> None:
    parking = Parking()
    parking.settle()
    parking.orders = Orders(draining=True)
    verdict = parking.look()
    assert not verdict.urgent
    assert [blocker.cause for blocker in verdict.blockers] == [Cause.ECONOMIC]
    assert mode_of(Situation(verdict, running=True, stopping=False)) is Mode.DRAINING


def test_modes_follow_the_verdict() -> None:
    parking = Parking()
    settling = parking.look()
    ready = parking.look(after_s=SETTINGS.settle_s)
    parking.car.values[vss.DRIVER_DOOR] = True
    blocked = parking.look()
    assert mode_of(Situation(settling, running=False, stopping=False)) is Mode.SETTLING
    assert mode_of(Situation(ready, running=False, stopping=False)) is Mode.READY
    assert mode_of(Situation(ready, running=True, stopping=False)) is Mode.WORKING
    assert mode_of(Situation(blocked, running=True, stopping=True)) is Mode.PREEMPTING
    assert mode_of(Situation(blocked, running=False, stopping=False)) is Mode.BLOCKED


def test_signals_that_no_source_offers_are_named() -> None:
    policy = Policy(
        SETTINGS, frozenset(PARKED_AND_CHARGING) - {vss.CHIP_TEMPERATURE, vss.DOORS[3]}, compute_w=60
    )
    assert policy.missing == {vss.CHIP_TEMPERATURE}


@given(
    st.lists(
        st.tuples(
            st.sampled_from([(path, value) for path, value, _ in CUES]),
            st.booleans(),
            st.floats(0, 100, allow_nan=False),
        ),
        max_size=30,
    )
)
def test_no_history_ends_in_work_while_a_cue_stands(
    steps: list[tuple[tuple[str, Value], bool, float]],
) -> None:
    parking = Parking()
    standing: set[str] = set()
    for (path, bad), broken, after_s in steps:
        parking.car.values[path] = bad if broken else PARKED_AND_CHARGING[path]
        (standing.add if broken else standing.discard)(path)
        verdict = parking.look(after_s)
        assert not (verdict.allowed and standing)
        assert bool(verdict.blockers) is not verdict.allowed


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"soc_stop_pct": 35}, "soc_stop_pct < soc_start_pct"),
        ({"soc_floor_pct": 10}, "greater than or equal to 20"),
        ({"chip_stop_c": 95}, "less than or equal to 90"),
        ({"require_grid_proof": False}, "say how much of it with pack_budget_pct_per_day, which is 0"),
        ({"pack_budget_pct_per_day": 3}, "has no effect with require_grid_proof = true"),
        ({"chip_trip_c": 98}, "chip_stop_c <= chip_trip_c - 9"),
        ({"schedule": ["mon-fri 22-6"]}, "should be like"),
        ({"time_zone": "Mars/Olympus"}, "no IANA time zone"),
        ({"pack_start_c": (-5, 35)}, "pack_start_c lies inside pack_stop_c"),
    ],
)
def test_guards_that_would_harm_the_car_are_refused(section: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        PolicySettings.model_validate(section)
