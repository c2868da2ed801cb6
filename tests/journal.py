"""The journal as the agent sees it: a socket for datagrams, and what its native protocol says in them."""

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def fields(datagram: bytes) -> list[tuple[str, str]]:
    """The fields in their order, by systemd.io/JOURNAL_NATIVE_PROTOCOL."""
    found: list[tuple[str, str]] = []
    while datagram:
        line, _, rest = datagram.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            (size,) = struct.unpack("<Q", rest[:8])
            value, end, rest = rest[8 : 8 + size], rest[8 + size : 9 + size], rest[9 + size :]
            assert (len(value), end) == (size, b"\n")
        found.append((name.decode("ascii"), value.decode("utf-8")))
        datagram = rest
    return found


class FakeJournal:
    """Takes datagrams, and hands them out one by one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(os.fspath(path))
        self._socket.setblocking(False)

    def read(self) -> dict[str, str]:
        """The next record; of a field that stands in it twice the first value."""
        return dict(reversed(fields(self._socket.recv(1 << 20))))

    def drain(self) -> int:
        """Throw away what has come; how many."""
        count = 0
        while True:
            try:
                self._socket.recv(1 << 20)
            except BlockingIOError:
                return count
            count += 1

    def close(self) -> None:
        self._socket.close()
        self.path.unlink()


@contextmanager
def fake_journal(path: Path) -> Iterator[FakeJournal]:
    journal = FakeJournal(path)
    try:
        yield journal
    finally:
        journal.close()
