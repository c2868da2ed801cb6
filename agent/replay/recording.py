"""A log file as a source of readings on its own clock: the format is recognised by the first line."""

import datetime as dt
import logging
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Final

from firmware_shims import csv_log, signal_map, teslafi
from firmware_shims.csv_log import CsvLogError, Row
from firmware_shims.frame_gate import FrameGate, Judgement
from firmware_shims.reading import Quality, Reading, Sink
from firmware_shims.replay import read_log
from firmware_shims.signal_map import SignalMap, SignalMapError
from firmware_shims.socketcand import UNREADABLE

NAME: Final = "log"
CANDUMP: Final = "candump log"
CSV: Final = "CSV of readings"
TESLAFI: Final = "TeslaFi export"
_HEAD_BYTES: Final = 65_536
_HEAD_SHOWN_CHARS: Final = 60
_UNIX_NS: Final = range(10**18, 10**20)
"""A stamp from 2001 on is unix time; a smaller one counts from a moment that the log does not name."""
_LONGEST_GAP_NS: Final = 366 * 86_400 * 10**9
"""No day of a car: a clock that was set, or garbage."""

logger = logging.getLogger(__name__)

Event = tuple[int, list[Reading]]
"""Nanoseconds on the log's clock, and what was read then."""


class RecordingError(Exception):
    """A log that cannot be replayed: one line with the file, the place, what is wrong and what to do."""


@dataclass
class Recording:
    """A log as a `Source` that does not wait: it delivers everything with the log's own stamps.

    `assumed`: what the log does not hold and is taken for granted while it gives readings, in words.
    """

    file: Path
    format: str
    stale_after_s: Mapping[str, float]
    events: Iterable[Event]
    assumed: tuple[str, ...] = ()
    name: str = NAME

    def run(self, sink: Sink, stop: threading.Event) -> None:
        """Deliver the log from its beginning to its end. RecordingError where its time makes no sense."""
        before_ns = None
        for at_ns, readings in self.events:
            if stop.is_set():
                return
            self._check(before_ns, at_ns)
            before_ns = at_ns
            sink.heard(self.name, at_ns)
            sink.update(readings)

    def _check(self, before_ns: int | None, at_ns: int) -> None:
        step_ns = 0 if before_ns is None else at_ns - before_ns
        if not 0 <= step_ns <= _LONGEST_GAP_NS:
            way = "back" if step_ns < 0 else "ahead"
            raise RecordingError(
                f"{self.file}: the time jumps {way} by {abs(step_ns) / 1e9:g} s to {at_ns / 1e9:.6f} s;"
                " cut the log there"
            )


def unix_s(at_ns: int) -> float | None:
    """The wall clock at a stamp of a log; None where the log counts from a moment of its own."""
    return at_ns / 1e9 if at_ns in _UNIX_NS else None


def open_recording(
    log: Path, *, map_name: str | None, stale_after_s: float | None, zone: dt.tzinfo
) -> Recording:
    """The log in the file, whatever its format; RecordingError for one that cannot be used.

    `map_name` is needed for candump logs only, `stale_after_s` is for tables only; `zone` is where dates without a
    time zone belong.
    """
    try:
        head = _first_line(log)
        if head.startswith("("):
            return _candump(log, map_name, stale_after_s)
        if map_name is not None:
            raise RecordingError(f"{log}: a table names its signals itself; leave out --map {map_name}")
        if teslafi.is_header(head):
            return _teslafi(log, stale_after_s, zone)
        return _csv(log, stale_after_s)
    except OSError as error:
        raise RecordingError(f"{log}: cannot be read: {error.strerror}; give an existing file") from error
    except (CsvLogError, SignalMapError) as error:
        raise RecordingError(str(error)) from error


def _first_line(log: Path) -> str:
    with log.open("rb") as file:
        head = file.readline(_HEAD_BYTES).decode("utf-8-sig", errors="replace")
    begin = head.split(",")[0].strip()
    if not (head.startswith("(") or begin == csv_log.HEADING[0] or teslafi.is_header(head)):
        shown = head.strip()[:_HEAD_SHOWN_CHARS]
        raise RecordingError(
            f"{log}:1: {shown!r} begins no log: give a candump log (1.000000) can0 118#5003, a CSV that begins with"
            f" {','.join(csv_log.HEADING)}, or a TeslaFi export"
        )
    return head


def _teslafi(log: Path, stale_after_s: float | None, zone: dt.tzinfo) -> Recording:
    rows = list(teslafi.read_rows(log, zone))
    stale = dict.fromkeys(teslafi.PATHS, stale_after_s or teslafi.STALE_AFTER_S)
    return Recording(log, TESLAFI, stale, _events(_some(rows, log)), teslafi.ASSUMPTIONS)


def _csv(log: Path, stale_after_s: float | None) -> Recording:
    rows = _some(list(csv_log.read_rows(log)), log)
    stale = dict.fromkeys(sorted({row.path for row in rows}), stale_after_s or csv_log.STALE_AFTER_S)
    return Recording(log, CSV, stale, _events(rows))


def _some(rows: list[Row], log: Path) -> list[Row]:
    if not rows:
        raise RecordingError(f"{log}: no readings in it")
    return rows


def _events(rows: Iterable[Row]) -> Iterator[Event]:
    for at_ns, group in groupby(rows, key=lambda row: row.at_ns):
        yield (
            at_ns,
            [
                Reading(
                    row.path, row.value, NAME, at_ns, Quality.INVALID if row.value is None else Quality.GOOD
                )
                for row in group
            ],
        )


def _candump(log: Path, map_name: str | None, stale_after_s: float | None) -> Recording:
    if map_name is None:
        known = ", ".join(signal_map.shipped())
        raise RecordingError(f"{log}: a candump log needs --map: a path, or one of: {known}")
    if stale_after_s is not None:
        raise RecordingError(f"{log}: a map says itself when a signal is stale; leave out --stale-after")
    found = signal_map.load(map_name)
    return Recording(log, CANDUMP, found.stale_after_s, _frames(log, found))


def _frames(log: Path, signals: SignalMap) -> Iterator[Event]:
    """What each frame says, through the gates that a live bus goes through."""
    gates = {message.id: FrameGate(message, NAME) for message in signals.messages}
    left_out = 0
    for at_ns, frame in read_log(log):
        if frame is UNREADABLE:
            left_out += 1
            continue
        gate = gates.get(frame.arbitration_id)
        believed = gate is not None and gate.judge(frame) is Judgement.ACCEPTED
        yield at_ns, gate.readings(frame, at_ns) if gate and believed else []
    if left_out:
        logger.warning("%s: %d lines are no frames and are left out", log, left_out)
