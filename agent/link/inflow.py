"""Bytes of the broker, read in as few calls as may be and cut into packets."""

import ssl
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from paho.mqtt.client import SocketLike

READ_BYTES: Final = 65_536
"""Asked for at a time, and taken in before any packet is looked at: many packets, or most of a large one."""
HEADER_BYTES: Final = 5
"""The fixed header at its longest (MQTT 5 section 2.1)."""


class Packet(NamedTuple):
    """`head`: type and flags, the first byte. `start` is where the body begins."""

    head: int
    data: bytes
    """All of it, the fixed header included."""
    start: int


class Oversize(Exception):  # noqa: N818 - what the broker does
    """A packet begins that is larger than we take."""

    def __init__(self, size: int) -> None:
        super().__init__(f"a packet of {size} bytes")
        self.size = size


class Inflow:
    """What has come and was not taken yet; at most one packet of `most_bytes`, and one read more.

    paho reads a packet in three or four calls of the socket, and one more to learn that there is nothing behind it.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._held = bytearray()
        self._at = 0
        self.over = False
        """The connection has ended, or failed; what came before can still be taken."""

    def read(self, sock: "SocketLike") -> bool:
        """Take in what the socket has, `READ_BYTES` and a little at most; whether that was anything.

        Call it when `next` gives nothing any more. TLS gives out a record a call, and what it has decrypted no poll
        shows: it is asked until it has no more.
        """
        del self._held[: self._at]
        self._at = 0
        tls = sock if isinstance(sock, ssl.SSLSocket) else None
        taken, more = 0, True
        while more:
            try:
                data = sock.recv(READ_BYTES)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                break
            except OSError:
                data = b""
            self._held += data
            taken += len(data)
            self.over = not data
            more = tls is not None and not self.over and (taken < READ_BYTES or tls.pending() > 0)
        return taken > 0

    def next(self) -> Packet | None:
        """The next packet that is complete; raises `Oversize` at the header of one that is too large.

        ValueError for a header that is none.
        """
        held, begin = self._held, self._at
        size = shift = 0
        for at in range(begin + 1, min(begin + HEADER_BYTES, len(held))):
            byte = held[at]
            size |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
        else:
            if len(held) - begin >= HEADER_BYTES:
                raise ValueError("a remaining length of more than four bytes")
            return None
        if size > self._most_bytes:
            raise Oversize(size)
        start, end = at + 1, at + 1 + size
        if end > len(held):
            return None
        self._at = end
        with memoryview(held) as view:
            return Packet(held[begin], bytes(view[begin:end]), start - begin)
