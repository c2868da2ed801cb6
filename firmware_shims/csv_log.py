"""A recorded car as a table: `t_s,path,value`, one reading a line, in the order of time.

    t_s,path,value
    0,Vehicle.Powertrain.Transmission.SelectedGear,126
    0.1,Vehicle.Cabin.Door.Row1.DriverSide.IsOpen,false
    12.5,Vehicle.Compute.Chip.Temperature,

A value is `true`, `false`, a number or else text. Empty, NaN and infinite ones are invalid readings. What makes a
file unusable is said with its line: a missing heading, a line of other than three fields, a time that is no number or
lies before the line above. A last line without its line end may have been cut off, and is left out.
"""

import logging
import math
import threading
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Final, NamedTuple

from firmware_shims.clock import Clock
from firmware_shims.reading import Quality, Reading, Sink, Value

HEADING: Final = ("t_s", "path", "value")
STALE_AFTER_S: Final = 1.0
HEARD_EVERY_NS: Final = 50_000_000
_LONGEST_LINE: Final = 4096
_MOST_S: Final = 1e11

logger = logging.getLogger(__name__)


class Row(NamedTuple):
    """One reading: nanoseconds on the log's own clock; `value` None when the car had none."""

    at_ns: int
    path: str
    value: Value | None


class CsvLogError(ValueError):
    """A log that cannot be used: one line with the file, the line and what is wrong."""


def read_rows(log: Path) -> Iterator[Row]:
    """The rows of a log file in its order; it is open until the last one was taken. Raises `CsvLogError`."""
    at_ns = None
    with log.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(_LONGEST_LINE), b""), start=1):
            where = f"{log}:{number}"
            if not line.endswith(b"\n"):
                if len(line) == _LONGEST_LINE:
                    raise CsvLogError(f"{where}: a line of {_LONGEST_LINE} bytes or more is no reading")
                logger.warning("%s: the line has no end and is left out", where)
                return
            fields = _fields(line, where)
            if number == 1:
                if fields != HEADING:
                    raise CsvLogError(f"{where}: the first line must be {','.join(HEADING)}")
            elif fields != ("",):
                row = _row(fields, where)
                if at_ns is not None and row.at_ns < at_ns:
                    raise CsvLogError(f"{where}: t_s jumps back by {(at_ns - row.at_ns) / 1e9:g} s")
                at_ns = row.at_ns
                yield row


class CsvReplay:
    """A `Source` that plays a log once, `speed` times as fast as it was recorded; then its signals age.

    A reading is stale `stale_after_s` seconds after it was played: a log that tells only changes needs a long time
    there. The whole file is read once here: `CsvLogError`, or OSError.
    """

    def __init__(
        self, name: str, log: Path, clock: Clock, *, speed: float = 1.0, stale_after_s: float = STALE_AFTER_S
    ) -> None:
        paths = {row.path for row in read_rows(log)}
        if not paths:
            raise CsvLogError(f"{log}: no readings in it")
        self.name = name
        self.stale_after_s: Mapping[str, float] = dict.fromkeys(sorted(paths), stale_after_s)
        self._log = log
        self._clock = clock
        self._speed = speed
        self._heard_ns = 0

    def run(self, sink: Sink, stop: threading.Event) -> None:
        """Deliver every reading when it is due, counted from the first; silent behind the last."""
        began_ns = self._heard_ns = self._clock()
        first_ns = None
        for at_ns, rows in groupby(read_rows(self._log), key=lambda row: row.at_ns):
            first_ns = at_ns if first_ns is None else first_ns
            due_ns = began_ns + int((at_ns - first_ns) / self._speed)
            if not self._wait(due_ns, sink, stop):
                return
            sink.update([self._reading(row) for row in rows])
        logger.info("signals %s: the log has ended", self.name)
        stop.wait()

    def _wait(self, due_ns: int, sink: Sink, stop: threading.Event) -> bool:
        """Let the time until `due_ns` pass, saying that nothing came meanwhile; False when stopped."""
        while not stop.is_set():
            now_ns = self._clock()
            if now_ns - self._heard_ns >= HEARD_EVERY_NS:
                self._heard_ns = now_ns
                sink.heard(self.name, min(now_ns, due_ns))
            if now_ns >= due_ns:
                return True
            stop.wait(min(due_ns - now_ns, HEARD_EVERY_NS) / 1e9)
        return False

    def _reading(self, row: Row) -> Reading:
        quality = Quality.INVALID if row.value is None else Quality.GOOD
        return Reading(row.path, row.value, self.name, self._clock(), quality)


def _fields(line: bytes, where: str) -> tuple[str, ...]:
    try:
        return tuple(field.strip() for field in line.decode("utf-8-sig").split(","))
    except UnicodeDecodeError as error:
        raise CsvLogError(f"{where}: not UTF-8") from error


def _row(fields: tuple[str, ...], where: str) -> Row:
    if len(fields) != len(HEADING):
        raise CsvLogError(f"{where}: {len(fields)} fields instead of {','.join(HEADING)}")
    time, path, value = fields
    t_s = _number(time)
    if t_s is None or abs(t_s) > _MOST_S:
        raise CsvLogError(f"{where}: t_s is {time!r}: a number of seconds is needed, at most {_MOST_S:g}")
    if not path:
        raise CsvLogError(f"{where}: no path")
    return Row(round(t_s * 1e9), path, _value(value))


def _value(text: str) -> Value | None:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        float(text)
    except ValueError:
        return text or None
    return _number(text)


def _number(text: str) -> float | None:
    """A finite number, else None."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
