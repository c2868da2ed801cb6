"""Fusion of sources: who speaks for a signal, and what is not believed."""

import pytest
from cars import NS, PARKED_AND_CHARGING, HandSource

from agent.signals import SOURCE_SILENT_NS, UNWATCHED_NS, Signals
from firmware_shims import vss
from firmware_shims.reading import Quality, Reading, Value


def test_the_first_source_with_a_good_reading_speaks_for_a_signal() -> None:
    signals = Signals([HandSource("a"), HandSource("b")])
    signals.update([Reading(vss.SOC, 40.0, "b", 1), Reading(vss.SOC, None, "a", 1, Quality.INVALID)])
    assert signals.snapshot(1).good(vss.SOC) == 40.0
    signals.update([Reading(vss.SOC, 50.0, "a", 2)])
    assert signals.snapshot(2).good(vss.SOC) == 50.0


@pytest.mark.parametrize(
    ("path", "one", "other"),
    [
        (vss.DRIVER_DOOR, False, True),
        (vss.DRIVER_DOOR, True, False),
        (vss.GEAR, vss.GEAR_PARK, vss.GEAR_DRIVE),
        (vss.LOW_VOLTAGE_STATE, "OFF", "ON"),
    ],
)
def test_sources_that_contradict_each_other_are_not_believed(path: str, one: Value, other: Value) -> None:
    signals = Signals([HandSource("a"), HandSource("b"), HandSource("c")])
    signals.update([Reading(path, one, "a", 1), Reading(path, other, "b", 1), Reading(path, one, "c", 1)])
    fused = signals.snapshot(1)[path]
    assert fused.quality is Quality.INVALID
    assert fused.source == "a against b against c"
    signals.update([Reading(path, one, "b", 2)])
    assert signals.snapshot(2).good(path) == one


def test_measurements_of_two_sources_may_differ() -> None:
    signals = Signals([HandSource("a"), HandSource("b")])
    signals.update([Reading(vss.SOC, 40.0, "a", 1), Reading(vss.SOC, 40.5, "b", 1)])
    assert signals.snapshot(1).good(vss.SOC) == 40.0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None])
def test_a_good_reading_without_a_number_is_invalid(value: float | None) -> None:
    signals = Signals([HandSource()])
    signals.update([Reading(vss.SOC, value, "car", 1)])
    assert signals.snapshot(1)[vss.SOC].quality is Quality.INVALID


def test_two_sources_of_the_same_name_are_refused() -> None:
    with pytest.raises(ValueError, match="same name"):
        Signals([HandSource(), HandSource()])


@pytest.mark.parametrize(
    ("path", "one", "other"),
    [
        pytest.param(vss.DRIVER_DOOR, 0, True, id="door"),
        pytest.param(vss.DRIVER_LOCK, 1, False, id="lock"),
        pytest.param(vss.CABLE_CONNECTED, 1, False, id="cable"),
        pytest.param(vss.BRAKE, 0.0, 100.0, id="brake"),
        pytest.param(vss.SPEED, 0.0, 50.0, id="speed"),
    ],
)
def test_a_number_contradicts_a_state_and_rest_contradicts_motion(
    path: str, one: Value, other: Value
) -> None:
    for first, second in ((one, other), (other, one)):
        signals = Signals([HandSource("a"), HandSource("b")])
        signals.update([Reading(path, first, "a", 1), Reading(path, second, "b", 1)])
        assert signals.snapshot(1)[path].quality is Quality.INVALID


def test_a_whole_number_beyond_every_float_is_invalid() -> None:
    signals = Signals([HandSource()])
    signals.update([Reading(vss.SOC, 10**400, "car", 1)])
    assert signals.snapshot(1)[vss.SOC].quality is Quality.INVALID


def test_a_source_that_delivers_but_never_says_that_it_has_heard_all_is_not_trusted_for_longer() -> None:
    signals = Signals([HandSource()])
    began_ns = 1000 * NS
    signals.look(began_ns)
    signals.update([Reading(vss.DRIVER_DOOR, False, "car", began_ns)])
    later_ns = began_ns + SOURCE_SILENT_NS + 1
    assert signals.look(later_ns)
    assert signals.snapshot(later_ns)[vss.DRIVER_DOOR].quality is Quality.STALE


def test_a_reading_is_as_old_as_its_stamp_says_and_not_as_its_delivery() -> None:
    signals = Signals([HandSource()])
    signals.update([Reading(vss.GEAR, vss.GEAR_PARK, "car", 1 * NS)])
    assert not signals.heard("car", 1 * NS + NS // 2)
    assert signals.heard("car", 1 * NS + NS // 2 + 1)
    assert signals.snapshot(2 * NS)[vss.GEAR].quality is Quality.STALE


def test_the_second_source_speaks_when_the_first_hangs() -> None:
    signals = Signals([HandSource("a"), HandSource("b")])
    for source, soc_pct in (("a", 40.0), ("b", 41.0)):
        signals.update([Reading(vss.SOC, soc_pct, source, NS)])
        signals.heard(source, NS)
    signals.heard("b", 2 * NS)
    signals.update([Reading(vss.SOC, 41.0, "b", 2 * NS)])
    assert signals.look(2 * NS + 1)
    assert signals.snapshot(2 * NS + 1).good(vss.SOC) == 41.0


def test_a_clock_that_steps_back_is_no_sleep_and_no_silence() -> None:
    signals = Signals([HandSource()])
    signals.look(10 * NS)
    signals.update(Reading(path, value, "car", 10 * NS) for path, value in PARKED_AND_CHARGING.items())
    signals.heard("car", 10 * NS)
    assert not signals.look(9 * NS)
    assert not signals.look(9 * NS + SOURCE_SILENT_NS)


@pytest.mark.parametrize(("beyond_ns", "quality"), [(0, Quality.STALE), (1, Quality.NEVER)])
def test_after_a_gap_between_two_looks_that_only_a_sleep_explains_nothing_is_known(
    beyond_ns: int, quality: Quality
) -> None:
    signals = Signals([HandSource()])
    signals.look(NS)
    signals.update([Reading(vss.GEAR, vss.GEAR_PARK, "car", NS)])
    signals.heard("car", NS)
    later_ns = NS + UNWATCHED_NS + beyond_ns
    assert signals.look(later_ns)
    assert signals.snapshot(later_ns)[vss.GEAR].quality is quality


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        pytest.param(80.0, 80.1, False, id="it drives on"),
        pytest.param(0.4, 0.0, False, id="it stands still"),
        pytest.param(0.4, 0.6, True, id="it begins to move"),
        pytest.param(80.0, 0.4, True, id="it has stopped"),
        pytest.param(80.0, "fast", True, id="no number"),
    ],
)
def test_how_fast_a_moving_car_moves_is_nothing_to_judge_anew(
    before: Value, after: Value, told: bool
) -> None:
    signals = Signals([HandSource()])
    signals.update([Reading(vss.SPEED, before, "car", 1)])
    assert (signals.update([Reading(vss.SPEED, after, "car", 2)]) is not None) is told
    assert signals.snapshot(3)[vss.SPEED].value == after
