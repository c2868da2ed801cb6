from pathlib import Path

import pytest
from cars import HandClock
from listening import Ear, listening

from firmware_shims import vss
from firmware_shims.clock import boottime_ns
from firmware_shims.linux import LinuxSensors
from firmware_shims.reading import Quality
from firmware_shims.registry import open_source


def zone(root: Path, number: int, kind: str, temp: str) -> Path:
    folder = root / "class" / "thermal" / f"thermal_zone{number}"
    folder.mkdir(parents=True)
    (folder / "type").write_text(f"{kind}\n")
    (folder / "temp").write_text(temp)
    return folder


def sensors(root: Path, *kinds: str) -> LinuxSensors:
    return LinuxSensors("linux", kinds, HandClock(), root)


def test_the_hottest_of_the_named_zones_counts_whatever_their_numbers(tmp_path: Path) -> None:
    zone(tmp_path, 0, "gpu-thermal", "51250\n")
    zone(tmp_path, 1, "battery", "99000\n")
    zone(tmp_path, 7, "cpu-thermal", "48000\n")
    assert sensors(tmp_path, "cpu-thermal", "gpu-thermal").chip_c() == 51.25


@pytest.mark.parametrize("temp", ["", "hot", "\x00"])
def test_a_sensor_that_does_not_answer_is_unknown_and_never_cold(tmp_path: Path, temp: str) -> None:
    zone(tmp_path, 0, "cpu-thermal", temp)
    zone(tmp_path, 1, "gpu-thermal", "40000")
    assert sensors(tmp_path, "cpu-thermal", "gpu-thermal").chip_c() is None


def test_a_zone_that_is_missing_is_unknown(tmp_path: Path) -> None:
    assert sensors(tmp_path, "cpu-thermal").chip_c() is None


def test_the_agent_hears_the_temperature_and_its_loss(tmp_path: Path) -> None:
    folder = zone(tmp_path, 0, "cpu-thermal", "45000")
    options = {"chip_zones": ["cpu-thermal"], "root": str(tmp_path)}
    source = open_source("linux", name="linux", map=None, options=options, clock=boottime_ns)
    ear = Ear()
    with listening(source, ear):
        ear.wait_for(vss.CHIP_TEMPERATURE, 45.0)
        (folder / "temp").unlink()
        assert ear.wait_for(vss.CHIP_TEMPERATURE, None).quality is Quality.INVALID


@pytest.mark.parametrize(
    "options", [{}, {"chip_zones": []}, {"chip_zones": "cpu"}, {"chip_zones": ["a"], "x": 1}]
)
def test_options_that_cannot_work_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"chip_zones|options\.x"):
        open_source("linux", name="linux", map=None, options=options, clock=boottime_ns)
