"""A TLS connection on which no wait is endless and nobody is waited for once the fetch is called off."""

import errno
import io
import os
import select
import socket
import ssl
from collections.abc import Callable, Sequence
from functools import partial
from threading import Event
from typing import TYPE_CHECKING, Final, TypeVar

from agent.fetch.addresses import Address
from agent.fetch.errors import CalledOff, Interrupted, NotFetched
from agent.fetch.network import Network

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

T = TypeVar("T")
NS: Final = 1_000_000_000
SLICE_MS: Final = 200
"""How long a fetch that was called off may go on waiting."""
HEAD_BYTES: Final = 1_048_576
"""What may come before a body: many times what any server sends."""


class Pace:
    """Every wait for the other side passes here: handshake, headers and body alike, so none of them can be stretched."""

    def __init__(self, network: Network, off: Event) -> None:
        self._clock = network.clock
        self._patience = network.patience
        self._off = off
        self._allowed_bytes = HEAD_BYTES
        self._window_ns = self._clock()
        self._window_bytes = 0

    def wait(self, sock: socket.socket, event: int) -> None:
        """Until the socket can be read or written. Raises `Interrupted` or `CalledOff`."""
        poll = select.poll()
        poll.register(sock, event)
        until_ns = self._clock() + int(self._patience.stall_s * NS)
        while not poll.poll(SLICE_MS):
            self._look()
            if self._clock() >= until_ns:
                raise Interrupted(f"no byte came or went for {self._patience.stall_s:g} s")

    def allow(self, nbytes: int) -> None:
        """Expect so many bytes more; without that only a head is."""
        self._allowed_bytes += nbytes

    def got(self, nbytes: int) -> None:
        """Note what came."""
        self._window_bytes += nbytes
        self._allowed_bytes -= nbytes
        if self._allowed_bytes < 0:
            raise NotFetched("the server sends far more around the body than HTTP needs")
        self._look()

    def _look(self) -> None:
        if self._off.is_set():
            raise CalledOff
        patience, now_ns = self._patience, self._clock()
        if now_ns - self._window_ns < patience.window_s * NS:
            return
        if self._window_bytes < patience.window_bytes:
            raise Interrupted(
                f"{self._window_bytes} bytes in {patience.window_s:g} s, {patience.window_bytes} are the least"
            )
        self._window_ns, self._window_bytes = now_ns, 0


class Line:
    """What `http.client` takes for a socket, over a TLS socket that does not block."""

    def __init__(self, tls: ssl.SSLSocket, pace: Pace) -> None:
        self._tls = tls
        self._pace = pace

    def shake_hands(self) -> None:
        """Agree on keys, and have the other side's certificate checked."""
        self._patiently(self._tls.do_handshake)

    def sendall(self, request: bytes) -> None:
        """Send all of it."""
        sent = 0
        while sent < len(request):
            sent += self._patiently(partial(self._tls.send, request[sent:]))

    def receive_into(self, buffer: "WriteableBuffer") -> int:
        """Wait for some bytes; 0 at the end."""
        nbytes = self._patiently(partial(self._tls.recv_into, buffer))
        self._pace.got(nbytes)
        return nbytes

    def makefile(self, mode: str) -> io.BufferedReader:
        """Give the bytes that come, as `http.client` asks for them."""
        del mode  # it only reads
        return io.BufferedReader(_Incoming(self))

    def close(self) -> None:
        """Stay open: `http.client` closes a connection that is not kept alive before it reads the body."""

    def hang_up(self) -> None:
        """Close the connection."""
        self._tls.close()

    def _patiently(self, operation: Callable[[], T]) -> T:
        while True:
            try:
                return operation()
            except ssl.SSLWantReadError:
                self._pace.wait(self._tls, select.POLLIN)
            except ssl.SSLWantWriteError:
                self._pace.wait(self._tls, select.POLLOUT)


class _Incoming(io.RawIOBase):
    def __init__(self, line: Line) -> None:
        super().__init__()
        self._line = line

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        return self._line.receive_into(buffer)


def dialled(addresses: Sequence[Address], host: str, context: ssl.SSLContext, pace: Pace) -> Line:
    """A line to the first of the addresses that answers, whose certificate is good for `host`. Raises OSError too."""
    tls = context.wrap_socket(
        _connected(addresses, pace), server_hostname=host, do_handshake_on_connect=False
    )
    line = Line(tls, pace)
    try:
        line.shake_hands()
    except BaseException:
        line.hang_up()
        raise
    return line


def _connected(addresses: Sequence[Address], pace: Pace) -> socket.socket:
    trouble: OSError | Interrupted = OSError(errno.EADDRNOTAVAIL, "the host has no address")
    for family, address in addresses:
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            if (code := sock.connect_ex(address)) == errno.EINPROGRESS:
                pace.wait(sock, select.POLLOUT)
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code == 0:
                return sock
            trouble = OSError(code, os.strerror(code))
        except (OSError, Interrupted) as error:
            trouble = error
        except BaseException:
            sock.close()
            raise
        sock.close()
    raise trouble
