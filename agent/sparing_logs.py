"""Keeps a log from growing with what somebody else sends: of records that are alike only some are written."""

import logging
from typing import Final

ALIKE_MOST: Final = 20
WINDOW_S: Final = 10.0
KINDS_MOST: Final = 512


class Sparing(logging.Filter):
    """Lets at most `ALIKE_MOST` records of one kind through in `WINDOW_S`; the next one then says how many were left out.

    A kind is a logger with a message before its arguments are put in. Time is that of the records.
    """

    def __init__(self) -> None:
        super().__init__()
        self._windows: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to write this record."""
        kind = record.name, str(record.msg)
        begun_s, seen = self._windows.pop(kind, (record.created, 0))
        if not 0 <= record.created - begun_s < WINDOW_S:
            if seen > ALIKE_MOST:
                record.msg = f"{record.msg} (and {seen - ALIKE_MOST} like it before, left out)"
            begun_s, seen = record.created, 0
        self._windows[kind] = begun_s, seen + 1
        if len(self._windows) > KINDS_MOST:
            del self._windows[next(iter(self._windows))]  # the kind that was seen longest ago
        return seen < ALIKE_MOST
