"""A recorded bus: candump logs, fed through the same gate and map as a live one.

[signals.options]
file = "drive.log"             # a candump log for the map of this source; what ends in .csv is `csv_log.py`'s
# speed = 1                    # up to 1000 times as fast as it was recorded
# stale_after_s = 1            # for a CSV: how long a reading counts after it was played

One frame a line, as `candump -L` writes them: `(1597243084.254287) can0 118#5003851817800000`. Lines that are no
frames (the last one may be cut off) come out as error frames, which the CAN source counts as malformed.
"""

import contextlib
import re
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Final

import msgspec

from firmware_shims.can import CanSource
from firmware_shims.can_bus import Bus
from firmware_shims.clock import Clock
from firmware_shims.signal_map import SignalMap
from firmware_shims.socketcand import UNREADABLE, Frame

_LINE: Final = re.compile(
    r"\((\d{1,12})\.(\d{6})\) \S+ ([0-9A-F]{3}|[0-9A-F]{8})#((?:[0-9A-F]{2})*)(?: [TR])?\s*"
)


class ReplayOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which log, and how fast. Ages are not scaled: at ten times the speed a gap must be ten times as long to show."""

    file: Annotated[str, msgspec.Meta(min_length=1)]
    speed: Annotated[float, msgspec.Meta(ge=1, le=1000)] = 1
    stale_after_s: Annotated[float, msgspec.Meta(gt=0, le=86_400)] | None = None


Recorded = tuple[int, Frame]
"""Nanoseconds on the log's own clock, and the frame."""


def read_candump(lines: Iterable[str]) -> Iterator[Recorded]:
    """Frames of a candump log, in its order."""
    stamp_ns = 0
    for line in lines:
        found = _LINE.fullmatch(line)
        if found is None:
            if line.strip():
                yield stamp_ns, UNREADABLE
            continue
        seconds, micros, can_id, data = found.groups()
        stamp_ns = int(seconds) * 1_000_000_000 + int(micros) * 1000
        yield stamp_ns, Frame(int(can_id, 16), bytes.fromhex(data), is_extended_id=len(can_id) > 3)


class RecordedBus:
    """A `Bus` that gives every frame when it is due, counted from the first. EOFError at the log's end.

    `wait` lets the time of `clock` pass: `time.sleep` in a car; a test moves its clock on.
    """

    def __init__(
        self,
        recorded: Iterable[Recorded],
        clock: Clock,
        wait: Callable[[float], None],
        speed: float = 1,
    ) -> None:
        self._recorded = iter(recorded)
        self._clock = clock
        self._wait = wait
        self._speed = speed
        self._next = next(self._recorded, None)
        self._began_ns = clock()
        self._first_ns = self._next[0] if self._next else 0

    def recv(self, timeout: float) -> Frame | None:
        """The next frame once it is due; None when `timeout` seconds have not brought it."""
        if self._next is None:
            raise EOFError("the log has ended")
        stamp_ns, frame = self._next
        due_ns = self._began_ns + int((stamp_ns - self._first_ns) / self._speed)
        early_ns = due_ns - self._clock()
        if early_ns > 0:
            self._wait(min(early_ns / 1e9, timeout))
            if due_ns > self._clock():
                return None
        self._next = next(self._recorded, None)
        return frame

    def shutdown(self) -> None:
        """Nothing to close."""


def read_log(log: Path) -> Generator[Recorded]:
    """Frames of a candump log file; it is open until the last one was taken."""
    with log.open(encoding="ascii", errors="replace") as lines:
        yield from read_candump(lines)


def candump_source(name: str, signal_map: SignalMap, log: Path, clock: Clock, speed: float = 1) -> CanSource:
    """A `Source` that plays a log once, `speed` times as fast as it was recorded; then its signals age.

    ValueError when there is no such log, or when its first line is no frame.
    """
    if not log.is_file():
        raise ValueError(f"no candump log at {log}")
    with contextlib.closing(read_log(log)) as frames:
        if next(frames, (0, None))[1] is UNREADABLE:
            raise ValueError(f"{log}:1: no frame of a candump log, such as (1.000000) can0 118#5003")
    recorded = read_log(log)

    def open_bus() -> Bus:
        return RecordedBus(recorded, clock, time.sleep, speed)

    return CanSource(name, signal_map, {}, clock, open_bus)
