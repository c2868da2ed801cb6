"""A socketcand connection in raw mode, for listening only.

Not python-can's bus of that name (4.6.1): behind an end of file it reports silence and spins (a full core), it
tries a refused connection for 10 s without a pause (2.4 million log lines), waits for ever for a server that says
nothing, and fails when a frame follows the last `< ok >` in the same segment.
Protocol: https://github.com/linux-can/socketcand/blob/master/doc/protocol.md
"""

import contextlib
import math
import select
import socket
import time
from collections import deque
from dataclasses import dataclass

CONNECT_WITHIN_S = 1.0
_LONGEST_LINE = 4096


@dataclass(frozen=True, slots=True)
class Frame:
    """A CAN frame with the names that python-can's `Message` gives to its parts."""

    arbitration_id: int
    data: bytes
    is_extended_id: bool = False
    is_error_frame: bool = False


UNREADABLE = Frame(0, b"", is_error_frame=True)
"""Stands for text that is no frame, so that whoever counts error frames counts it too."""


class SocketcandBus:
    """Connected when constructed; raises OSError when the server is missing or refuses the channel."""

    def __init__(self, host: str, port: int, channel: str) -> None:
        self._frames: deque[Frame] = deque()
        self._rest = b""
        self._socket = socket.create_connection((host, port), timeout=CONNECT_WITHIN_S)
        try:
            _notice_dead_peer(self._socket)
            self._expect(b"< hi >")
            self._socket.sendall(f"< open {channel} >".encode("ascii"))
            self._expect(b"< ok >")
            self._socket.sendall(b"< rawmode >")
            self._expect(b"< ok >")
        except (OSError, EOFError):
            self._socket.close()
            raise
        self._take(b"")  # frames that came right behind the last answer
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)

    def recv(self, timeout: float) -> Frame | None:
        """The next frame, None after `timeout` seconds without one. EOFError when the server is gone."""
        if not self._frames and self._poll.poll(math.ceil(1000 * timeout)):
            self._take(self._read())
        return self._frames.popleft() if self._frames else None

    def shutdown(self) -> None:
        """Close the connection."""
        with contextlib.suppress(OSError):  # the server may have been faster
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _expect(self, wanted: bytes) -> None:
        """Wait for one answer of the handshake; frames may come right behind the last one."""
        deadline = time.monotonic() + CONNECT_WITHIN_S
        while b">" not in self._rest:
            self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
            self._rest += self._read()
        answer, _, self._rest = self._rest.partition(b">")
        if answer + b">" != wanted:
            raise ConnectionError(f"socketcand answered {answer + b'>'!r} instead of {wanted!r}")

    def _take(self, data: bytes) -> None:
        *lines, rest = (self._rest + data).split(b">")
        self._rest = rest if len(rest) <= _LONGEST_LINE else b""
        self._frames.extend(_frame(line) for line in lines)

    def _read(self) -> bytes:
        data = self._socket.recv(65536)
        if not data:
            raise EOFError("socketcand closed the connection")
        return data


def _notice_dead_peer(connection: socket.socket) -> None:
    """Have the kernel end the connection within 15 s of the server's computer vanishing."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 5)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 2)


def _frame(line: bytes) -> Frame:
    """Read `< frame ID SECONDS.MICROS DATA `, DATA in one piece or in bytes."""
    try:
        opening, kind, can_id, _, *data = line.split()
        if opening != b"<" or kind != b"frame":
            return UNREADABLE
        payload = bytes.fromhex(b"".join(data).decode("ascii"))
        return Frame(int(can_id, 16), payload, is_extended_id=len(can_id) > 3)
    except ValueError:  # includes a line of too few words
        return UNREADABLE
