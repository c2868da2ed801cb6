"""Keeps a log from growing with what somebody else sends: of records that are alike only some are written."""

import logging
import threading
from typing import Final

ALIKE_MOST: Final = 20
WINDOW_S: Final = 10.0
KINDS_MOST: Final = 512
KIND_MAX_CHARS: Final = 200


class Sparing(logging.Filter):
    """Lets at most `ALIKE_MOST` records of one kind through in `WINDOW_S`; the next one then says how many were left out.

    A kind is a logger with a message before its arguments are put in. Time is that of the records.
    """

    def __init__(self) -> None:
        super().__init__()
        self._windows: dict[tuple[str, str], tuple[float, int]] = {}
        self._lock = threading.Lock()  # sources, store and meter log from threads of their own

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to write this record."""
        with self._lock:
            return self._counted(record)

    def _counted(self, record: logging.LogRecord) -> bool:
        said = record.msg if isinstance(record.msg, str) else type(record.msg).__name__
        kind = record.name, said[:KIND_MAX_CHARS]
        begun_s, seen = self._windows.pop(kind, (record.created, 0))
        if not 0 <= record.created - begun_s < WINDOW_S:
            if seen > ALIKE_MOST:
                record.msg = f"{said} (and {seen - ALIKE_MOST} like it before, left out)"
            begun_s, seen = record.created, 0
        self._windows[kind] = begun_s, seen + 1
        if len(self._windows) > KINDS_MOST:
            del self._windows[next(iter(self._windows))]  # the kind that was seen longest ago
        return seen < ALIKE_MOST
