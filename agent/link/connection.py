import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import NoReturn

from agent.link.credentials import Credentials
from agent.link.dial import dial
from agent.link.errors import LinkDown, TooLarge
from agent.link.inbound import Inbound, Unacknowledged
from agent.link.options import Hints, LinkOptions
from agent.link.properties import pack_hints, publish_bytes
from agent.link.window import Outgoing, SendWindow, fail
from agent.link.wire import Wire

OVERRUN = 4
"""Unacknowledged messages, in Receive Maximums, at which we stop reading: rumqttd ignores Receive Maximum."""
GOODBYE_S = 1.0
SLEPT_S = 60.0
"""A gap so long between two looks means that this computer slept: the broker has given the connection up, or will."""
NORMAL_DISCONNECTION = 0x00
DISCONNECT_WITH_WILL = 0x04


class Connection:
    """From dialling to the end of the socket, once. Everything happens on the event loop.

    `on_message` is called straight from the reader, so there is no queue to overflow; an exception that
    leaves it ends the connection and comes out of `until_down`. `clock` counts nanoseconds.
    """

    def __init__(
        self,
        options: LinkOptions,
        *,
        clean_start: bool,
        on_message: Callable[[Inbound], None],
        clock: Callable[[], int],
    ) -> None:
        loop = asyncio.get_running_loop()
        self._options = options
        self._deliver = on_message
        self._where = f"{options.host}:{options.port}"
        self._clock = clock
        self._wire = Wire(options, self, clean_start=clean_start)
        self._window = SendWindow(options.send_window, self._wire.publish_once)
        self._unacknowledged = Unacknowledged()
        self._accepted: asyncio.Future[None] = loop.create_future()
        self._subscribed: asyncio.Future[None] = loop.create_future()
        self._ended: asyncio.Future[None] = loop.create_future()
        self._max_packet_bytes = options.max_packet_bytes
        self._heard_ns = clock()
        self._credentials: Credentials | None = None
        self.session_present = False
        self.accepted_ns: int | None = None
        """When the CONNACK came, on `clock`; None before."""
        self.acknowledged = 0
        """Messages that this connection brought and we acknowledged."""
        self.outdated = False
        """It was ended because its credentials have been renewed."""

    @property
    def outgoing(self) -> int:
        """Publishes that are not answered yet."""
        return len(self._window) + self._window.waiting

    async def open(self) -> None:
        """Dial, connect and subscribe, or raise LinkDown. Call `abort` afterwards in any case."""
        credentials = self._credentials = self._read_credentials()
        self._wire.connect(await self._dial(credentials.tls), credentials.password)
        await self._answer("CONNACK", self._accepted)
        if self._options.subscriptions:
            self._wire.subscribe_all(want_retained=self._options.want_retained)
            await self._answer("SUBACK", self._subscribed)

    async def until_down(self) -> NoReturn:
        """Keep the connection alive until it ends; raises LinkDown, or what `on_message` raised."""
        while not self._ended.done():
            wait_s = min(self._wire.keep_alive(), self._options.renewal_s)
            looked_ns = self._clock()
            await asyncio.wait([self._ended], timeout=wait_s)
            slept_s = (self._clock() - looked_ns) / 1e9 - wait_s
            silent_s = (self._clock() - self._heard_ns) / 1e9
            if slept_s > SLEPT_S:
                self.ended(LinkDown(f"this computer slept for {slept_s:.0f} s"))
            elif self._window and silent_s > self._options.stall_s:
                self.ended(
                    LinkDown(f"{len(self._window)} publishes under way, no PUBACK for {silent_s:.0f} s")
                )
            elif self._credentials and self._credentials.renewed():
                self.outdated = True
                await self.say_goodbye(send_will=False)
        self._ended.result()
        raise AssertionError("a connection always ends with an exception")

    async def say_goodbye(self, *, send_will: bool) -> None:
        """DISCONNECT behind everything that is under way; with `send_will` the broker sends the Will."""
        self._wire.disconnect(DISCONNECT_WITH_WILL if send_will else NORMAL_DISCONNECTION)
        await asyncio.wait([self._ended], timeout=GOODBYE_S)
        self.abort()

    def abort(self) -> None:
        """Close the socket now and without a DISCONNECT; does nothing to a connection that has ended."""
        self._wire.close()
        self.ended(LinkDown("the connection was given up"))

    def publish(self, topic: str, payload: bytes, *, retain: bool, hints: Hints) -> asyncio.Future[None]:
        """Publish with QoS 1; see `Link.publish`."""
        packed = pack_hints(hints)
        size = publish_bytes(topic, payload, packed)
        if size > self._max_packet_bytes:
            raise TooLarge(topic, size, self._max_packet_bytes)
        if not self._window:
            self._heard_ns = self._clock()
        outgoing = Outgoing(topic, payload, retain, packed, asyncio.get_running_loop().create_future())
        self._window.add(outgoing)
        return outgoing.answered

    def _read_credentials(self) -> Credentials:
        try:
            return Credentials(self._options)
        except OSError as error:
            raise LinkDown(f"no connection to {self._where}: {error}") from error

    async def _dial(self, tls: ssl.SSLContext | None) -> socket.socket:
        try:
            async with asyncio.timeout(self._options.answer_s):
                return await dial(self._options, tls)
        except TimeoutError:
            raise LinkDown(f"no connection to {self._where} within {self._options.answer_s:g} s") from None
        except (OSError, UnicodeError) as error:  # UnicodeError: a host name that DNS cannot express
            raise LinkDown(f"no connection to {self._where}: {error}") from error

    async def _answer(self, what: str, answer: asyncio.Future[None]) -> None:
        try:
            async with asyncio.timeout(self._options.answer_s):
                await answer
        except TimeoutError:
            raise LinkDown(f"no {what} within {self._options.answer_s:g} s") from None

    def _acknowledge(self, message: Inbound) -> None:
        for settled in self._unacknowledged.settle(message):
            self._wire.acknowledge(settled.packet_id, settled.qos)
            self.acknowledged += 1
        if len(self._unacknowledged) <= self._options.receive_maximum:
            self._wire.resume_reading()

    # wire.Listener

    def accepted(self, *, session_present: bool, receive_maximum: int, max_packet_bytes: int | None) -> None:
        """Keep the broker's terms where they are narrower than ours."""
        if self._accepted.done():
            return
        self.session_present = session_present
        self.accepted_ns = self._clock()
        self._window.size = min(self._window.size, receive_maximum)
        self._max_packet_bytes = min(self._max_packet_bytes, max_packet_bytes or self._max_packet_bytes)
        self._accepted.set_result(None)

    def subscribed(self) -> None:
        """Let `open` go on."""
        if not self._subscribed.done():
            self._subscribed.set_result(None)

    def arrived(self, topic: str, payload: bytes, *, qos: int, retain: bool, packet_id: int) -> None:
        """Hand the message on, and stop reading when far more is unacknowledged than we asked for."""
        if self._ended.done():
            return
        message = Inbound(
            topic, payload, qos=qos, retain=retain, packet_id=packet_id, acknowledge=self._acknowledge
        )
        if qos:
            self._unacknowledged.add(message)
        if len(self._unacknowledged) >= OVERRUN * self._options.receive_maximum:
            self._wire.pause_reading()
        try:
            self._deliver(message)
        except Exception as bug:  # noqa: BLE001 - not ours to judge: it comes out of until_down
            self.ended(bug)

    def answered(self, packet_id: int, code: int, name: str) -> None:
        """Complete a publish."""
        self._heard_ns = self._clock()
        self._window.answer(packet_id, code, name)

    def ended(self, error: Exception) -> None:
        """The first reason counts, and whoever waits for an answer of the broker learns it now."""
        down = error if isinstance(error, LinkDown) else LinkDown(repr(error))
        fail(self._ended, error)
        fail(self._accepted, down)
        fail(self._subscribed, down)
        self._window.fail_all(down)
