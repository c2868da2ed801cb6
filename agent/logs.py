"""Log lines: for systemd's journal with their fields, or for stderr, one record a line whatever the text holds."""

import datetime as dt
import json
import logging
import os
import sys
from collections.abc import Mapping
from typing import Literal, TextIO

from agent import journald
from agent.log_text import LogText, visible
from agent.sparing_logs import Sparing

LogFormat = Literal["auto", "journal", "json", "text"]
"""`auto`: the journal where stderr goes there anyway, as it does in a unit of systemd, else JSON."""


def configure(
    log_format: LogFormat,
    level: int | str = logging.INFO,
    stream: TextIO | None = None,
    *,
    vehicle: str = "",
    environ: Mapping[str, str] = os.environ,
) -> None:
    """Send every logger's records to the journal, or to `stream` (default stderr); the last call holds.

    Identification numbers of cars are left out, but for what is part of `vehicle`. A journal that nobody serves
    is none: then lines go to stderr.
    """
    text = LogText(vehicle)
    to_journal = log_format == "journal" or (log_format == "auto" and journald.is_stderr(environ))
    target: logging.Handler
    if to_journal and journald.reachable():
        target = journald.JournaldLog(text)
    else:
        target = logging.StreamHandler(stream or sys.stderr)
        target.setFormatter(TextFormatter(text) if log_format == "text" else JsonFormatter(text))
    target.addFilter(Sparing())
    logging.basicConfig(level=level, handlers=[target], force=True)
    logging.captureWarnings(True)


class JsonFormatter(logging.Formatter):
    """`{"at", "level", "logger", "message", ...extra fields, "exception"}` in ASCII."""

    def __init__(self, text: LogText | None = None) -> None:
        super().__init__()
        self._text = text or LogText()

    def format(self, record: logging.LogRecord) -> str:
        """Escape as JSON does: control characters and other scripts become ASCII sequences."""
        fields = self._text.extras(record) | {
            "at": _at(record),
            "level": self._text.value(record.levelname),
            "logger": self._text.value(record.name),
            "message": self._text.message(record),
        }
        if traceback := self._text.traceback(self, record):
            fields["exception"] = traceback
        return json.dumps(fields, allow_nan=False)


class TextFormatter(logging.Formatter):
    """`2026-11-22T01:00:00.000Z WARNING agent.link: message key=value`, a traceback indented below it."""

    def __init__(self, text: LogText | None = None) -> None:
        super().__init__()
        self._text = text or LogText()

    def format(self, record: logging.LogRecord) -> str:
        """Whatever cannot be printed is escaped, so a record cannot pretend to be another or move the cursor."""
        level, name = self._text.value(record.levelname), self._text.value(record.name)
        parts = [f"{_at(record)} {level} {name}: {self._text.message(record)}"]
        parts += [f"{key}={value}" for key, value in self._text.extras(record).items()]
        below = [f"    {visible(line)}" for line in self._text.traceback(self, record).splitlines()]
        return "\n".join([visible(" ".join(parts)), *below])


def _at(record: logging.LogRecord) -> str:
    """RFC 3339 UTC with milliseconds."""
    stamp = dt.datetime.fromtimestamp(record.created, dt.UTC)
    return stamp.isoformat(timespec="milliseconds").replace("+00:00", "Z")
