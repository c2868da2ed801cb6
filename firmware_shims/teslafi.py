"""A day of a real car as the TeslaFi data logger exports it: a CSV with a row a minute and a column a signal.

A row holds until the next one. `None` in a cell is the car's own null; an empty cell says that the logger got no
answer. A row without any answer, or of a car that is not `online`, makes every signal invalid. What the export does
not hold at all is assumed (`ASSUMED`), and only where a row holds.

Source of the format: the TeslaFi export among the tests of teslamate (MIT). The cells are what Tesla's owner API
gave: speed in mph, temperatures in Celsius, power in whole kW, pack current positive while it charges, and neither
gear nor speed (null) while the drive system is off.
"""

import csv
import datetime as dt
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from firmware_shims import vss
from firmware_shims.csv_log import CsvLogError, Row
from firmware_shims.reading import Value

STALE_AFTER_S: Final = 180.0
"""How long a row holds when no other follows: rows come a minute apart, and up to 131 s in the recorded day."""
NULL: Final = "None"
_DATE: Final = "%Y-%m-%d %H:%M:%S"
_LONGEST_LINE: Final = 65_536
_KM_PER_MILE: Final = 1.609344
_GEARS: Final = {"P": vss.GEAR_PARK, "R": -1, "N": 0, "D": vss.GEAR_DRIVE, NULL: vss.GEAR_PARK}
_STANDING: Final = ("P", NULL)
_CONNECTED: Final = ("Starting", "Charging", "Complete", "Stopped", "NoPower", "Calibrating")

logger = logging.getLogger(__name__)

Cells = Mapping[str, str]


def _number(text: str, low: float, high: float) -> float | None:
    """A number from `low` to `high`, else None."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and low <= number <= high else None


def _power_state(cells: Cells) -> str | None:
    shift = cells["shift_state"]
    if shift not in _GEARS:
        return None
    return "OFF" if shift == NULL else "ON"


def _speed_kmh(cells: Cells) -> float | None:
    if cells["speed"] == NULL and cells["shift_state"] in _STANDING:
        return 0.0
    mph = _number(cells["speed"], 0, 250)
    return None if mph is None else mph * _KM_PER_MILE


def _line_power_w(cells: Cells) -> float | None:
    """The smaller of what the charger says and volts times amperes of one phase: what is proven is proven by both."""
    said_kw = _number(cells["charger_power"], 0, 500)
    volts = _number(cells["charger_voltage"], 0, 1000)
    amperes = _number(cells["charger_actual_current"], 0, 1000)
    if said_kw is None or volts is None or amperes is None:
        return None
    return min(1000 * said_kw, volts * amperes)


def _is_charging(cells: Cells) -> bool | None:
    connected = _cable_connected(cells)
    return None if connected is None else cells["charging_state"] == "Charging"


def _cable_connected(cells: Cells) -> bool | None:
    state = cells["charging_state"]
    return True if state in _CONNECTED else False if state == "Disconnected" else None


def _time_to_complete_s(cells: Cells) -> float | None:
    hours = _number(cells["time_to_full_charge"], 0, 200)
    return None if hours is None else 3600 * hours


SIGNALS: Final[Mapping[str, Callable[[Cells], Value | None]]] = {
    vss.LOW_VOLTAGE_STATE: _power_state,
    vss.GEAR: lambda cells: _GEARS.get(cells["shift_state"]),
    vss.SPEED: _speed_kmh,
    vss.DRIVER_LOCK: lambda cells: {"True": True, "False": False}.get(cells["locked"]),
    vss.CHARGE_LINE_POWER: _line_power_w,
    vss.PACK_CURRENT: lambda cells: _number(cells["battery_current"], -3000, 3000),
    vss.SOC: lambda cells: _number(cells["battery_level"], 0, 100),
    vss.AMBIENT_TEMPERATURE: lambda cells: _number(cells["outside_temp"], -60, 70),
    vss.CABLE_CONNECTED: _cable_connected,
    vss.IS_CHARGING: _is_charging,
    vss.TIME_TO_COMPLETE: _time_to_complete_s,
}
"""What a row says of a signal; None: nothing that can be used."""

COLUMNS: Final = (
    *("Date", "state", "shift_state", "speed", "locked", "outside_temp", "battery_level", "battery_current"),
    *("charging_state", "charger_power", "charger_voltage", "charger_actual_current", "time_to_full_charge"),
)
"""What is read of an export."""

ASSUMED: Final[Mapping[str, Value]] = {
    vss.CHIP_TEMPERATURE: 45.0,
    vss.PACK_TEMPERATURE_MIN: 20.0,
    vss.PACK_TEMPERATURE_MAX: 20.0,
    vss.DRIVER_DOOR: False,
}
"""What the export has no column for, where a row holds."""

ASSUMPTIONS: Final = (
    "chip 45 C, pack 20 C, driver's door closed: the export has no column for them",
    "gear P, 0 km/h and power state OFF where shift_state is None; power state ON in any gear, P included",
)
"""`ASSUMED` and what is read into a null, for people."""

PATHS: Final = (*SIGNALS, *ASSUMED)


def is_header(line: str) -> bool:
    """Whether a file that begins with this line is such an export, perhaps with columns missing."""
    return {"Date", "charging_state"} <= set(line.strip().split(","))


def read_rows(log: Path, zone: dt.tzinfo = dt.UTC) -> Iterator[Row]:
    """The readings of an export in its order, stamped in unix time; its dates are the clocks of `zone`.

    Raises `CsvLogError` with the line for what makes the file unusable. A last row that was cut off is left out.
    """
    header: list[str] = []
    before_ns: int | None = None
    with log.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(_LONGEST_LINE), b""), start=1):
            where = f"{log}:{number}"
            fields = _fields(line, where)
            if not header:
                header = _columns(fields, where)
            elif len(fields) < len(header) and not line.endswith(b"\n"):
                logger.warning("%s: the row has no end and is left out", where)
            elif fields:
                if len(fields) != len(header):
                    raise CsvLogError(f"{where}: {len(fields)} cells under {len(header)} columns")
                cells = dict(zip(header, fields, strict=True))
                before_ns = _at_ns(cells["Date"], zone, before_ns, where)
                yield from _readings(before_ns, cells)


def _fields(line: bytes, where: str) -> list[str]:
    try:
        return next(csv.reader([line.decode("utf-8-sig")], strict=True), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise CsvLogError(f"{where}: not a row of CSV in UTF-8: {error}") from error


def _columns(header: list[str], where: str) -> list[str]:
    if missing := [column for column in COLUMNS if column not in header]:
        raise CsvLogError(
            f"{where}: a TeslaFi export has columns that are missing here: {', '.join(missing)}"
        )
    return header


def _at_ns(date: str, zone: dt.tzinfo, before_ns: int | None, where: str) -> int:
    """Unix time of a date on the zone's clocks; of an hour that the clocks show twice the one that fits."""
    try:
        local = dt.datetime.strptime(date, _DATE).replace(tzinfo=zone)
        first_ns, second_ns = (int(local.replace(fold=fold).timestamp()) * 1_000_000_000 for fold in (0, 1))
    except (ValueError, OverflowError) as error:
        raise CsvLogError(f"{where}: Date is {date!r}: it should be like 2016-06-26 07:58:31") from error
    at_ns = first_ns if before_ns is None or first_ns >= before_ns else max(first_ns, second_ns)
    if before_ns is not None and at_ns < before_ns:
        raise CsvLogError(f"{where}: Date is {date}: it jumps back by {(before_ns - at_ns) / 1e9:g} s")
    return at_ns


def _readings(at_ns: int, cells: Cells) -> Iterator[Row]:
    answers = cells["state"] == "online" and any(cells[column] for column in COLUMNS[2:])
    for path, read in SIGNALS.items():
        yield Row(at_ns, path, read(cells) if answers else None)
    for path, value in ASSUMED.items():
        yield Row(at_ns, path, value if answers else None)
