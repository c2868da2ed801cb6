import logging
from pathlib import Path
from typing import Any

import pytest
from cars import HandClock
from listening import Ear, listening

from agent.check.sources import signal_source
from firmware_shims import vss
from firmware_shims.clock import boottime_ns
from firmware_shims.linux import LinuxSensors, open_sensors
from firmware_shims.reading import Quality, Value
from firmware_shims.registry import open_source

OWN_POWER = "Vehicle.Compute.Power"


class Sysfs:
    """A computer's sensors: files as the kernel writes them."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def zone(self, number: int, kind: str, temp: str) -> Path:
        return self._device(f"thermal/thermal_zone{number}", type=f"{kind}\n", temp=temp)

    def chip(self, number: int, name: str, **files: str) -> Path:
        return self._device(f"hwmon/hwmon{number}", name=f"{name}\n", **files)

    def supply(self, name: str, **files: str) -> Path:
        return self._device(f"power_supply/{name}", **files)

    def monitor(self, number: int) -> Path:
        """An INA3221 with two rails, one channel with nothing connected, and the sum that its driver adds."""
        files = {"in1_label": "VDD_IN", "in1_input": "5040", "curr1_input": "1250"}
        files |= {"in2_label": "NC", "in2_input": "0", "curr2_input": "0"}
        files |= {"in3_label": "VDD_CPU_GPU", "in3_input": "4990", "curr3_input": "400"}
        files |= {"in7_label": "sum of shunt voltages", "in7_input": "3", "in4_input": "1"}
        return self.chip(number, "ina3221", **files)

    def _device(self, place: str, **files: str) -> Path:
        folder = self.root / "class" / place
        folder.mkdir(parents=True)
        for file, text in files.items():
            (folder / file).write_text(text)
        return folder


@pytest.fixture
def sysfs(tmp_path: Path) -> Sysfs:
    return Sysfs(tmp_path)


def opened(sysfs: Sysfs, **sensors: str | list[str]) -> LinuxSensors:
    return open_sensors("linux", None, {"sensors": sensors, "root": str(sysfs.root)}, HandClock())


def value(sysfs: Sysfs, path: str, *sensors: str) -> Value | None:
    """What the agent is told of `path`; None only ever comes as an invalid reading."""
    (reading,) = opened(sysfs, **{path: list(sensors)}).readings()
    assert (reading.path, reading.source) == (path, "linux")
    assert (reading.quality is Quality.INVALID) == (reading.value is None)
    return reading.value


def chip_c(sysfs: Sysfs, *sensors: str) -> Value | None:
    return value(sysfs, vss.CHIP_TEMPERATURE, *sensors)


def test_the_hottest_of_the_named_zones_counts_whatever_their_numbers(sysfs: Sysfs) -> None:
    sysfs.zone(0, "gpu-thermal", "51250\n")
    sysfs.zone(1, "battery", "99000\n")
    sysfs.zone(7, "cpu-thermal", "48000\n")
    assert chip_c(sysfs, "thermal:cpu-thermal", "thermal:gpu-thermal") == 51.25


def test_two_zones_of_one_type_are_both_asked(sysfs: Sysfs) -> None:
    sysfs.zone(0, "acpitz", "41000\n")
    other = sysfs.zone(1, "acpitz", "43000\n")
    assert chip_c(sysfs, "thermal:acpitz") == 43
    (other / "temp").write_text("")
    assert chip_c(sysfs, "thermal:acpitz") is None


def test_a_hwmon_chip_is_found_by_its_name_and_its_input_by_its_label(sysfs: Sysfs) -> None:
    sysfs.chip(0, "nvme", temp1_label="Composite\n", temp1_input="70000")
    sysfs.chip(3, "tegra", temp1_label="GPU", temp1_input="45500", temp2_label="CPU", temp2_input="47000")
    assert chip_c(sysfs, "hwmon:tegra/GPU") == 45.5
    assert chip_c(sysfs, "hwmon:tegra/CPU") == 47
    assert chip_c(sysfs, "hwmon:tegra") == 47
    assert chip_c(sysfs, "hwmon:tegra/PLL") is None


def test_an_input_without_a_label_goes_by_its_chip(sysfs: Sysfs) -> None:
    sysfs.chip(2, "tmp102", temp1_input="38125")
    assert chip_c(sysfs, "hwmon:tmp102") == 38.125


def test_a_chip_that_reports_a_broken_sensor_is_unknown(sysfs: Sysfs) -> None:
    chip = sysfs.chip(0, "lm90", temp1_input="25000", temp1_fault="0")
    assert chip_c(sysfs, "hwmon:lm90") == 25
    (chip / "temp1_fault").write_text("1\n")
    assert chip_c(sysfs, "hwmon:lm90") is None


def test_a_supply_gives_the_voltage_of_the_low_voltage_battery(sysfs: Sysfs) -> None:
    sysfs.supply("12v", voltage_now="13620000\n", temp="215\n", power_now="9100000")
    assert value(sysfs, vss.LOW_VOLTAGE_BATTERY, "power_supply:12v") == 13.62
    assert value(sysfs, vss.AMBIENT_TEMPERATURE, "power_supply:12v") == 21.5
    assert value(sysfs, OWN_POWER, "power_supply:12v") == 9.1
    assert value(sysfs, vss.LOW_VOLTAGE_BATTERY, "power_supply:48v") is None


def test_a_rail_of_a_power_monitor_has_volts_and_volts_times_amperes(sysfs: Sysfs) -> None:
    monitor = sysfs.monitor(4)
    assert value(sysfs, vss.LOW_VOLTAGE_BATTERY, "ina3221:VDD_IN") == 5.04
    assert value(sysfs, OWN_POWER, "ina3221:VDD_IN") == 6.3
    assert value(sysfs, OWN_POWER, "ina3221:VDD_CPU_GPU") == 1.996
    (monitor / "curr1_input").unlink()
    assert value(sysfs, OWN_POWER, "ina3221:VDD_IN") is None


def test_other_inputs_of_hwmon_in_volts_and_watts(sysfs: Sysfs) -> None:
    sysfs.chip(0, "board", in0_label="12V", in0_input="12870", power1_label="SoC", power1_input="7250000")
    assert value(sysfs, vss.LOW_VOLTAGE_BATTERY, "hwmon:board/12V") == 12.87
    assert value(sysfs, OWN_POWER, "hwmon:board/SoC") == 7.25


def test_two_supplies_of_one_name_are_no_answer(sysfs: Sysfs) -> None:
    sysfs.monitor(0)
    assert value(sysfs, vss.LOW_VOLTAGE_BATTERY, "ina3221:VDD_IN") is not None
    sysfs.monitor(1)
    assert value(sysfs, vss.LOW_VOLTAGE_BATTERY, "ina3221:VDD_IN") is None


@pytest.mark.parametrize("temp", ["", "hot", "\x00", "\udcff", "-274000", "2147483647", "4e4"])
def test_a_sensor_that_does_not_answer_is_unknown_and_never_cold(sysfs: Sysfs, temp: str) -> None:
    zone = sysfs.zone(0, "cpu-thermal", "")
    (zone / "temp").write_bytes(temp.encode(errors="surrogateescape"))
    sysfs.zone(1, "gpu-thermal", "40000")
    assert chip_c(sysfs, "thermal:cpu-thermal", "thermal:gpu-thermal") is None


def test_a_freezing_chip_is_cold_and_known(sysfs: Sysfs) -> None:
    sysfs.zone(0, "cpu-thermal", "-12500\n")
    assert chip_c(sysfs, "thermal:cpu-thermal") == -12.5


def test_a_computer_without_sensors_knows_nothing(sysfs: Sysfs) -> None:
    for sensor in ("thermal:cpu-thermal", "hwmon:tegra/CPU", "power_supply:12v"):
        assert chip_c(sysfs, sensor) is None
    assert value(sysfs, vss.LOW_VOLTAGE_BATTERY, "ina3221:VDD_IN") is None


def test_the_agent_hears_the_temperature_and_its_loss(sysfs: Sysfs) -> None:
    folder = sysfs.zone(0, "cpu-thermal", "45000")
    options = {"sensors": {vss.CHIP_TEMPERATURE: "thermal:cpu-thermal"}, "root": str(sysfs.root)}
    source = open_source("linux", name="linux", map=None, options=options, clock=boottime_ns)
    ear = Ear()
    with listening(source, ear):
        ear.wait_for(vss.CHIP_TEMPERATURE, 45.0)
        (folder / "temp").unlink()
        assert ear.wait_for(vss.CHIP_TEMPERATURE, None).quality is Quality.INVALID
        ear.wait_until(lambda: len(ear.heard_ns) > 2, "a third round")


def test_the_operator_is_told_once_who_is_silent_and_who_is_there(
    sysfs: Sysfs, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    sysfs.monitor(0)
    source = opened(sysfs, **{vss.LOW_VOLTAGE_BATTERY: "ina3221:VDD_SOC", OWN_POWER: "ina3221:VDD_IN"})
    source.readings()
    source.readings()
    told = "signals linux: ina3221:VDD_SOC does not answer; here: ina3221:VDD_CPU_GPU, ina3221:VDD_IN"
    assert caplog.messages == [told]
    sysfs.chip(1, "ina3221", in2_label="VDD_SOC", in2_input="850")
    source.readings()
    assert caplog.messages == [told, "signals linux: ina3221:VDD_SOC answers"]


async def test_the_check_says_which_sensor_is_silent_and_which_this_computer_has(sysfs: Sysfs) -> None:
    sysfs.zone(0, "soc-thermal", "45000")
    missing, _ = await signal_source(opened(sysfs, **{vss.CHIP_TEMPERATURE: "thermal:cpu-thermal"}))
    assert not missing.ok
    assert "thermal:cpu-thermal does not answer; here: thermal:soc-thermal" in missing.text
    there, heard = await signal_source(opened(sysfs, **{vss.CHIP_TEMPERATURE: "thermal:soc-thermal"}))
    assert there.ok
    assert heard == {vss.CHIP_TEMPERATURE}


CHIP = vss.CHIP_TEMPERATURE
SUPPLY = vss.LOW_VOLTAGE_BATTERY


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "missing required field `sensors`"),
        ({"sensors": {}}, r"options\.sensors: Expected `object` of length >= 1"),
        ({"sensors": {CHIP: []}}, r"options\.sensors\[\.\.\.\]: Expected `array` of length >= 1"),
        ({"sensors": {CHIP: 0}}, r"options\.sensors\[\.\.\.\]: Expected `str \| array`"),
        ({"sensors": {CHIP: "thermal:a"}, "zones": 1}, "unknown field `zones`"),
        ({"sensors": {CHIP: "thermal:a"}, "root": 5}, r"options\.root: Expected `str`"),
        ({"sensors": {CHIP: "thermal_zone0"}}, f"{CHIP}: 'thermal_zone0' is no sensor: write thermal:TYPE"),
        ({"sensors": {CHIP: ["thermal:"]}}, "'thermal:' is no sensor"),
        ({"sensors": {CHIP: "ina3221:VDD_IN"}}, "'ina3221:VDD_IN' measures no temperature"),
        ({"sensors": {SUPPLY: "thermal:cpu"}}, "'thermal:cpu' measures no voltage"),
        ({"sensors": {SUPPLY: "ina3221:NC"}}, "'ina3221:NC' is no rail: nothing is connected"),
        ({"sensors": {SUPPLY: ["hwmon:a/b", "hwmon:a/c"]}}, "has 2 sensors; only a temperature"),
        ({"sensors": {vss.SPEED: "thermal:cpu"}}, "Vehicle.Speed cannot be fed: the path must end in one of"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says) as refusal:
        open_source("linux", name="linux", map=None, options=options, clock=boottime_ns)
    assert "\n" not in str(refusal.value)


def test_sensors_take_no_map() -> None:
    with pytest.raises(ValueError, match=r"map = 'tesla_model3': .* take no map; remove it"):
        open_source("linux", name="linux", map="tesla_model3", options={}, clock=boottime_ns)
