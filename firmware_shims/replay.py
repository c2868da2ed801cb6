"""A recorded bus: candump logs, fed through the same gate and map as a live one.

One frame a line, as `candump -L` writes them: `(1597243084.254287) can0 118#5003851817800000`. Lines that are no
frames (the last one may be cut off) come out as error frames, which the CAN source counts as malformed.
"""

import re
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from firmware_shims.can import CanSource
from firmware_shims.can_bus import Bus
from firmware_shims.clock import Clock
from firmware_shims.signal_map import SignalMap
from firmware_shims.socketcand import UNREADABLE, Frame

_LINE: Final = re.compile(r"\((\d+)\.(\d{6})\) \S+ ([0-9A-F]{3}|[0-9A-F]{8})#((?:[0-9A-F]{2})*)(?: [TR])?\s*")

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

    `wait` lets the time of `clock` pass: `time.sleep` for a log at its own speed; a test moves its clock on.
    """

    def __init__(self, recorded: Iterable[Recorded], clock: Clock, wait: Callable[[float], None]) -> None:
        self._recorded = iter(recorded)
        self._clock = clock
        self._wait = wait
        self._next = next(self._recorded, None)
        self._shift_ns = clock() - self._next[0] if self._next else 0

    def recv(self, timeout: float) -> Frame | None:
        """The next frame once it is due; None when `timeout` seconds have not brought it."""
        if self._next is None:
            raise EOFError("the log has ended")
        stamp_ns, frame = self._next
        early_ns = stamp_ns + self._shift_ns - self._clock()
        if early_ns > 0:
            self._wait(min(early_ns / 1e9, timeout))
            if stamp_ns + self._shift_ns > self._clock():
                return None
        self._next = next(self._recorded, None)
        return frame

    def shutdown(self) -> None:
        """Nothing to close."""


def read_log(log: Path) -> Iterator[Recorded]:
    """Frames of a candump log file; it is open until the last one was taken."""
    with log.open(encoding="ascii", errors="replace") as lines:
        yield from read_candump(lines)


def candump_source(name: str, signal_map: SignalMap, log: Path, clock: Clock) -> CanSource:
    """A `Source` that plays a log once, at the speed at which it was recorded; then its signals age.

    ValueError when there is no such log.
    """
    if not log.is_file():
        raise ValueError(f"no candump log at {log}")
    recorded = read_log(log)

    def open_bus() -> Bus:
        return RecordedBus(recorded, clock, time.sleep)

    return CanSource(name, signal_map, {}, clock, open_bus)
