"""An MQTT 5 broker that does what a test tells it, also what no broker should do.

The codec is its own, so that it shares no mistake with the client under test. A test takes one connection
after another with `accept` or `welcome` and speaks for the broker.
"""

import asyncio
import contextlib
import ssl
from dataclasses import dataclass, field
from typing import Self

PATIENCE_S = 30.0

CONNECT, CONNACK, PUBLISH, PUBACK = 1, 2, 3, 4
SUBSCRIBE, SUBACK, PINGREQ, DISCONNECT = 8, 9, 12, 14


@dataclass(frozen=True)
class Packet:
    kind: int
    flags: int
    body: bytes


@dataclass(frozen=True)
class Connect:
    """What CONNECT said. Properties by number (MQTT 5 section 2.2.2.2), as raw bytes."""

    level: int
    clean_start: bool
    keepalive_s: int
    client_id: str
    properties: dict[int, bytes]
    will_topic: str | None = None
    will_payload: bytes = b""
    will_qos: int = 0
    will_retain: bool = False
    will_properties: dict[int, bytes] = field(default_factory=dict)
    username: str | None = None
    password: bytes | None = None


@dataclass(frozen=True)
class Publish:
    topic: str
    payload: bytes
    packet_id: int
    qos: int
    retain: bool
    properties: dict[int, bytes]


class Reader:
    """Takes MQTT 5 data types off the front of some bytes."""

    def __init__(self, data: bytes) -> None:
        self.rest = data

    def take(self, size: int) -> bytes:
        head, self.rest = self.rest[:size], self.rest[size:]
        return head

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size))

    def binary(self) -> bytes:
        return self.take(self.number(2))

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.number(1)
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def properties(self) -> dict[int, bytes]:
        inner = Reader(self.take(self.varint()))
        found: dict[int, bytes] = {}
        while inner.rest:
            number = inner.varint()
            size = {1: 1, 2: 4, 17: 4, 24: 4, 33: 2, 39: 4}.get(number)
            found[number] = inner.take(size) if size else inner.binary()
        return found


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def string(text: str) -> bytes:
    data = text.encode()
    return len(data).to_bytes(2) + data


def user_property(key: str, value: str) -> bytes:
    return bytes([38]) + string(key) + string(value)


def read_publish(packet: Packet) -> Publish:
    body = Reader(packet.body)
    topic = body.binary().decode()
    qos = packet.flags >> 1 & 3
    packet_id = body.number(2) if qos else 0
    properties = body.properties()
    return Publish(topic, body.rest, packet_id, qos, bool(packet.flags & 1), properties)


class Peer:
    """The broker's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.connect = Connect(0, False, 0, "", {})

    async def packet(self) -> Packet:
        """The next packet; ConnectionError when the client has gone."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                first = (await self.reader.readexactly(1))[0]
                size = shift = 0
                while True:
                    byte = (await self.reader.readexactly(1))[0]
                    size |= (byte & 0x7F) << shift
                    shift += 7
                    if byte < 0x80:
                        break
                return Packet(first >> 4, first & 0x0F, await self.reader.readexactly(size))
        except asyncio.IncompleteReadError as end:
            raise ConnectionError("the client closed the connection") from end

    async def expect(self, kind: int) -> Packet:
        packet = await self.packet()
        assert packet.kind == kind, f"expected packet type {kind}, got {packet}"
        return packet

    async def expect_publish(self) -> Publish:
        return read_publish(await self.expect(PUBLISH))

    async def expect_puback(self) -> int:
        return int.from_bytes((await self.expect(PUBACK)).body[:2])

    async def expect_subscribe(self) -> dict[str, int]:
        """Topic filters with their option bytes; answer with `suback`."""
        body = Reader((await self.expect(SUBSCRIBE)).body)
        self._subscribe_id = body.take(2)
        body.properties()
        filters: dict[str, int] = {}
        while body.rest:
            topic = body.binary().decode()
            filters[topic] = body.number(1)
        return filters

    async def read_connect(self) -> Connect:
        body = Reader((await self.expect(CONNECT)).body)
        assert body.binary() == b"MQTT"
        level, flags, keepalive_s = body.number(1), body.number(1), body.number(2)
        properties, client_id = body.properties(), body.binary().decode()
        will = flags & 0x04
        self.connect = Connect(
            level=level,
            clean_start=bool(flags & 0x02),
            keepalive_s=keepalive_s,
            client_id=client_id,
            properties=properties,
            will_qos=flags >> 3 & 3,
            will_retain=bool(flags & 0x20),
            will_properties=body.properties() if will else {},
            will_topic=body.binary().decode() if will else None,
            will_payload=body.binary() if will else b"",
            username=body.binary().decode() if flags & 0x80 else None,
            password=body.binary() if flags & 0x40 else None,
        )
        return self.connect

    def send(self, kind: int, body: bytes, flags: int = 0) -> None:
        self.writer.write(bytes([kind << 4 | flags]) + varint(len(body)) + body)

    def connack(self, code: int = 0, *, session_present: bool = False, properties: bytes = b"") -> None:
        self.send(CONNACK, bytes([session_present, code]) + varint(len(properties)) + properties)

    def suback(self, *codes: int) -> None:
        self.send(SUBACK, self._subscribe_id + b"\0" + bytes(codes))

    def publish(
        self, topic: str, payload: bytes, packet_id: int, *, properties: bytes = b"", retain: bool = False
    ) -> None:
        body = string(topic) + packet_id.to_bytes(2) + varint(len(properties)) + properties + payload
        self.send(PUBLISH, body, flags=0x02 | retain)

    def puback(self, packet_id: int, code: int = 0) -> None:
        self.send(PUBACK, packet_id.to_bytes(2) + bytes([code, 0]))

    def disconnect(self, code: int) -> None:
        self.send(DISCONNECT, bytes([code, 0]))

    def abort(self) -> None:
        """Cut the connection with a TCP reset."""
        self.writer.transport.abort()

    async def gone(self) -> None:
        """Wait until the client has closed the connection, whatever it still sends."""
        with contextlib.suppress(ConnectionError):
            while True:
                await self.packet()


class FakeBroker:
    """Listens on 127.0.0.1, on a free port unless it is given one."""

    def __init__(self, port: int = 0, *, tls: ssl.SSLContext | None = None) -> None:
        self.port = port
        self._tls = tls
        self._arrivals: asyncio.Queue[Peer] = asyncio.Queue()
        self._peers: list[Peer] = []
        self._closing = False

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._arrived, "127.0.0.1", self.port, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self._closing = True
        for peer in self._peers:
            peer.writer.close()
            with contextlib.suppress(OSError):
                await peer.writer.wait_closed()
        await self._server.wait_closed()
        await asyncio.sleep(0.01)  # asyncio may still hold a connection that it has accepted and not told of

    def _arrived(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._closing:
            writer.transport.abort()
            return
        peer = Peer(reader, writer)
        self._peers.append(peer)
        self._arrivals.put_nowait(peer)

    async def arrival(self) -> Peer:
        """The next connection, nothing read."""
        async with asyncio.timeout(PATIENCE_S):
            return await self._arrivals.get()

    async def accept(self) -> Peer:
        """The next connection, its CONNECT read and not answered."""
        peer = await self.arrival()
        await peer.read_connect()
        return peer

    async def welcome(
        self, *, session_present: bool = False, properties: bytes = b"", subscriptions: int = 1
    ) -> Peer:
        """The next connection, accepted, with its `subscriptions` granted."""
        peer = await self.accept()
        peer.connack(session_present=session_present, properties=properties)
        if subscriptions:
            await peer.expect_subscribe()
            peer.suback(*[1] * subscriptions)
        return peer
