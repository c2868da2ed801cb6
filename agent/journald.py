"""Log records for systemd's journal, with their fields, by its own protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL)."""

import logging
import os
import re
import socket
import struct
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from agent.log_text import LogText, visible

SOCKET: Final = Path("/run/systemd/journal/socket")
IDENTIFIER: Final = "parkwatt"
OURS: Final = "PARKWATT_"
FIELD_NAME_MAX_CHARS: Final = 64
"""Of A-Z 0-9 _, and no underscore in front: others are the journal's own, or dropped (systemd.journal-fields(7))."""
PRIORITIES: Final = {"CRITICAL": 2, "ERROR": 3, "WARNING": 4, "INFO": 6, "DEBUG": 7}
NOTICE: Final = 5
"""syslog(3)"""


def is_stderr(environ: Mapping[str, str]) -> bool:
    """Whether stderr goes to the journal: then JOURNAL_STREAM is its device and inode (systemd.exec(5))."""
    try:
        found = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):  # closed, or no file
        return False
    return environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def reachable(path: Path = SOCKET) -> bool:
    """Whether somebody takes records at `path`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(os.fspath(path))
        except OSError:
            return False
    return True


class JournaldLog(logging.Handler):
    """One datagram a record. A journal that does not take it is not waited for: the next record says what was lost."""

    def __init__(self, text: LogText, path: Path = SOCKET) -> None:
        super().__init__()
        self._text = text
        self._tracebacks = logging.Formatter()
        self._path = os.fspath(path)
        self._lost = 0
        self._channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record, or count it as lost."""
        datagram = b"".join(_field(name, value) for name, value in self._fields(record))
        try:
            self._channel.sendto(datagram, self._path)
        except OSError:
            self._lost += 1
        else:
            self._lost = 0

    def close(self) -> None:
        """Let go of the socket."""
        self._channel.close()
        super().close()

    def _fields(self, record: logging.LogRecord) -> Iterator[tuple[str, str]]:
        """A traceback stands indented below the message: whoever prints it cannot take it for another record."""
        lost = f" ({self._lost} records before it were lost)" if self._lost else ""
        below = self._text.traceback(self._tracebacks, record).splitlines()
        message = visible(self._text.message(record)) + lost
        yield "MESSAGE", "\n".join([message, *(f"    {visible(line)}" for line in below)])
        yield "PRIORITY", str(PRIORITIES.get(record.levelname, NOTICE))
        yield "SYSLOG_IDENTIFIER", IDENTIFIER
        yield "CODE_LINE", str(record.lineno)
        for name, value in (
            ("CODE_FILE", record.pathname),
            ("CODE_FUNC", record.funcName),
            (f"{OURS}LOGGER", record.name),
            (f"{OURS}THREAD", record.threadName),
        ):
            yield name, visible(self._text.value(value or ""))
        for name, scalar in self._text.extras(record).items():
            yield _ours(name), visible(str(scalar))


def _ours(name: str) -> str:
    return (OURS + re.sub("[^A-Z0-9]", "_", name.upper()))[:FIELD_NAME_MAX_CHARS]


def _field(name: str, value: str) -> bytes:
    """`NAME=value`, or with its length (64 bits, little-endian) in front where the value has lines."""
    raw = value.encode()
    if b"\n" in raw:
        return name.encode() + b"\n" + struct.pack("<Q", len(raw)) + raw + b"\n"
    return name.encode() + b"=" + raw + b"\n"
