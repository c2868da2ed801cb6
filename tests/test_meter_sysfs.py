from pathlib import Path

import pytest
from cars import NS, Car, HandClock
from meters import Sysfs, open_to_all, without_rights

from firmware_shims import vss
from firmware_shims.power.hwmon import HwmonCounter, hwmon_power
from firmware_shims.power.ina3221 import ina3221
from firmware_shims.power.meter import JouleSource, Meter, MeterFailed, Scope
from firmware_shims.power.pack import pack
from firmware_shims.power.rapl import RaplMeter
from firmware_shims.power.sampled import SampledMeter
from firmware_shims.reading import Quality


@pytest.fixture
def sysfs(tmp_path: Path) -> Sysfs:
    return Sysfs(tmp_path)


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


def failure(meter: Meter) -> MeterFailed:
    with pytest.raises(MeterFailed) as failed:
        meter.read()
    assert failed.value.fix
    return failed.value


def test_packages_are_added_up_and_nothing_counts_twice(sysfs: Sysfs, clock: HandClock) -> None:
    packages = [
        sysfs.package("intel-rapl:0", "package-0", 7_000_000),
        sysfs.package("intel-rapl:1", "package-1"),
    ]
    parts = [
        sysfs.package("intel-rapl:0:0", "core"),
        sysfs.package("intel-rapl:0:1", "dram"),
        sysfs.package("intel-rapl:2", "psys"),
        sysfs.package("intel-rapl-mmio:0", "package-0"),
    ]
    meter = RaplMeter(clock, sysfs.root)
    begin = meter.read()
    packages[0].write_text("9500000\n")
    packages[1].write_text("1000000\n")
    for part in parts:
        part.write_text("900000000\n")
    clock.forward(1)
    end = meter.read()
    assert end.joules - begin.joules == pytest.approx(3.5)
    assert end.since_ns == begin.at_ns
    assert meter.name == "rapl package-0, package-1"


def test_a_package_counter_wraps_around_at_its_range(sysfs: Sysfs, clock: HandClock) -> None:
    counter = sysfs.package("intel-rapl:0", "package-0", 65_532_000_000, 65_532_610_987)
    meter = RaplMeter(clock, sysfs.root)
    begin = meter.read()
    counter.write_text("389013\n")
    clock.forward(1)
    end = meter.read()
    assert end.joules - begin.joules == pytest.approx(1.0)
    assert end.since_ns == begin.at_ns


def test_a_counter_that_may_have_wrapped_unseen_breaks_the_count(sysfs: Sysfs, clock: HandClock) -> None:
    counter = sysfs.package("intel-rapl:0", "package-0", 0, 65_532_610_987)
    meter = RaplMeter(clock, sysfs.root)
    meter.read()
    counter.write_text("1000000\n")
    clock.forward(120)
    late = meter.read()
    assert late.since_ns == late.at_ns


def test_a_counter_that_only_root_may_read_says_so_and_how_to_change_it(clock: HandClock) -> None:
    with open_to_all() as folder:
        counter = Sysfs(folder).package("intel-rapl:0", "package-0")
        counter.chmod(0o400)
        meter = RaplMeter(clock, folder)
        with without_rights():
            failed = failure(meter)
        assert failed.why == f"{counter}: permission denied"
        assert str(counter) in failed.fix


def test_a_computer_without_rapl_says_what_is_there(sysfs: Sysfs, clock: HandClock) -> None:
    assert "no RAPL here" in failure(RaplMeter(clock, sysfs.root)).why
    sysfs.package("intel-rapl:0", "psys")
    assert "only psys here" in failure(RaplMeter(clock, sysfs.root)).why


def test_a_package_that_goes_away_fails_until_it_is_back(sysfs: Sysfs, clock: HandClock) -> None:
    counter = sysfs.package("intel-rapl:0", "package-0", 1_000_000)
    meter = RaplMeter(clock, sysfs.root)
    meter.read()
    counter.unlink()
    assert "energy_uj" in failure(meter).why
    counter.write_text("5000000\n")
    clock.forward(1)
    again = meter.read()
    assert again.since_ns == again.at_ns


def test_sensors_that_count_joules_are_added_up(sysfs: Sysfs, clock: HandClock) -> None:
    chip = sysfs.chip(3, "amd_energy", energy1_label="Esocket0", energy1_input=2_000_000, energy2_input=0)
    meter = HwmonCounter(["hwmon:amd_energy/Esocket0"], clock, sysfs.root)
    begin = meter.read()
    (chip / "energy1_input").write_text("4500000\n")
    clock.forward(1)
    assert meter.read().joules - begin.joules == pytest.approx(2.5)
    assert meter.source is JouleSource.COUNTER


def test_a_counter_of_a_chip_that_was_reset_breaks_the_count(sysfs: Sysfs, clock: HandClock) -> None:
    chip = sysfs.chip(3, "ina228", energy1_input=2_000_000)
    meter = HwmonCounter(["hwmon:ina228"], clock, sysfs.root)
    meter.read()
    (chip / "energy1_input").write_text("10\n")
    clock.forward(1)
    after = meter.read()
    assert after.since_ns == after.at_ns


def test_the_power_of_a_rail_is_integrated_by_trapezoids(sysfs: Sysfs, clock: HandClock) -> None:
    chip = sysfs.monitor(("VDD_IN", 5000, 1000), ("NC", 0, 0), ("VDD_SOC", 5000, 200))
    meter = ina3221(["VDD_IN"], clock, sysfs.root)
    begin = meter.read()
    (chip / "curr1_input").write_text("3000\n")
    clock.forward(0.1)
    assert meter.read().joules - begin.joules == pytest.approx(0.1 * (5 + 15) / 2)
    clock.forward(0.2)
    end = meter.read()
    assert end.joules - begin.joules == pytest.approx(1.0 + 0.2 * 15)
    assert end.since_ns == begin.at_ns
    assert (meter.source, meter.scope) == (JouleSource.INTEGRATED, Scope.COMPUTER)


def test_a_gap_between_looks_is_unknown_and_counts_nothing(sysfs: Sysfs, clock: HandClock) -> None:
    sysfs.monitor(("VDD_IN", 5000, 1000))
    meter = ina3221(["VDD_IN"], clock, sysfs.root)
    before = meter.read()
    clock.forward(0.6)
    after = meter.read()
    assert (after.joules, after.since_ns) == (before.joules, after.at_ns)


def test_a_look_that_fails_is_a_gap(clock: HandClock) -> None:
    powers_w = iter([10.0, None, 10.0, 10.0])

    def watts() -> float:
        power_w = next(powers_w)
        if power_w is None:
            raise MeterFailed("gone", "plug it in")
        return power_w

    meter = SampledMeter("hand", Scope.RAILS, watts, clock, resolution_w=0.1)
    meter.read()
    clock.forward(0.1)
    failure(meter)
    clock.forward(0.1)
    after = meter.read()
    assert (after.joules, after.since_ns) == (0.0, after.at_ns)
    clock.forward(0.1)
    assert meter.read().joules == pytest.approx(1.0)


@pytest.mark.parametrize("rails", [["VDD_IN", "VDD_SOC"], ["VDD_SOC", "VDD_SOC"]])
def test_rails_that_would_count_something_twice_are_refused(clock: HandClock, rails: list[str]) -> None:
    with pytest.raises(ValueError, match="would count twice"):
        ina3221(rails, clock)


def test_a_channel_with_nothing_connected_is_no_rail(clock: HandClock) -> None:
    with pytest.raises(ValueError, match="nothing is connected"):
        ina3221(["NC"], clock)


def test_a_rail_that_is_not_there_names_those_that_are(sysfs: Sysfs, clock: HandClock) -> None:
    sysfs.monitor(("VDD_IN", 5000, 1000), ("NC", 0, 0))
    failed = failure(ina3221(["VDD_GPU"], clock, sysfs.root))
    assert failed.why.startswith("ina3221:VDD_GPU does not answer")
    assert failed.fix.endswith("ina3221:VDD_IN")


def test_several_powers_are_added_up_and_an_average_will_do(sysfs: Sysfs, clock: HandClock) -> None:
    sysfs.chip(0, "amdgpu", power1_label="PPT", power1_average=20_000_000)
    sysfs.chip(1, "ucd9000", power1_input=10_000_000, power1_average=99_000_000)
    meter = hwmon_power(["hwmon:amdgpu/PPT", "hwmon:ucd9000"], clock, sysfs.root)
    begin = meter.read()
    clock.forward(0.1)
    assert meter.read().joules - begin.joules == pytest.approx(3.0)


def test_the_pack_is_a_meter_while_it_gives_and_says_why_while_it_takes(clock: HandClock) -> None:
    car = Car()
    car.values |= {vss.PACK_VOLTAGE: 400.0, vss.PACK_CURRENT: -0.5}
    meter = pack(lambda: car.snapshot(clock()), clock)
    begin = meter.read()
    clock.forward(0.4)
    assert meter.read().joules - begin.joules == pytest.approx(80.0)
    car.values[vss.PACK_CURRENT] = 15.0
    assert "charged with 15 A" in failure(meter).why
    car.qualities[vss.PACK_CURRENT] = Quality.STALE
    assert f"{vss.PACK_CURRENT} is unknown" in failure(meter).why


def test_every_meter_starts_its_count_at_its_first_reading(sysfs: Sysfs, clock: HandClock) -> None:
    sysfs.package("intel-rapl:0", "package-0", 7_000_000)
    sysfs.chip(1, "ina228", energy1_input=9_000_000, power1_input=1_000_000)
    meters: list[Meter] = [
        RaplMeter(clock, sysfs.root),
        HwmonCounter(["hwmon:ina228"], clock, sysfs.root),
        hwmon_power(["hwmon:ina228"], clock, sysfs.root),
    ]
    for meter in meters:
        first = meter.read()
        assert (first.joules, first.at_ns, first.since_ns) == (0.0, 1000 * NS, 1000 * NS)
        assert meter.resolution_j > 0
        assert meter.resolution_s > 0
