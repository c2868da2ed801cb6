"""The Tesla map against others' definitions of the same bus: model3dbc and the Model 3 files of opendbc.

Where one of them knows a row of ours they agree, or the difference has its reason here. Nobody's file is part of the
project; opendbc's come out of its wheel.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from cantools.database import DecodeError, load_string
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.wheels import Files, WheelMissingError
from firmware_shims import signal_map, vss
from firmware_shims.frame_gate import FrameGate
from firmware_shims.reading import Value
from firmware_shims.signal_map import Bits, Message, Signal
from firmware_shims.socketcand import Frame

TESLA = signal_map.load("tesla_model3")
ROWS = {signal.path: (message, signal) for message in TESLA.messages for signal in message.signals}

MODEL3DBC = "model3dbc"
PARTY = "opendbc, party bus"
VEHICLE = "opendbc, vehicle bus"
MODEL3DBC_FILE = Path(__file__).parent.parent / "../shared/data/model3can.dbc"
OPENDBC = Files(
    name="opendbc",
    requirement="opendbc==0.3.1",
    inside="opendbc/dbc/tesla_model3_",
    suffix=".dbc",
    sha256="cccbcaf4c8f06f6c0af2cd57a15dcf200b0ac7cb94f7a06c1d1c3ccbb4a4629a",
)
IN_OPENDBC = {PARTY: "opendbc/dbc/tesla_model3_party.dbc", VEHICLE: "opendbc/dbc/tesla_model3_vehicle.dbc"}


def latch(side: str, row: str) -> dict[str, tuple[str, ...]]:
    name = f"VC{side}_{row}LatchStatus"
    return {MODEL3DBC: (name,), VEHICLE: (name,)}


RAILS = ("VCFRONT_das1HighCurrentLVState", "VCFRONT_das2HighCurrentLVState")
CALLED: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    vss.LOW_VOLTAGE_STATE: {PARTY: ("VCFRONT_vehiclePowerState",)},
    vss.COMPUTE_RAIL: {MODEL3DBC: RAILS, PARTY: RAILS},
    vss.GEAR: {MODEL3DBC: ("DI_gear",), PARTY: ("DI_gear",), VEHICLE: ("DI_gear",)},
    vss.BRAKE: dict.fromkeys((MODEL3DBC, PARTY, VEHICLE), ("DI_brakePedalState",)),
    vss.SPEED: {MODEL3DBC: ("UIspeed_signed257",), PARTY: ("DI_vehicleSpeed",)},
    vss.DOORS[0]: latch("LEFT", "front"),
    vss.DOORS[1]: latch("RIGHT", "front"),
    vss.DOORS[2]: latch("LEFT", "rear"),
    vss.DOORS[3]: latch("RIGHT", "rear"),
    vss.DRIVER_LOCK: {},
    vss.DRIVER_SEAT: dict.fromkeys((MODEL3DBC, VEHICLE), ("VCLEFT_frontOccupancySwitch",)),
    vss.SOC: {MODEL3DBC: ("SOCUI292",)},
    vss.IS_CHARGING: {MODEL3DBC: ("BMS_uiChargeStatus",)},
    vss.CABLE_CONNECTED: {MODEL3DBC: ("BMS_uiChargeStatus",)},
    vss.CHARGE_LINE_POWER: {MODEL3DBC: ("ChargeLinePower264",)},
    vss.PACK_VOLTAGE: {MODEL3DBC: ("BattVoltage132",)},
    vss.PACK_CURRENT: {MODEL3DBC: ("SmoothBattCurrent132",)},
    vss.PACK_TEMPERATURE_MIN: {MODEL3DBC: ("BMSminPackTemperature",)},
    vss.PACK_TEMPERATURE_MAX: {MODEL3DBC: ("BMSmaxPackTemperature",)},
    vss.LOW_VOLTAGE_BATTERY: {MODEL3DBC: ("v12vBattVoltage261",)},
    vss.AMBIENT_TEMPERATURE: {MODEL3DBC: ("VCFRONT_tempAmbientFiltered",)},
}
"""What each of them calls a row's bits, lowest first; who is not named has nothing there."""

DIFFERENCES: Mapping[tuple[str | int, str], Mapping[str, str]] = {
    (vss.PACK_CURRENT, MODEL3DBC): {
        "scale": "model3dbc counts current out of the battery as positive, VSS and the raw bits current into it;"
        " the evidence stands in the map"
    },
    (0x3C2, MODEL3DBC): {
        "period_ms": "model3dbc gives the frame's period; two pages take turns, and each signal is in one of them"
    },
    (0x132, MODEL3DBC): {
        "lengths": "cars with firmware 2026.8.3 and later send 6 of the 8 bytes, which is after model3dbc"
    },
}
"""By row or message and by definition: what differs, and why ours stands."""

UNITS: Mapping[str | None, float] = {
    None: 1,
    "": 1,
    "%": 1,
    "A": 1,
    "V": 1,
    "C": 1,
    "KPH": 1,
    "kph": 1,
    "kW": 1000,
}
"""Factors into the units of `vss.py`."""
SIGN = {(vss.PACK_CURRENT, MODEL3DBC): -1}


def named(meanings: Mapping[str, Value]) -> Callable[[tuple[str, ...]], Value | None]:
    return lambda names: meanings.get(*names)


def worst_rail(names: tuple[str, ...]) -> str:
    """One computer, two supplies: the worse one counts."""
    return max((name.removeprefix("LV_") for name in names), key=["ON", "OFF", "GOING_DOWN", "FAULT"].index)


CLOSED = {"LATCH_CLOSED": False}
AJAR = dict.fromkeys(("LATCH_OPENED", "LATCH_CLOSING", "LATCH_OPENING", "LATCH_AJAR"), True)
POWER = {"OFF": "OFF", "CONDITIONING": "OFF", "ACCESSORY": "ACC", "DRIVE": "ON"}
GEARS = {"P": vss.GEAR_PARK, "R": -1, "N": 0, "D": vss.GEAR_DRIVE}
PLUGGED_IN = ("NO_POWER", "ABOUT_TO_CHARGE", "CHARGE_COMPLETE", "CHARGE_STOPPED")
NOT_CHARGING = ("DISCONNECTED", *PLUGGED_IN)
MEANS: Mapping[str, Callable[[tuple[str, ...]], Value | None]] = {
    vss.LOW_VOLTAGE_STATE: named({f"VEHICLE_POWER_STATE_{name}": value for name, value in POWER.items()}),
    vss.COMPUTE_RAIL: worst_rail,
    vss.GEAR: named({f"DI_GEAR_{name}": value for name, value in GEARS.items()}),
    vss.BRAKE: named({"OFF": 0, "ON": 100}),
    **dict.fromkeys(vss.DOORS, named({**CLOSED, **AJAR})),
    vss.DRIVER_SEAT: named({"SWITCH_OFF": False, "SWITCH_ON": True}),
    vss.IS_CHARGING: named({"BMS_CHARGING": True, **{f"BMS_{name}": False for name in NOT_CHARGING}}),
    vss.CABLE_CONNECTED: named(
        {"BMS_DISCONNECTED": False, "BMS_CHARGING": True, **{f"BMS_{name}": True for name in PLUGGED_IN}}
    ),
}
"""What their names mean to us; any other name (SNA, fault, time-out) and a number without one mean nothing."""


@dataclass(frozen=True, slots=True)
class Definition:
    """What somebody else knows of the bus."""

    name: str
    database: Any

    def message(self, message_id: int) -> Any | None:
        try:
            return self.database.get_message_by_frame_id(message_id)
        except KeyError:
            return None

    def fields(self, path: str) -> list[Any]:
        """Their signals on the bits of a row, in the frames that have it; lowest bits first."""
        message, row = ROWS[path]
        theirs = self.message(message.id)
        found = [
            field
            for field in (theirs.signals if theirs is not None else ())
            if field.start < row.start + row.length and row.start < field.start + field.length
            if row.mux is None or field.multiplexer_ids is None or row.mux in field.multiplexer_ids
        ]
        return sorted(found, key=lambda field: field.start)

    def decode(self, message: Message, payload: bytes) -> dict[str, Any]:
        """Their values by their names; empty for a message or a page of one that they do not know."""
        if self.message(message.id) is None:
            return {}
        try:
            return dict(self.database.decode_message(message.id, payload))
        except DecodeError:
            return {}


@pytest.fixture(scope="module")
def opendbc_files() -> dict[str, bytes]:
    try:
        return OPENDBC.load()
    except WheelMissingError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module", params=[MODEL3DBC, PARTY, VEHICLE])
def theirs(request: pytest.FixtureRequest) -> Definition:
    name = request.param
    if name in IN_OPENDBC:
        content = request.getfixturevalue("opendbc_files")[IN_OPENDBC[name]]
    elif MODEL3DBC_FILE.exists():
        content = MODEL3DBC_FILE.read_bytes()
    else:
        pytest.skip(f"{MODEL3DBC_FILE} is not here")
    return Definition(name, load_string(content.decode("cp1252"), "dbc", strict=False))


def described(row: Signal) -> dict[str, Any]:
    return {
        "start": row.start,
        "length": row.length,
        "signed": row.signed,
        "scale": row.scale,
        "offset": row.offset,
        "mux": row.mux,
    }


def described_by(fields: list[Any]) -> dict[str, Any]:
    """Several fields side by side, as the two supplies are, count as one."""
    first = fields[0]
    pages = {tuple(field.multiplexer_ids or ()) for field in fields}
    assert all(field.byte_order == "little_endian" for field in fields)
    assert all(upper.start == lower.start + lower.length for lower, upper in pairwise(fields))
    return {
        "start": first.start,
        "length": sum(field.length for field in fields),
        "signed": first.is_signed,
        "scale": pytest.approx(first.scale * UNITS[first.unit]),
        "offset": pytest.approx(first.offset * UNITS[first.unit]),
        "mux": pages.pop()[0] if pages != {()} else None,
    }


def differing(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> set[str]:
    return {what for what, value in theirs.items() if ours[what] != value}


def test_every_row_of_the_map_is_looked_for_in_the_other_definitions() -> None:
    assert set(CALLED) == set(ROWS)
    assert set(MEANS) == {path for path, (_, row) in ROWS.items() if row.choices} - {vss.DRIVER_LOCK}


@pytest.mark.parametrize("path", ROWS)
def test_a_row_has_the_same_bits_and_scale(theirs: Definition, path: str) -> None:
    fields = theirs.fields(path)
    assert tuple(field.name for field in fields) == CALLED[path].get(theirs.name, ())
    if fields:
        found = differing(described(ROWS[path][1]), described_by(fields))
        assert found == set(DIFFERENCES.get((path, theirs.name), ()))


@pytest.mark.parametrize("path", ROWS)
def test_every_name_of_a_raw_value_means_the_same(theirs: Definition, path: str) -> None:
    _, row = ROWS[path]
    fields = theirs.fields(path)
    if path not in MEANS:
        for raw in fields[0].choices or () if fields else ():
            assert row.decode(row.write(raw)) is None, f"{raw} is {fields[0].choices[raw]}, not a number"
        return
    for raw in range(1 << row.length) if fields else ():
        word = row.write(raw)
        names = tuple(str(field.choices.get(Bits(field.start, field.length).read(word))) for field in fields)
        assert row.decode(word) == MEANS[path](names), f"raw {raw} is {names}"


def bits_of(fields: list[Any], kind: str) -> Bits | None:
    """Where their counter or checksum is, which only the names tell."""
    found = [Bits(field.start, field.length) for field in fields if kind in field.name]
    return found[0] if found else None


@pytest.mark.parametrize("message", TESLA.messages, ids=lambda message: message.name)
def test_a_message_is_framed_alike(theirs: Definition, message: Message) -> None:
    known = theirs.message(message.id)
    if known is None:
        assert not any(theirs.name in CALLED[row.path] for row in message.signals)
        return
    checksum = message.checksum and Bits(8 * message.checksum.byte, 8)
    ours = {
        "extended": message.is_extended,
        "lengths": message.lengths,
        "mux": message.mux,
        "period_ms": message.period_ms,
        "counter": message.counter,
        "checksum": checksum,
    }
    says = {
        "extended": known.is_extended_frame,
        "lengths": (known.length,),
        "mux": next((Bits(s.start, s.length) for s in known.signals if s.is_multiplexer), None),
        "period_ms": known.cycle_time,
        "counter": bits_of(known.signals, "Counter"),
        "checksum": bits_of(known.signals, "Checksum"),
    }
    stated = {what: value for what, value in says.items() if value is not None}
    assert differing(ours, stated) == set(DIFFERENCES.get((message.id, theirs.name), ()))


def expected(theirs: Definition, path: str, values: tuple[Any, ...]) -> Value | None:
    """Our value for what they read."""
    if path in MEANS:
        return MEANS[path](tuple(str(value) for value in values))
    (value,) = values
    if not isinstance(value, int | float):
        return None
    (field,) = theirs.fields(path)
    ours = float(value * UNITS[field.unit] * SIGN.get((path, theirs.name), 1))
    low, high = ROWS[path][1].range or (-float("inf"), float("inf"))
    return ours if low <= ours <= high else None


@pytest.mark.parametrize("message", TESLA.messages, ids=lambda message: message.name)
@given(payload=st.binary(min_size=8, max_size=8), page=st.integers(0, 3) | st.none())
def test_random_frames_are_read_alike(
    theirs: Definition, message: Message, payload: bytes, page: int | None
) -> None:
    if message.mux is not None and page is not None:  # else the page is as random as the rest
        word = int.from_bytes(payload, "little") & ~message.mux.mask | message.mux.write(page)
        payload = word.to_bytes(8, "little")
    ours = {r.path: r.value for r in FrameGate(message, "car").readings(Frame(message.id, payload), 0)}
    read = theirs.decode(message, payload)
    for row in message.signals:
        names = CALLED[row.path].get(theirs.name, ())
        if names and read.keys() >= set(names):
            value = expected(theirs, row.path, tuple(read[name] for name in names))
            assert ours[row.path] == (pytest.approx(value) if isinstance(value, float) else value)
        elif names and row.mux is not None:
            assert row.path not in ours
