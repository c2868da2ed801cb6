"""How far a long run is, on stderr: one line that is written over on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable
from typing import Final, TextIO

PLAIN_EVERY_S: Final = 60.0
SHOWN_EVERY_S: Final = 0.5


class Progress:
    """Knows how many rows there are; the time that is left follows from that of the rows that were measured."""

    def __init__(self, rows: int, out: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._rows = rows
        self._out = out
        self._clock = clock
        self._measured = 0
        self._measured_s = 0.0
        self._row_begun_s = clock()
        self._shown_s = float("-inf")
        self._number = 0
        self._title = ""
        self._width = 0

    def begin(self, title: str) -> None:
        """The next row is measured."""
        self._number += 1
        self._title = title
        self._row_begun_s = self._clock()
        self._shown_s = float("-inf")
        self.share(0.0)

    def share(self, done: float) -> None:
        """So much of the row is done, from 0 to 1."""
        now_s = self._clock()
        every_s = SHOWN_EVERY_S if self._out.isatty() else PLAIN_EVERY_S
        if now_s - self._shown_s < every_s:
            return
        self._shown_s = now_s
        measured, taken_s = self._measured + done, self._measured_s + now_s - self._row_begun_s
        left_s = taken_s / measured * (self._rows - self._number + 1 - done) if measured else None
        left = f", {_duration(left_s)} left" if left_s is not None else ""
        self._show(f"[{self._number}/{self._rows}] {self._title}{left}")

    def end(self, text: str, *, failed: bool = False) -> None:
        """The row is done: a line that stays. How long one took that failed says nothing of the others."""
        if not failed:
            self._measured += 1
            self._measured_s += self._clock() - self._row_begun_s
        self._show(f"[{self._number}/{self._rows}] {self._title}: {text}")
        if self._out.isatty():
            self._out.write("\n")
            self._width = 0

    def _show(self, line: str) -> None:
        if self._out.isatty():
            self._out.write("\r" + line.ljust(self._width))
            self._width = len(line)
        else:
            self._out.write(line + "\n")
        self._out.flush()


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min" if minutes >= 10 else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
