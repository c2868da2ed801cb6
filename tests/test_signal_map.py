from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cantools.database import load_file
from hypothesis import given
from hypothesis import strategies as st

from firmware_shims import signal_map, vss
from firmware_shims.reading import Value
from firmware_shims.signal_map import Message, Signal, SignalMapError

DBC = Path(__file__).parent.parent / "../shared/data/model3can.dbc"
TESLA = signal_map.load("tesla_model3")
ROWS = {signal.path: (message, signal) for message in TESLA.messages for signal in message.signals}


def number(low: float, high: float, factor: float = 1) -> Callable[[Any], Value | None]:
    """From the DBC's physical value to ours; a named value or one outside of the range is none."""

    def convert(value: Any) -> Value | None:
        if not isinstance(value, int | float) or not low <= value * factor <= high:
            return None
        return value * factor

    return convert


def named(choices: dict[str, Value]) -> Callable[[Any], Value | None]:
    return lambda value: choices.get(str(value))


LATCH = named(
    {
        "LATCH_OPENED": True,
        "LATCH_CLOSED": False,
        "LATCH_CLOSING": True,
        "LATCH_OPENING": True,
        "LATCH_AJAR": True,
    }
)
IN_THE_DBC: dict[str, tuple[str, Callable[[Any], Value | None]]] = {
    vss.GEAR: ("DI_gear", named({"DI_GEAR_P": 126, "DI_GEAR_R": -1, "DI_GEAR_N": 0, "DI_GEAR_D": 127})),
    vss.BRAKE: ("DI_brakePedalState", named({"OFF": 0, "ON": 100})),
    vss.SPEED: ("UIspeed_signed257", number(-40, 285)),
    vss.DOORS[0]: ("VCLEFT_frontLatchStatus", LATCH),
    vss.DOORS[1]: ("VCRIGHT_frontLatchStatus", LATCH),
    vss.DOORS[2]: ("VCLEFT_rearLatchStatus", LATCH),
    vss.DOORS[3]: ("VCRIGHT_rearLatchStatus", LATCH),
    vss.DRIVER_SEAT: ("VCLEFT_frontOccupancySwitch", named({"SWITCH_OFF": False, "SWITCH_ON": True})),
    vss.SOC: ("SOCUI292", number(0, 100)),
    vss.IS_CHARGING: (
        "BMS_uiChargeStatus",
        named(
            {
                "BMS_DISCONNECTED": False,
                "BMS_NO_POWER": False,
                "BMS_ABOUT_TO_CHARGE": False,
                "BMS_CHARGING": True,
                "BMS_CHARGE_COMPLETE": False,
                "BMS_CHARGE_STOPPED": False,
            }
        ),
    ),
    vss.CHARGE_LINE_POWER: ("ChargeLinePower264", number(0, 22_000, factor=1000)),
    vss.PACK_VOLTAGE: ("BattVoltage132", number(0, 600)),
    vss.PACK_CURRENT: ("SmoothBattCurrent132", number(-2000, 1000, factor=-1)),
    vss.PACK_TEMPERATURE_MIN: ("BMSminPackTemperature", number(-25, 100)),
    vss.PACK_TEMPERATURE_MAX: ("BMSmaxPackTemperature", number(-25, 100)),
    vss.LOW_VOLTAGE_BATTERY: ("v12vBattVoltage261", number(1, 22)),
    vss.AMBIENT_TEMPERATURE: ("VCFRONT_tempAmbientFiltered", number(-40, 80)),
}
NOT_IN_THE_DBC = {vss.LOW_VOLTAGE_STATE}
INVALID_THOUGH_THE_DBC_HAS_NO_NAME_FOR_IT = {(vss.SPEED, 4095), (vss.PACK_CURRENT, 0x8000)}


@pytest.fixture(scope="module")
def dbc() -> Any:
    if not DBC.exists():
        pytest.skip(f"{DBC} is not here")
    return load_file(DBC, strict=False)


def payload_of(message: Message, signal: Signal, raw: int) -> bytes:
    word = signal.write(raw)
    if message.mux is not None and signal.mux is not None:
        word |= message.mux.write(signal.mux)
    return word.to_bytes(message.lengths[0], "little")


def raws(signal: Signal) -> list[int]:
    """Every raw value of a short field; of a long one both ends, the middle and a sample."""
    count = 1 << signal.length
    step = max(1, count // 4099)
    return sorted({*range(0, count, step), count - 1, count // 2, count // 2 - 1})


def test_every_row_of_the_map_is_checked() -> None:
    assert set(IN_THE_DBC) | NOT_IN_THE_DBC == set(ROWS)


@pytest.mark.parametrize("path", IN_THE_DBC)
def test_the_map_reads_what_the_dbc_reads(dbc: Any, path: str) -> None:
    message, signal = ROWS[path]
    name, convert = IN_THE_DBC[path]
    for raw in raws(signal):
        payload = payload_of(message, signal, raw)
        theirs = dbc.decode_message(message.id, payload)[name]
        ours = signal.decode(int.from_bytes(payload, "little"))
        if (path, raw) in INVALID_THOUGH_THE_DBC_HAS_NO_NAME_FOR_IT:
            assert ours is None
        elif isinstance(expected := convert(theirs), float):
            assert ours == pytest.approx(expected), f"raw {raw}"
        else:
            assert ours == expected, f"raw {raw}: the DBC says {theirs}"


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


@pytest.mark.parametrize("path", sorted(set(ROWS) - NOT_IN_THE_DBC))
def test_every_sensor_can_say_that_it_has_no_value(path: str) -> None:
    signal = ROWS[path][1]
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
