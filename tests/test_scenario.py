import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from listening import Ear, listening

from firmware_shims import scenario, vss
from firmware_shims.clock import boottime_ns
from firmware_shims.reading import Quality, Reading, Value
from firmware_shims.scenario import Change, Scenario, ScenarioError, Script


def parked() -> Scenario:
    return Scenario("scenario", scenario.load(scenario.PARKED_AND_CHARGING), boottime_ns)


def test_a_parked_and_charging_car() -> None:
    car, ear = parked(), Ear()
    with listening(car, ear):
        ear.wait_until(lambda: bool(ear.heard_ns), "the first round")
    values = {reading.path: reading.value for reading in ear.readings}
    assert values == {
        vss.LOW_VOLTAGE_STATE: "OFF",
        vss.GEAR: vss.GEAR_PARK,
        vss.SPEED: 0,
        vss.BRAKE: 0,
        vss.DRIVER_SEAT: False,
        **dict.fromkeys(vss.DOORS, False),
        vss.DRIVER_LOCK: True,
        vss.SOC: 64,
        vss.PACK_CURRENT: 15,
        vss.PACK_VOLTAGE: 380,
        vss.PACK_TEMPERATURE_MIN: 22,
        vss.PACK_TEMPERATURE_MAX: 24,
        vss.IS_CHARGING: True,
        vss.CHARGE_LINE_POWER: 7200,
        vss.CHIP_TEMPERATURE: 45,
        vss.LOW_VOLTAGE_BATTERY: 13.6,
        vss.AMBIENT_TEMPERATURE: 18,
        vss.COMPUTE_RAIL: "ON",
    }
    assert set(values) == set(car.stale_after_s)


def test_every_signal_is_refreshed_long_before_it_is_stale() -> None:
    car, ear = parked(), Ear()
    with listening(car, ear):
        ear.wait_until(lambda: len(ear.heard_ns) > 5, "five rounds")
    for path in car.stale_after_s:
        assert len([reading for reading in ear.readings if reading.path == path]) > 5
    assert ear.readings[-1].stamp_ns > ear.readings[0].stamp_ns


def test_the_door_has_been_delivered_by_the_owners_own_thread() -> None:
    class ThreadEar(Ear):
        def update(self, readings: Sequence[Reading]) -> None:
            super().update(readings)
            threads.setdefault(threading.current_thread(), []).extend(readings)

    threads: dict[threading.Thread, list[Reading]] = {}
    car, ear = parked(), ThreadEar()
    with listening(car, ear):
        ear.wait_until(lambda: bool(ear.heard_ns), "the first round")
        car.open_door()
        (cue,) = threads[threading.current_thread()]
        assert (cue.path, cue.value, cue.quality) == (vss.DRIVER_DOOR, True, Quality.GOOD)
        before = len(ear.readings)
        car.close_door()
        ear.wait_for(vss.DRIVER_DOOR, False, after=before)


def test_a_change_before_the_start_counts_from_the_start() -> None:
    car, ear = parked(), Ear()
    car.open_door()
    with listening(car, ear):
        ear.wait_for(vss.DRIVER_DOOR, True)
    assert False not in {r.value for r in ear.readings if r.path == vss.DRIVER_DOOR}


def test_a_sensor_that_does_not_answer_is_invalid() -> None:
    car, ear = parked(), Ear()
    with listening(car, ear):
        car.set(vss.CHIP_TEMPERATURE, None)
        assert ear.wait_for(vss.CHIP_TEMPERATURE, None).quality is Quality.INVALID


def test_a_car_has_only_the_signals_of_its_script() -> None:
    with pytest.raises(ValueError, match=r"this car has no Vehicle.Sunroof"):
        parked().set("Vehicle.Sunroof", True)


def test_changes_come_when_they_are_due(tmp_path: Path) -> None:
    file = tmp_path / "drive.toml"
    file.write_text(
        '[initial]\n"Vehicle.Speed" = 0\n'
        '[[change]]\nat_s = 0.25\npath = "Vehicle.Speed"\nvalue = 30.5\n'
        '[[change]]\nat_s = 0.15\npath = "Vehicle.Speed"\nvalue = 3\n'
        '[[change]]\nat_s = 0.3\npath = "Vehicle.Speed"\n'
    )
    car, ear = Scenario("drive", scenario.load(str(file)), boottime_ns), Ear()
    began_ns = boottime_ns()
    with listening(car, ear):
        gone = ear.wait_for(vss.SPEED, None)
    values: list[Value | None] = []
    for reading in ear.readings:
        if not values or values[-1] != reading.value:
            values.append(reading.value)
    assert values == [0, 3, 30.5, None]
    assert gone.stamp_ns - began_ns >= 300_000_000


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "missing required field `initial`"),
        ("[initial]\n'A' = inf", "A is inf: a number must be finite"),
        ("[initial]\n'A' = [1]", "Expected `bool | float | str`"),
        ("[initial]\n[[change]]\nat_s = -1\npath = 'A'\nvalue = 1", "`float` >= 0"),
        ("[initial]\n[[change]]\nat = 1\npath = 'A'\nvalue = 1", "unknown field `at`"),
        ("[initial", "Expected ']'"),
    ],
)
def test_a_scenario_with_a_mistake_is_refused_in_one_line(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "scenario.toml"
    file.write_text(text)
    with pytest.raises(ScenarioError) as refusal:
        scenario.load(str(file))
    assert says in str(refusal.value)
    assert str(file) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_script_can_be_written_in_code() -> None:
    script = Script(initial={vss.SPEED: 0}, changes=(Change(at_s=0, path=vss.GEAR, value=vss.GEAR_PARK),))
    car, ear = Scenario("code", script, boottime_ns), Ear()
    with listening(car, ear):
        ear.wait_for(vss.GEAR, vss.GEAR_PARK)


def test_an_unknown_scenario_names_the_known_ones() -> None:
    with pytest.raises(ScenarioError, match=r"no scenario 'asleep'.*one of: parked_and_charging"):
        scenario.load("asleep")
