"""What may stand in a log line: of one car, short, printable."""

import logging
import math
import re
from typing import Any, Final

VALUE_MAX_CHARS: Final = 2_000
"""A longer value is cut: what an operator acts on is short."""
TRACEBACK_MAX_CHARS: Final = 8_000
NUMBER_MAX_BITS: Final = 64
UNFIT: Final = (TypeError, ValueError, KeyError, OverflowError, RecursionError)
"""What the arguments of a message, or a value in them, may raise on their way to being text."""

_OF_EVERY_RECORD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
# ISO 3779: 17 characters without I, O and Q, of which the last four are digits. What is in front may be an escape.
_VIN: Final = re.compile(
    r"(?:(?<![A-Za-z0-9])|(?<=\\[nrt])|(?<=\\x[0-9a-f]{2})|(?<=\\u[0-9a-f]{4}))"
    r"(?=[0-9]*[A-Z])[A-HJ-NPR-Z0-9]{13}[0-9]{4}(?![A-Za-z0-9])"
)
_BYTES: Final = re.compile(r"""\bb(?:'(?:[^'\\]|\\.){32,}'|"(?:[^"\\]|\\.){32,}")""", re.DOTALL)
"""Bytes as Python writes them, unless they are few: a payload that got into an exception, or into a list."""

Scalar = bool | int | float | str | None


class LogText:
    """The parts of a record as text of which only the bounds are certain: it may hold line ends and terminal escapes.

    Payloads are left out, and what looks like the identification number of a car, unless `vehicle` is called so.
    """

    def __init__(self, vehicle: str = "") -> None:
        self._vehicle = vehicle

    def message(self, record: logging.LogRecord) -> str:
        """The message with its arguments; where they do not fit, without them."""
        said = record.msg if isinstance(record.msg, str) else self._scalar(record.msg)
        try:
            return self.value(said % _sizes(record.args) if record.args else str(said))
        except UNFIT:
            return self.value(f"{said} (its arguments do not fit)")

    def extras(self, record: logging.LogRecord) -> dict[str, Scalar]:
        """What the caller gave as `extra`, as JSON's own scalars."""
        given = (item for item in vars(record).items() if item[0] not in _OF_EVERY_RECORD)
        return {self.value(name): self._scalar(value) for name, value in given}

    def traceback(self, formatter: logging.Formatter, record: logging.LogRecord) -> str:
        """The record's traceback, of a long one the beginning and the end; empty without one."""
        if not record.exc_info:
            return ""
        text, half = self._discreet(formatter.formatException(record.exc_info)), TRACEBACK_MAX_CHARS // 2
        if len(text) > TRACEBACK_MAX_CHARS:
            return f"{text[:half]}\n… ({len(text)} characters)\n{text[-half:]}"
        return text

    def value(self, text: str) -> str:
        """The beginning of a text, and how long it is."""
        fit = self._discreet(text)
        return fit if len(fit) <= VALUE_MAX_CHARS else f"{fit[:VALUE_MAX_CHARS]}… ({len(text)} characters)"

    def _discreet(self, text: str) -> str:
        if not text.isascii():  # lone surrogates are in no encoding
            text = text.encode("utf-8", "backslashreplace").decode()
        told = _VIN.sub(lambda found: found[0] if found[0] in self._vehicle else "<VIN>", text)
        return _BYTES.sub("<bytes>", told)

    def _scalar(self, value: Any) -> Scalar:
        match _size(value):
            case None | bool() as plain:
                return plain
            case int() as number:
                bits = int(number).bit_length()
                return int(number) if bits <= NUMBER_MAX_BITS else f"<{bits} bits>"
            case float() as number:
                return float(number) if math.isfinite(number) else repr(float(number))
            case other:
                try:
                    return self.value(str(other))
                except UNFIT:
                    return f"<{type(other).__name__}>"


def visible(text: str) -> str:
    """The text with a Python escape for everything that is not printable: line ends, ESC, right-to-left marks."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def _sizes(arguments: Any) -> Any:
    """The arguments of a message (a tuple, or one mapping) with the size of what is bytes."""
    if isinstance(arguments, tuple):
        return tuple(_size(argument) for argument in arguments)
    return {name: _size(argument) for name, argument in arguments.items()}


def _size(value: Any) -> Any:
    return (
        f"<{memoryview(value).nbytes} bytes>" if isinstance(value, bytes | bytearray | memoryview) else value
    )
