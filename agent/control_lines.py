"""Lines in and lines out for every client of one listening socket, in one thread.

A thread and not the event loop: what is pushed here may have to end a worker, and the loop may be busy. Nothing in
here waits for a client, for the loop or for the disk.
"""

import logging
import os
import selectors
import socket
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from firmware_shims.clock import Clock

LINE_MAX_BYTES: Final = 65_536
"""Longest request; an answer may be longer."""
CLIENTS_MAX: Final = 64
OWED_MAX: Final = 256
"""Answers that may wait for one client; whoever does not read them is hung up on."""
HEARD_EVERY_NS: Final = 50_000_000
IDLE_S: Final = 0.1

log = logging.getLogger(__name__)


class Owed:
    """The place of one answer among those of a client, which go out in the order of the requests.

    Whoever has it sets `line`, from any thread, and wakes the lines.
    """

    __slots__ = ("line",)

    def __init__(self) -> None:
        self.line: bytes | None = None


class Client:
    """One connection. `newest` holds at most one line, for which a later one may be put before it is sent."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.owed: deque[Owed] = deque()
        self.newest: deque[bytes] = deque(maxlen=1)
        self.gone = False
        self.received = bytearray()
        self.skipping = False
        """In the middle of a line that was too long."""
        self.asks = True
        """Whether more requests may come."""
        self.unsent = b""
        self.watched = 0
        """For what its connection is registered with the selector."""

    @property
    def served(self) -> bool:
        """Whether nothing is left to be done for it."""
        return not (self.asks or self.owed or self.unsent)

    def next_line(self) -> bytes:
        """Take the line that goes out next; empty when there is none yet."""
        if self.owed and self.owed[0].line is not None:
            return self.owed.popleft().line or b""
        return self.newest.popleft() if self.newest else b""


class Listener(Protocol):
    """What becomes of the lines. Every call comes from the thread that reads them."""

    def on_line(self, client: Client, owed: Owed, line: bytes) -> None:
        """Take one request, without its line end; the answer goes to `owed`, now or later."""

    def on_too_long(self, owed: Owed) -> None:
        """Say that a line was longer than `LINE_MAX_BYTES`; the conversation goes on behind it."""

    def on_gone(self, client: Client) -> None:
        """Forget a client."""


class Lines:
    """Serves every client of `listening` until told to stop.

    `on_caught_up` is told at least every 200 ms up to when everything that was sent has been read.
    """

    def __init__(
        self,
        listening: socket.socket,
        listener: Listener,
        clock: Clock,
        on_caught_up: Callable[[int], None] | None,
    ) -> None:
        self._listening = listening
        self._listener = listener
        self._clock = clock
        self._on_caught_up = on_caught_up
        self._heard_ns = 0
        self._clients: set[Client] = set()
        self._stopping = False
        self._selector = selectors.DefaultSelector()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._selector.register(listening, selectors.EVENT_READ, self._accept)
        self._selector.register(self._bell, selectors.EVENT_READ, self._woken)

    def wake(self) -> None:
        """Send what has been put into its place meanwhile. From any thread."""
        os.eventfd_write(self._bell, 1)

    def stop(self) -> None:
        """Let `serve` end. From any thread."""
        self._stopping = True
        self.wake()

    def close(self) -> None:
        """Let go of everything, once `serve` has ended."""
        for client in list(self._clients):
            self._drop(client)
        self._selector.close()
        self._listening.close()
        os.close(self._bell)

    def serve(self) -> None:
        """Read and write until stopped; for a thread of its own."""
        idle_s = None if self._on_caught_up is None else IDLE_S
        while not self._stopping:
            now_ns = self._clock()
            ready = self._selector.select(0)
            if not ready:
                self._say_caught_up(now_ns)
                ready = self._selector.select(idle_s)
            for key, events in ready:
                if isinstance(key.data, Client):
                    self._attend(key.data, events)
                else:
                    key.data()

    def _say_caught_up(self, now_ns: int) -> None:
        if self._on_caught_up is not None and now_ns - self._heard_ns >= HEARD_EVERY_NS:
            self._heard_ns = now_ns
            self._on_caught_up(now_ns)

    def _woken(self) -> None:
        os.eventfd_read(self._bell)
        for client in list(self._clients):
            self._send(client)

    def _accept(self) -> None:
        try:
            connection, _ = self._listening.accept()
        except (BlockingIOError, ConnectionAbortedError):  # it has gone again
            return
        if len(self._clients) >= CLIENTS_MAX:
            log.warning("control socket: %d clients are connected, one more was hung up on", CLIENTS_MAX)
            connection.close()
            return
        connection.setblocking(False)
        client = Client(connection)
        self._clients.add(client)
        self._watch(client)

    def _attend(self, client: Client, events: int) -> None:
        if events & selectors.EVENT_READ and not client.gone:
            self._receive(client)
        if not client.gone:
            self._send(client)

    def _receive(self, client: Client) -> None:
        try:
            data = client.connection.recv(LINE_MAX_BYTES)
        except BlockingIOError:
            return
        except ConnectionError:
            self._drop(client)
            return
        if data:
            self._split(client, data)
            return
        client.asks = False
        if client.received:
            self._take(client, bytes(client.received))

    def _split(self, client: Client, data: bytes) -> None:
        *lines, rest = data.split(b"\n")
        for line in lines:
            client.received += line
            if not client.skipping:
                self._take(client, bytes(client.received))
            client.skipping = False
            client.received.clear()
        client.received += rest
        if len(client.received) > LINE_MAX_BYTES and not client.skipping:
            self._take(client, bytes(client.received))
            client.skipping = True
        if client.skipping:
            client.received.clear()

    def _take(self, client: Client, line: bytes) -> None:
        owed = Owed()
        client.owed.append(owed)
        if len(line) > LINE_MAX_BYTES:
            self._listener.on_too_long(owed)
        else:
            self._listener.on_line(client, owed, line)

    def _send(self, client: Client) -> None:
        try:
            while client.unsent or (line := client.next_line()):
                client.unsent = client.unsent or line
                client.unsent = client.unsent[client.connection.send(client.unsent) :]
        except BlockingIOError:
            pass
        except ConnectionError:
            self._drop(client)
            return
        if client.served:
            self._drop(client)
        elif len(client.owed) > OWED_MAX:
            log.warning("control socket: a client does not read its answers, and was hung up on")
            self._drop(client)
        else:
            self._watch(client)

    def _watch(self, client: Client) -> None:
        """Wait for what this client can do next."""
        wanted = client.asks * selectors.EVENT_READ | bool(client.unsent) * selectors.EVENT_WRITE
        if wanted == client.watched:
            return
        if not client.watched:
            self._selector.register(client.connection, wanted, client)
        elif wanted:
            self._selector.modify(client.connection, wanted, client)
        else:
            self._selector.unregister(client.connection)
        client.watched = wanted

    def _drop(self, client: Client) -> None:
        client.gone = True
        self._clients.discard(client)
        if client.watched:
            self._selector.unregister(client.connection)
        client.connection.close()
        self._listener.on_gone(client)
