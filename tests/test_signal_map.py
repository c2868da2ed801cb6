from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_shims import signal_map, vss
from firmware_shims.reading import Value
from firmware_shims.signal_map import SignalMapError

TESLA = signal_map.load("tesla_model3")
ROWS = {signal.path: (message, signal) for message in TESLA.messages for signal in message.signals}


@pytest.mark.parametrize(
    ("frame", "state"),
    [
        ("0011010000002055", "OFF"),
        ("2011010000002075", "OFF"),  # conditioning: the car is busy with itself
        ("4111010000002096", "ACC"),
        ("61150100000020BA", "ON"),
    ],
)
def test_power_state_of_the_car(frame: str, state: str) -> None:
    message, signal = ROWS[vss.LOW_VOLTAGE_STATE]
    payload = bytes.fromhex(frame)
    assert signal.decode(int.from_bytes(payload, "little")) == state
    assert message.checksum is not None
    assert message.checksum.of(0x221, payload) == payload[message.checksum.byte]


@pytest.mark.parametrize(
    ("das1", "das2", "rail"),
    [
        (1, 1, "ON"),
        (2, 1, "GOING_DOWN"),
        (1, 2, "GOING_DOWN"),
        (0, 1, "OFF"),
        (1, 0, "OFF"),
        (3, 1, "FAULT"),
        (2, 3, "FAULT"),
    ],
)
def test_the_worse_of_the_computers_two_supplies_counts(das1: int, das2: int, rail: str) -> None:
    assert ROWS[vss.COMPUTE_RAIL][1].decode(das1 << 30 | das2 << 32) == rail


LOCK_STATES = (
    "SNA",
    "ACTIVE_NFC_UNLOCKED",
    "ACTIVE_NFC_LOCKED",
    "PASSIVE_SELECTIVE_UNLOCKED",
    "PASSIVE_BLE_UNLOCKED",
    "PASSIVE_BLE_LOCKED",
    "ACTIVE_SELECTIVE_UNLOCKED",
    "ACTIVE_BLE_UNLOCKED",
    "ACTIVE_BLE_LOCKED",
    "ACTIVE_UI_UNLOCKED",
    "ACTIVE_UI_LOCKED",
    "ACTIVE_REMOTE_UNLOCKED",
    "ACTIVE_REMOTE_LOCKED",
    "CRASH_UNLOCKED",
    "PASSIVE_INTERNAL_UNLOCKED",
    "PASSIVE_INTERNAL_LOCKED",
)
"""Of VCSEC_vehicleLockStatus in firmware 2020.40 and in 2025.20.8."""


@pytest.mark.parametrize(("raw", "state"), list(enumerate(LOCK_STATES)))
def test_whatever_unlocks_the_car_it_is_unlocked(raw: int, state: str) -> None:
    locked = ROWS[vss.DRIVER_LOCK][1].decode(raw << 12)
    assert locked is (None if state == "SNA" else state.endswith("_LOCKED"))


def test_current_out_of_the_battery_is_negative() -> None:
    """A frame that a parked, not charging car sent: the DBC calls it 8.2 A."""
    word = int.from_bytes(bytes.fromhex("7096AEFF5C26FF0F"), "little")
    assert ROWS[vss.PACK_CURRENT][1].decode(word) == pytest.approx(-8.2)
    assert ROWS[vss.PACK_VOLTAGE][1].decode(word) == pytest.approx(385.12)


def test_a_signal_is_stale_after_ten_periods_but_not_before_half_a_second() -> None:
    ages = TESLA.stale_after_s
    assert ages[vss.GEAR] == 0.5
    assert ages[vss.DRIVER_DOOR] == 1.0
    assert ages[vss.PACK_TEMPERATURE_MAX] == 10.0


@given(path=st.sampled_from(sorted(ROWS)), word=st.integers(0, 2**64 - 1))
def test_what_a_car_can_say_it_can_say_again(path: str, word: int) -> None:
    signal = ROWS[path][1]
    value = signal.decode(word)
    if value is not None:
        assert signal.decode(signal.encode(value)) == value


@pytest.mark.parametrize("path", ROWS)
def test_a_sensor_can_say_that_it_has_no_value_but_a_supply_has_always_one(path: str) -> None:
    signal = ROWS[path][1]
    if path in (vss.LOW_VOLTAGE_STATE, vss.COMPUTE_RAIL):
        with pytest.raises(ValueError, match="cannot say that it has no value"):
            signal.encode(None)
    else:
        assert signal.decode(signal.encode(None)) is None


@pytest.mark.parametrize(
    ("path", "value"),
    [(vss.GEAR, 1), (vss.SPEED, 500), (vss.SPEED, float("nan")), (vss.SPEED, "fast"), (vss.SOC, -1)],
)
def test_what_a_signal_cannot_carry_is_refused(path: str, value: Value) -> None:
    with pytest.raises(ValueError, match=f"{path} cannot be {value!r}"):
        ROWS[path][1].encode(value)


MESSAGE = "[[message]]\nid = 0x10\nlength = 8\nperiod_ms = 10\n"
SIGNAL = "[[message.signal]]\npath = 'A'\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (MESSAGE + SIGNAL + "start = 1\nlength = 2\nscal = 1", "unknown field `scal`"),
        (MESSAGE + "cycle = 1\n" + SIGNAL + "start = 1\nlength = 2", "unknown field `cycle`"),
        (MESSAGE + SIGNAL + "start = 1", "missing required field `length`"),
        (MESSAGE + SIGNAL + "start = 60\nlength = 8", "A ends at bit 68 of 64"),
        (MESSAGE + SIGNAL + "start = 0\nlength = 65", "<= 64"),
        (MESSAGE + SIGNAL + "start = 0\nlength = 8\nchoices = { 256 = 1 }", "256 does not fit into 8 bits"),
        (MESSAGE + SIGNAL + "start = 0\nlength = 8\ninvalid = [-1]", "-1 does not fit into 8 bits"),
        (MESSAGE + SIGNAL + "start = 0\nlength = 8\nscale = 0", "scale 0"),
        (MESSAGE + SIGNAL + "start = 0\nlength = 8\nscale = inf", "scale inf"),
        (MESSAGE + SIGNAL + "start = 0\nlength = 8\nrange = [5, 1]", "range [5.0, 1.0]"),
        (MESSAGE + SIGNAL + "start = 0\nlength = 8\nmux = 1", "mux 1, which the message has not"),
        (
            MESSAGE + "counter = { start = 62, length = 4 }\n" + SIGNAL + "start = 0\nlength = 8",
            "counter ends",
        ),
        (
            MESSAGE + "checksum = { byte = 8, rule = 'sum_id' }\n" + SIGNAL + "start = 0\nlength = 1",
            "byte 8 of 8",
        ),
        (MESSAGE + "checksum = { byte = 1, rule = 'crc' }\n" + SIGNAL + "start = 0\nlength = 1", "crc"),
        (
            MESSAGE + SIGNAL + "start = 0\nlength = 8\n" + SIGNAL + "start = 8\nlength = 8",
            "path A is given twice",
        ),
        (2 * (MESSAGE + SIGNAL + "start = 0\nlength = 8\n"), "message id 0x10 is given twice"),
        (MESSAGE, "missing required field `signal`"),
        ("[[message", "Expected ']]'"),
        ("\x00", "Invalid"),
    ],
)
def test_a_map_with_a_mistake_is_refused_in_one_line(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "map.toml"
    file.write_text(text)
    with pytest.raises(SignalMapError) as refusal:
        signal_map.load(str(file))
    assert says in str(refusal.value)
    assert str(file) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_an_unknown_map_names_the_known_ones() -> None:
    with pytest.raises(SignalMapError, match=r"no signal map 'tesla'.*one of: tesla_model3"):
        signal_map.load("tesla")
