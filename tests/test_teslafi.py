"""TeslaFi's export: what a row says, what it does not say, and files that are none."""

import datetime as dt
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from firmware_shims import teslafi, vss
from firmware_shims.csv_log import CsvLogError, Row
from firmware_shims.reading import Value
from firmware_shims.teslafi import COLUMNS

CHARGING: Mapping[str, str] = {
    "Date": "2016-06-26 16:30:00",
    "state": "online",
    "shift_state": "None",
    "speed": "None",
    "locked": "True",
    "outside_temp": "23.5",
    "battery_level": "61",
    "battery_current": "23.0",
    "charging_state": "Charging",
    "charger_power": "9",
    "charger_voltage": "234",
    "charger_actual_current": "40",
    "time_to_full_charge": "0.5",
}
HEADER = "data_id," + ",".join(COLUMNS) + ",elevation\n"


def line(**cells: str) -> str:
    row = {**CHARGING, **cells}
    return ",".join(["1", *(row[column] for column in COLUMNS), ""]) + "\n"


def blank(date: str, state: str = "online") -> str:
    return line(**dict.fromkeys(COLUMNS, "") | {"Date": date, "state": state})


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "day.csv"


def rows(log: Path, text: str, zone: dt.tzinfo = dt.UTC) -> list[Row]:
    log.write_text(HEADER + text)
    return list(teslafi.read_rows(log, zone))


def values(log: Path, **cells: str) -> dict[str, Value | None]:
    return {row.path: row.value for row in rows(log, line(**cells))}


def test_a_parked_charging_minute(log: Path) -> None:
    assert values(log) == {
        vss.LOW_VOLTAGE_STATE: "OFF",
        vss.GEAR: vss.GEAR_PARK,
        vss.SPEED: 0.0,
        vss.DRIVER_LOCK: True,
        vss.CHARGE_LINE_POWER: 9000.0,
        vss.PACK_CURRENT: 23.0,
        vss.SOC: 61.0,
        vss.AMBIENT_TEMPERATURE: 23.5,
        vss.CABLE_CONNECTED: True,
        vss.IS_CHARGING: True,
        vss.TIME_TO_COMPLETE: 1800.0,
        **teslafi.ASSUMED,
    }


def test_a_minute_of_driving(log: Path) -> None:
    told = values(log, shift_state="D", speed="36", charging_state="Disconnected", battery_current="-54.6")
    assert told[vss.LOW_VOLTAGE_STATE] == "ON"
    assert told[vss.GEAR] == vss.GEAR_DRIVE
    assert told[vss.SPEED] == pytest.approx(57.94, abs=0.01)
    assert told[vss.PACK_CURRENT] == -54.6
    assert (told[vss.CABLE_CONNECTED], told[vss.IS_CHARGING]) == (False, False)


def test_somebody_sits_in_a_car_that_shows_its_gear(log: Path) -> None:
    told = values(log, shift_state="P")
    assert (told[vss.LOW_VOLTAGE_STATE], told[vss.GEAR], told[vss.SPEED]) == ("ON", vss.GEAR_PARK, 0.0)


def test_no_answer_about_the_gear_is_not_park(log: Path) -> None:
    told = values(log, shift_state="", speed="")
    assert (told[vss.LOW_VOLTAGE_STATE], told[vss.GEAR], told[vss.SPEED]) == (None, None, None)


def test_a_gear_without_a_speed_is_not_standing(log: Path) -> None:
    assert values(log, shift_state="D", speed="None")[vss.SPEED] is None


@pytest.mark.parametrize(
    ("said_kw", "amperes", "line_w"), [("9", "40", 9000), ("10", "40", 9360), ("0", "40", 0), ("9", "0", 0)]
)
def test_line_power_is_what_both_ways_of_telling_it_prove(
    log: Path, said_kw: str, amperes: str, line_w: float
) -> None:
    told = values(log, charger_power=said_kw, charger_actual_current=amperes)
    assert told[vss.CHARGE_LINE_POWER] == line_w


@pytest.mark.parametrize("state", ["Complete", "Stopped", "NoPower", "Starting"])
def test_a_cable_may_be_in_without_charging(log: Path, state: str) -> None:
    told = values(log, charging_state=state)
    assert (told[vss.CABLE_CONNECTED], told[vss.IS_CHARGING]) == (True, False)


GARBAGE = [
    ("shift_state", "X", vss.GEAR),
    ("shift_state", "X", vss.LOW_VOLTAGE_STATE),
    ("speed", "-1", vss.SPEED),
    ("speed", "fast", vss.SPEED),
    ("locked", "1", vss.DRIVER_LOCK),
    ("charger_power", "None", vss.CHARGE_LINE_POWER),
    ("charger_power", "1e9", vss.CHARGE_LINE_POWER),
    ("charger_voltage", "nan", vss.CHARGE_LINE_POWER),
    ("charger_actual_current", "", vss.CHARGE_LINE_POWER),
    ("battery_current", "inf", vss.PACK_CURRENT),
    ("battery_level", "NaN", vss.SOC),
    ("battery_level", "101", vss.SOC),
    ("battery_level", "<invalid>", vss.SOC),
    ("outside_temp", "None", vss.AMBIENT_TEMPERATURE),
    ("outside_temp", "235", vss.AMBIENT_TEMPERATURE),
    ("charging_state", "None", vss.CABLE_CONNECTED),
    ("charging_state", "perhaps", vss.IS_CHARGING),
    ("time_to_full_charge", "-1", vss.TIME_TO_COMPLETE),
]


@pytest.mark.parametrize(("column", "cell", "path"), GARBAGE)
def test_a_cell_that_makes_no_sense_is_an_invalid_reading(
    log: Path, column: str, cell: str, path: str
) -> None:
    assert values(log, **{column: cell})[path] is None


@pytest.mark.parametrize("gap", [blank("2016-06-26 16:31:00"), line(state="asleep"), line(state="")])
def test_in_a_gap_nothing_is_known_and_nothing_is_assumed(log: Path, gap: str) -> None:
    told = rows(log, gap)
    assert {row.path for row in told} == set(teslafi.PATHS)
    assert {row.value for row in told} == {None}


def test_a_row_that_was_cut_off_is_left_out(log: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = rows(log, line())
    assert rows(log, line() + line(Date="2016-06-26 16:31:00")[:60]) == whole
    assert caplog.messages == [f"{log}:3: the row has no end and is left out"]


def test_a_last_row_that_only_lacks_its_line_end_counts(log: Path) -> None:
    assert rows(log, line().rstrip("\n")) == rows(log, line())


def test_a_byte_order_mark_windows_line_ends_and_empty_lines_do_not_matter(log: Path) -> None:
    plain = rows(log, line())
    log.write_bytes(b"\xef\xbb\xbf" + (HEADER + line() + "\n").replace("\n", "\r\n").encode())
    assert list(teslafi.read_rows(log)) == plain


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "Date,charging_state\n",
            ":1: a TeslaFi export has columns that are missing here: state, shift_state",
        ),
        (HEADER + line() + "1,2,3\n" + line(), ":3: 3 cells under 15 columns"),
        (HEADER + line().replace("True", "True,True"), ":2: 16 cells under 15 columns"),
        (
            HEADER + line(Date="26/06/2016 16:30"),
            ":2: Date is '26/06/2016 16:30': it should be like 2016-06-26",
        ),
        (HEADER + line(Date=""), ":2: Date is ''"),
        (
            HEADER + line() + line(Date="2016-06-26 16:29:00"),
            ":3: Date is 2016-06-26 16:29:00: it jumps back by 60 s",
        ),
        (HEADER + line(state='"online'), ":2: not a row of CSV in UTF-8"),
        (HEADER + line(locked="\xff"), ":2: not a row of CSV in UTF-8"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_its_line(log: Path, text: str, says: str) -> None:
    log.write_bytes(text.encode("latin-1"))
    with pytest.raises(CsvLogError) as refusal:
        list(teslafi.read_rows(log))
    assert str(refusal.value).startswith(f"{log}{says}")


def test_dates_are_the_clocks_of_the_place_also_in_the_night_when_they_are_set_back(log: Path) -> None:
    shown = ("2016-11-06 01:59:30", "2016-11-06 01:00:30", "2016-11-06 02:00:30")
    told = rows(log, "".join(line(Date=date) for date in shown), ZoneInfo("America/Los_Angeles"))
    stamps = sorted({row.at_ns // 10**9 for row in told})
    assert [after - before for before, after in pairwise(stamps)] == [60, 3600]
    assert stamps[0] == dt.datetime(2016, 11, 6, 8, 59, 30, tzinfo=dt.UTC).timestamp()


def test_an_export_is_known_by_its_header() -> None:
    assert teslafi.is_header(HEADER)
    assert not teslafi.is_header("t_s,path,value\n")
