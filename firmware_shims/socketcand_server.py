"""A socketcand server for raw mode, as the network side of a simulated bus."""

import selectors
import socket
import threading
from dataclasses import dataclass
from typing import Final

from firmware_shims.clock import Clock

HOST: Final = "127.0.0.1"
SETTLE_NS: Final = 300_000_000
"""Pause between the answer to `rawmode` and the first frame: python-can's own client fails without it."""
_LONGEST_COMMAND = 256


@dataclass(eq=False, slots=True)
class _Client:
    connection: socket.socket
    received: bytes = b""
    begins_ns: int | None = None
    """When it gets its first frame; None before raw mode."""


class SocketcandServer:
    """Accepts any number of clients. `serve` belongs to one thread, everything else to any.

    `port` 0 takes a free one. OSError when the port is taken.
    """

    def __init__(self, port: int, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._clients: set[_Client] = set()
        self._listener = socket.create_server((HOST, port))
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)

    def serve(self, timeout_s: float) -> None:
        """Answer clients for at most `timeout_s`."""
        for key, _ in self._selector.select(timeout_s):
            if key.data is None:
                self._accept()
            else:
                self._answer(key.data)

    def broadcast(self, text: bytes) -> None:
        """Send to every client in raw mode; one that does not keep up is dropped."""
        now_ns = self._clock()
        with self._lock:
            for client in self._clients:
                if client.begins_ns is not None and client.begins_ns <= now_ns:
                    self._send(client, text)

    def drop_clients(self) -> None:
        """End every connection, as a server that dies would; new ones are welcome."""
        with self._lock:
            for client in self._clients:
                _hang_up(client)

    def close(self) -> None:
        """Stop to listen and end every connection. Call it after the last `serve`."""
        for client in list(self._clients):
            self._forget(client)
        self._selector.close()
        self._listener.close()

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client = _Client(connection)
        self._selector.register(connection, selectors.EVENT_READ, client)
        with self._lock:
            self._clients.add(client)
            self._send(client, b"< hi >")

    def _answer(self, client: _Client) -> None:
        try:
            received = client.connection.recv(_LONGEST_COMMAND)
        except OSError:
            received = b""
        *commands, client.received = (client.received + received).split(b">")
        if not received or len(client.received) > _LONGEST_COMMAND:
            self._forget(client)
            return
        with self._lock:
            for command in commands:
                words = command.split()
                if words[:2] == [b"<", b"rawmode"]:
                    client.begins_ns = self._clock() + SETTLE_NS
                known = words[:2] in ([b"<", b"open"], [b"<", b"rawmode"])
                self._send(client, b"< ok >" if known else b"< error unknown command >")

    def _send(self, client: _Client, text: bytes) -> None:
        try:
            whole = client.connection.send(text) == len(text)
        except OSError:  # gone, or its buffer is full
            whole = False
        if not whole:
            _hang_up(client)

    def _forget(self, client: _Client) -> None:
        with self._lock:
            self._clients.discard(client)
        self._selector.unregister(client.connection)
        client.connection.close()


def _hang_up(client: _Client) -> None:
    """Let `serve` find the end of the connection: only its thread touches the selector."""
    client.begins_ns = None
    try:
        client.connection.shutdown(socket.SHUT_RDWR)
    except OSError:  # the other side was faster
        return
