"""A TCP proxy in front of a broker, which does to connections what networks do.

It cuts them (with a reset, also in the middle of a packet), holds, loses or delays what they carry, or refuses
new ones. It knows no MQTT: where a packet begins is the business of the two ends.
"""

import asyncio
import contextlib
import enum
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Self

CHUNK_BYTES = 65_536
RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER on, for 0 s (socket(7)): closing sends a RST in place of a FIN, as a router that lost its table does."""


class Way(enum.Enum):
    """Which way bytes go: UP is from whoever has dialled to the broker."""

    UP = "up"
    DOWN = "down"


@dataclass(eq=False)
class Passage:
    """One connection through the proxy: the dialler's end and the broker's."""

    near: asyncio.StreamWriter
    far: asyncio.StreamWriter
    loses: set[Way] = field(default_factory=set)
    """Ways on which everything disappears: no byte behind a gap may arrive."""

    def reset(self) -> None:
        for writer in (self.near, self.far):
            if not writer.transport.is_closing():
                sock: socket.socket = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            writer.transport.abort()


class FaultProxy:
    """Listens on a port of 127.0.0.1 of its own and passes everything on to `target_port`, until told otherwise."""

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self.delay_s = 0.0
        """How much later everything arrives."""
        self._target_port = target_port
        self._flows = {way: asyncio.Event() for way in Way}
        self._fuse: dict[Way, int] = {}
        """Bytes that still pass before everything is cut."""
        self._passages: set[Passage] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        await self.heal()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.refuse()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)
        await asyncio.sleep(0.01)  # asyncio may still hold a connection that it has accepted and not told of

    # What happens to connections

    def cut(self) -> int:
        """Reset every connection now; how many there were. New ones pass."""
        passages = list(self._passages)
        for passage in passages:
            passage.reset()
        return len(passages)

    def cut_after(self, nbytes: int, way: Way) -> None:
        """Let `nbytes` more bytes pass that way, then cut, once."""
        self._fuse[way] = nbytes

    def cut_is_due(self, way: Way) -> bool:
        """Whether the cut that was asked for is still to come."""
        return way in self._fuse

    def hold(self, *ways: Way) -> None:
        """Let nothing pass, and keep it: the connections stand and are silent. Both ways unless told."""
        for way in ways or Way:
            self._flows[way].clear()

    def strand(self, *ways: Way) -> None:
        """Lose whatever the present connections carry from now on, and tell nobody; new ones pass.

        So do connections whose router has forgotten them. Both ways unless told.
        """
        for passage in self._passages:
            passage.loses.update(ways or Way)

    def refuse(self) -> None:
        """Cut, and refuse every new connection."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()

    async def heal(self) -> None:
        """Let everything pass again that is not lost."""
        self._fuse.clear()
        for flows in self._flows.values():
            flows.set()
        if self._server is None:
            self._server = await asyncio.start_server(self._arrived, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    # One connection

    def _arrived(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pump = asyncio.create_task(self._pass(reader, writer), name="fault-proxy")
        self._pumps.add(pump)
        pump.add_done_callback(self._pumps.discard)

    async def _pass(self, near_reader: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        try:
            far_reader, far = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            Passage(near, near).reset()
            return
        passage = Passage(near, far)
        with self._listed(passage):
            async with asyncio.TaskGroup() as ways:
                ways.create_task(self._pump(passage, Way.UP, near_reader, far))
                ways.create_task(self._pump(passage, Way.DOWN, far_reader, near))

    @contextlib.contextmanager
    def _listed(self, passage: Passage) -> Iterator[None]:
        self._passages.add(passage)
        try:
            yield
        finally:
            self._passages.discard(passage)
            passage.reset()

    async def _pump(
        self, passage: Passage, way: Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(OSError):  # one end has gone: so goes the other
            while data := await reader.read(CHUNK_BYTES):
                await asyncio.sleep(self.delay_s)
                await self._flows[way].wait()
                if way not in passage.loses:
                    await self._write(passage, way, writer, data)
        if way not in passage.loses:
            writer.close()

    async def _write(self, passage: Passage, way: Way, writer: asyncio.StreamWriter, data: bytes) -> None:
        left = self._fuse.get(way)
        if left is not None:
            data = data[:left]
            self._fuse[way] = left - len(data)
        writer.write(data)
        await writer.drain()
        if self._fuse.get(way) == 0:
            del self._fuse[way]
            passage.reset()
