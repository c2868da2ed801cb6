import logging
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from cars import HandClock
from fake_line import FakeChip
from listening import WITHIN_S, Ear, listening

from firmware_shims import vss
from firmware_shims.clock import Clock, boottime_ns
from firmware_shims.gpio import GpioLine, GpioOptions
from firmware_shims.reading import Quality, Reading
from firmware_shims.registry import open_source

STATE = vss.LOW_VOLTAGE_STATE


def ignition(chip: FakeChip, clock: Clock = boottime_ns, **options: Any) -> GpioLine:
    wanted = GpioOptions(chip="/dev/gpiochip7", line=chip.line, **options)
    return GpioLine("gpio", wanted, clock, chip.request)


class Slow(Ear):
    """Takes the first reading only when it is let go on, as a busy agent would."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = threading.Event()

    def update(self, readings: Sequence[Reading]) -> None:
        super().update(readings)
        self.go_on.wait(WITHIN_S)


@pytest.mark.parametrize(("active", "says"), [(False, "OFF"), (True, "ON")])
def test_the_level_at_the_start_is_told_before_any_edge(active: bool, says: str) -> None:
    chip, ear = FakeChip(), Ear()
    chip.active = active
    with listening(ignition(chip), ear):
        ear.wait_until(lambda: bool(ear.readings), "the level")
    assert ear.readings[0].value == says
    assert ear.readings[0].quality is Quality.GOOD


def test_turning_the_key_is_told_and_turning_it_back() -> None:
    chip, ear = FakeChip(), Ear()
    with listening(ignition(chip), ear):
        ear.wait_for(STATE, "OFF")
        chip.turn(True)
        ear.wait_for(STATE, "ON")
        before = len(ear.readings)
        chip.turn(False)
        ear.wait_for(STATE, "OFF", after=before)
    assert all(request.given_back.is_set() for request in chip.requests)


def test_a_key_that_was_turned_only_for_a_blink_is_a_cue_of_its_own() -> None:
    updates: list[list[object]] = []

    class Watching(Slow):
        def update(self, readings: Sequence[Reading]) -> None:
            updates.append([reading.value for reading in readings])
            super().update(readings)

    chip, ear = FakeChip(), Watching()
    with listening(ignition(chip), ear):
        ear.wait_for(STATE, "OFF")
        chip.turn(True, False)
        ear.go_on.set()
        ear.wait_for(STATE, "ON")
    assert ["ON"] in updates


def test_a_line_on_which_nothing_happens_stays_fresh_and_costs_little() -> None:
    chip, ear = FakeChip(), Ear()
    with listening(ignition(chip), ear):
        ear.wait_until(lambda: len(ear.heard_ns) > 10, "ten times")
    seconds = (ear.heard_ns[-1] - ear.heard_ns[0]) / 1e9
    assert seconds >= 0.4  # ten times 50 ms, and no busy loop
    stamps = [reading.stamp_ns for reading in ear.readings]
    assert len(stamps) == pytest.approx(len(ear.heard_ns), abs=2)
    assert {reading.value for reading in ear.readings} == {"OFF"}


def test_lost_edges_are_noticed_by_their_numbers_and_the_level_is_read_again() -> None:
    chip, ear = FakeChip(), Slow()
    with listening(ignition(chip, HandClock()), ear):  # no time passes: nothing but edges makes it read
        ear.wait_for(STATE, "OFF")
        chip.turn(True)
        chip.turn_unseen(False)
        chip.turn_unseen(True)
        chip.turn(False)
        chip.turn_unseen(True)
        reads = chip.reads
        ear.go_on.set()
        ear.wait_until(lambda: len(ear.readings) >= 4, "two edges and the level")
    # the level, two edges out of five, and the level again because numbers are missing
    assert [reading.value for reading in ear.readings] == ["OFF", "ON", "OFF", "ON"]
    assert chip.reads == reads + 1


def test_an_edge_whose_event_was_lost_is_noticed_all_the_same() -> None:
    chip, ear = FakeChip(), Ear()
    with listening(ignition(chip), ear):
        ear.wait_for(STATE, "OFF")
        chip.turn_unseen(True)
        ear.wait_for(STATE, "ON")


def test_a_line_that_bounces_ends_at_its_last_level() -> None:
    chip, ear = FakeChip(), Ear()
    with listening(ignition(chip), ear):
        ear.wait_for(STATE, "OFF")
        for _ in range(50):
            chip.turn(*(True, False) * 20, True)
        ear.wait_until(lambda: ear.readings[-1].value == "ON", "the last level")
        heard = len(ear.heard_ns)
        ear.wait_until(lambda: len(ear.heard_ns) > heard + 2, "rest")
    assert ear.readings[-1].value == "ON"


def test_a_chip_that_goes_away_is_silent_and_is_armed_again_when_it_is_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    chip, ear = FakeChip(), Ear()
    with listening(ignition(chip), ear):
        ear.wait_for(STATE, "OFF")
        with chip.pulled_out():
            assert chip.requests[0].given_back.wait(WITHIN_S)
            chip.active = True
            told = len(ear.heard_ns)
        ear.wait_for(STATE, "ON")
        assert len(chip.requests) >= 2
        before = len(ear.readings)
        chip.turn(False)
        ear.wait_for(STATE, "OFF", after=before)
        assert len(ear.heard_ns) > told
    assert caplog.messages[0].startswith("signals gpio: no GPIO line: /dev/gpiochip7 line IGNITION: ")


def test_a_missing_chip_is_told_once_and_tried_for_ever(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    chip, ear = FakeChip(), Ear()
    tries: list[int] = []

    def request() -> Any:
        tries.append(boottime_ns())
        if len(tries) < 4:
            raise FileNotFoundError(2, "No such file or directory")
        return chip.request()

    source = GpioLine("gpio", GpioOptions(chip="/dev/gpiochip7", line="IGNITION"), boottime_ns, request)
    with listening(source, ear):
        ear.wait_for(STATE, "OFF")
    pauses_s = [(after - before) / 1e9 for before, after in pairwise(tries)]
    assert pauses_s[0] >= 0.05
    assert pauses_s[1] >= 0.1
    assert caplog.messages == [
        "signals gpio: no GPIO line: /dev/gpiochip7 line IGNITION: No such file or directory; trying again"
    ]


def test_a_line_may_mean_something_else() -> None:
    chip, ear = FakeChip(5), Ear()
    source = ignition(chip, path=vss.DRIVER_DOOR, active=False, inactive=True)
    assert set(source.stale_after_s) == {vss.DRIVER_DOOR}
    with listening(source, ear):
        ear.wait_for(vss.DRIVER_DOOR, True)
        chip.turn(True)
        ear.wait_for(vss.DRIVER_DOOR, False)


def test_an_error_of_the_agent_is_not_taken_for_a_missing_chip() -> None:
    class Broken(Ear):
        def heard(self, source: str, now_ns: int) -> None:
            super().heard(source, now_ns)
            raise OSError("not the chip's fault")

    chip = FakeChip()
    with pytest.raises(OSError, match="not the chip's fault"):
        ignition(chip).run(Broken(), threading.Event())
    assert chip.requests[0].given_back.is_set()


def test_a_computer_without_the_chip_waits_for_it() -> None:
    options = {"chip": "/dev/gpiochip-none", "line": 3, "active_low": True}
    source = open_source("gpio", name="gpio", map=None, options=options, clock=boottime_ns)
    ear = Ear()
    with listening(source, ear):
        pass
    assert ear.readings == []
    assert ear.heard_ns == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"line": 1}, "missing required field `chip`"),
        ({"chip": "/dev/gpiochip0"}, "missing required field `line`"),
        ({"chip": "/dev/gpiochip0", "line": -1}, r"options\.line: Expected `int` >= 0"),
        ({"chip": "/dev/gpiochip0", "line": True}, r"options\.line: Expected `int \| str`"),
        ({"chip": "/dev/gpiochip0", "line": 1, "bias": "up"}, "unknown field `bias`"),
        ({"chip": "/dev/gpiochip0", "line": 1, "active": "OFF"}, "both levels mean 'OFF'"),
        ({"chip": "/dev/gpiochip0", "line": 1, "active": float("nan")}, "a level means nan"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says) as refusal:
        open_source("gpio", name="gpio", map=None, options=options, clock=boottime_ns)
    assert "\n" not in str(refusal.value)


def test_a_computer_without_gpiod_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gpiod", None)
    options = {"chip": "/dev/gpiochip0", "line": 1}
    with pytest.raises(ValueError, match=r"pip install 'parkwatt\[gpio\]'"):
        open_source("gpio", name="gpio", map=None, options=options, clock=boottime_ns)


def test_a_car_without_such_a_line_does_not_load_gpiod() -> None:
    program = "import sys, firmware_shims.registry; sys.exit('gpiod' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


CONFIGFS = Path("/sys/kernel/config/gpio-sim")


class SimulatedChip:
    """The kernel's own simulated chip (Documentation/admin-guide/gpio/gpio-sim.rst) with one line."""

    def __init__(self) -> None:
        self._device = CONFIGFS / "parkwatt"
        self._bank = self._device / "bank0"
        (self._bank / "line0").mkdir(parents=True)
        (self._bank / "num_lines").write_text("1")
        (self._bank / "line0" / "name").write_text("IGNITION")
        self._live("1")
        self.name = (self._bank / "chip_name").read_text().strip()
        device = (self._device / "dev_name").read_text().strip()
        self._pull = Path("/sys/devices/platform", device, self.name, "sim_gpio0", "pull")

    def turn(self, on: bool) -> None:
        self._pull.write_text("pull-up" if on else "pull-down")

    def remove(self) -> None:
        self._live("0")
        for folder in (self._bank / "line0", self._bank, self._device):
            folder.rmdir()

    def _live(self, live: str) -> None:
        (self._device / "live").write_text(live)


@pytest.fixture
def simulated() -> Iterator[SimulatedChip]:
    if not CONFIGFS.is_dir():
        pytest.skip(f"{CONFIGFS} is not here: the kernel has no gpio-sim, or configfs is not mounted")
    chip = SimulatedChip()
    yield chip
    chip.remove()


def test_the_kernels_simulated_line(simulated: SimulatedChip) -> None:
    options = {"chip": f"/dev/{simulated.name}", "line": "IGNITION"}
    source = open_source("gpio", name="gpio", map=None, options=options, clock=boottime_ns)
    ear = Ear()
    with listening(source, ear):
        ear.wait_for(STATE, "OFF")
        simulated.turn(True)
        ear.wait_for(STATE, "ON")
        before = len(ear.readings)
        simulated.turn(False)
        ear.wait_for(STATE, "OFF", after=before)
