"""Log lines for stderr: one record a line whatever the text holds, and never a payload."""

import datetime as dt
import json
import logging
import math
import sys
from typing import Any, Final, Literal, TextIO

from agent.sparing_logs import Sparing

LogFormat = Literal["json", "text"]

FIELD_MAX_CHARS: Final = 2_000
"""A longer value is cut: what an operator acts on is short, and a payload is not for the log."""

_OF_EVERY_RECORD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


def configure(log_format: LogFormat, level: int = logging.INFO, stream: TextIO | None = None) -> None:
    """Send every logger's records to `stream` (default stderr) in one format."""
    target = logging.StreamHandler(stream or sys.stderr)
    target.addFilter(Sparing())
    target.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    logging.basicConfig(level=level, handlers=[target], force=True)
    logging.captureWarnings(True)


class JsonFormatter(logging.Formatter):
    """`{"at", "level", "logger", "message", ...extra fields, "exception"}` in ASCII."""

    def format(self, record: logging.LogRecord) -> str:
        """Escape as JSON does: control characters, surrogates and other scripts become ASCII sequences."""
        fields = _extras(record) | {
            "at": _at(record),
            "level": record.levelname,
            "logger": record.name,
            "message": _cut(record.getMessage()),
        }
        if text := _exception(self, record):
            fields["exception"] = text
        return json.dumps(fields, allow_nan=False)


class TextFormatter(logging.Formatter):
    """`2026-11-22T01:00:00.000Z WARNING agent.link: message key=value`, a traceback indented below it."""

    def format(self, record: logging.LogRecord) -> str:
        """Whatever cannot be printed is escaped, so a record cannot pretend to be another or move the cursor."""
        parts = [f"{_at(record)} {record.levelname} {record.name}: {_visible(_cut(record.getMessage()))}"]
        parts += [f"{_visible(key)}={_visible(str(value))}" for key, value in _extras(record).items()]
        lines = [" ".join(parts)]
        lines += [f"    {_visible(line)}" for line in _exception(self, record).splitlines()]
        return "\n".join(lines)


def _at(record: logging.LogRecord) -> str:
    """RFC 3339 UTC with milliseconds."""
    stamp = dt.datetime.fromtimestamp(record.created, dt.UTC)
    return stamp.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _extras(record: logging.LogRecord) -> dict[str, Any]:
    """What the caller gave as `extra`, as JSON's own scalars."""
    return {key: _scalar(value) for key, value in vars(record).items() if key not in _OF_EVERY_RECORD}


def _scalar(value: object) -> bool | int | float | str | None:
    match value:
        case None | bool() | int():
            return value
        case float():
            return value if math.isfinite(value) else repr(value)
        case bytes() | bytearray() | memoryview():
            return f"<{memoryview(value).nbytes} bytes>"
        case _:
            return _cut(str(value))


def _exception(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    return formatter.formatException(record.exc_info) if record.exc_info else ""


def _cut(text: str) -> str:
    return text if len(text) <= FIELD_MAX_CHARS else f"{text[:FIELD_MAX_CHARS]}… ({len(text)} characters)"


def _visible(text: str) -> str:
    """The text with a Python escape for everything that is not printable: line ends, ESC, right-to-left marks."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
