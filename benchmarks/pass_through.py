"""A TCP relay that counts what goes through it: what a car's data plan would be charged for its link."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

HOST: Final = "127.0.0.1"
HEADER_BYTES: Final = 52
"""Of a segment: IPv4 20, TCP 20, its timestamps 12 (RFC 791, 9293, 7323)."""
TCP_INFO_BYTES: Final = 144
COUNTERS: Final = struct.Struct("=120xQQII")
"""Of struct tcp_info (linux/tcp.h): bytes_acked, bytes_received, segs_out, segs_in."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Both ways together, since the connection was made: bytes of the protocol, and segments of TCP."""

    payload_bytes: int
    segments: int

    @property
    def wire_bytes(self) -> int:
        """With the headers of IPv4 and TCP."""
        return self.payload_bytes + HEADER_BYTES * self.segments


@dataclass
class PassThrough:
    """Relays every connection to 127.0.0.1:`to_port`; `port` is its own."""

    to_port: int
    port: int = 0
    _newest: socket.socket | None = field(default=None)
    _flowing: asyncio.Event = field(default_factory=asyncio.Event)
    _relays: set[asyncio.Task[None]] = field(default_factory=set)
    _ways: set[asyncio.Task[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._flowing.set()

    def hang(self) -> None:
        """Hold everything back from now on, as a broker or a network that is stuck; connections stay."""
        self._flowing.clear()

    def traffic(self) -> Traffic:
        """The traffic of the newest connection as the kernel counts it; RuntimeError before there is one."""
        if self._newest is None:
            raise RuntimeError("nobody has connected yet")
        info = self._newest.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_BYTES)
        sent, received, segments_out, segments_in = COUNTERS.unpack(info)
        return Traffic(sent + received, segments_out + segments_in)

    def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection until either side ends it."""
        relay = asyncio.create_task(self._relay(reader, writer))
        self._relays.add(relay)
        relay.add_done_callback(self._relays.discard)

    async def close(self) -> None:
        """End every connection."""
        for way in self._ways:
            way.cancel()
        if self._relays:
            await asyncio.wait(self._relays)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._newest = writer.get_extra_info("socket")
        there_reader, there_writer = await asyncio.open_connection(HOST, self.to_port)
        ways = {
            asyncio.create_task(self._copy(reader, there_writer)),
            asyncio.create_task(self._copy(there_reader, writer)),
        }
        self._ways |= ways
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        self._newest = None
        for way in ways:
            way.cancel()
        await asyncio.wait(ways)
        self._ways -= ways
        for end in (there_writer, writer):
            end.close()
            with contextlib.suppress(ConnectionError):
                await end.wait_closed()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while chunk := await reader.read(65_536):
                await self._flowing.wait()
                writer.write(chunk)
                await writer.drain()


@asynccontextmanager
async def pass_through(to_port: int) -> AsyncIterator[PassThrough]:
    """Relay until the block ends."""
    relay = PassThrough(to_port)
    server = await asyncio.start_server(relay.take, HOST)
    relay.port = server.sockets[0].getsockname()[1]
    try:
        yield relay
    finally:
        server.close()
        await relay.close()
        await server.wait_closed()
