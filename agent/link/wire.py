"""aiomqtt 2.5 and the paho client inside it, with the callbacks that the link needs.

aiomqtt wires paho into the event loop; paho speaks MQTT. What they do with what arrives is replaced here,
because aiomqtt acknowledges a message before our code has it, takes a negative PUBACK for success, keeps
an incoming queue that drops or grows, and forgets what CONNACK and DISCONNECT say.

The bytes are ours, too: the socket is read in large pieces (`inflow`), the two packets of every message are read and
written here (`packets`), and all that is queued in a round of the loop leaves at once. Everything else is paho's.
"""

import logging
import socket
import time
from typing import Protocol

import aiomqtt
import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from agent.link import packets
from agent.link.errors import LinkDown
from agent.link.inflow import Inflow, Oversize
from agent.link.options import LinkOptions, Will
from agent.link.outflow import join_packets
from agent.link.properties import connect_properties, will_properties
from agent.link.window import Outgoing

GRANTED_QOS_1 = 0x01
LOST = {
    0x80: "closed without a word (the broker ended, or another client has come with our id)",
    0x82: "unreadable packet",
    0x8D: "no answer to a ping",
}
"""What paho means by the reason codes that it gives when the broker gave none."""

_paho_log = logging.getLogger(f"{__name__}.paho")
_paho_log.setLevel(logging.CRITICAL)  # what paho logs as an error is the text of our LinkDown


class Listener(Protocol):
    """Who hears what the broker says. All of it is called on the event loop, from the reader."""

    def accepted(self, *, session_present: bool, receive_maximum: int, max_packet_bytes: int | None) -> None:
        """The CONNACK, with the broker's terms; None is no limit."""

    def subscribed(self) -> None:
        """The SUBACK, every subscription granted with QoS 1."""

    def arrived(self, topic: str, payload: bytes, *, qos: int, retain: bool, packet_id: int) -> None:
        """A PUBLISH."""

    def answered(self, packet_id: int, code: int, name: str) -> None:
        """The PUBACK to one of ours."""

    def ended(self, error: Exception) -> None:
        """The end of the connection; may come more than once, the first reason is the right one."""


class Wire(aiomqtt.Client):
    """One MQTT 5 connection over a socket that is already connected; the next one is a new object."""

    def __init__(self, options: LinkOptions, listener: Listener, *, clean_start: bool) -> None:
        super().__init__(
            options.host,
            options.port,
            identifier=options.client_id,
            protocol=aiomqtt.ProtocolVersion.V5,
            clean_start=clean_start,
            keepalive=options.keepalive_s,
            will=_will(options.will),
            properties=connect_properties(options),
            logger=_paho_log,
        )
        self._client.manual_ack_set(True)
        self._listener = listener
        self._topics = options.subscriptions
        self._username = options.username
        self._max_packet_bytes = options.max_packet_bytes
        self._where = f"{options.host}:{options.port}"
        self._reading = False
        self._inflow = Inflow(options.max_packet_bytes)
        self._waits_to_write = False
        self._for_paho: bytes | None = b""
        self._client._sock_recv = self._feed_paho  # type: ignore[method-assign]  # noqa: SLF001 - ours is the socket

    def connect(self, sock: socket.socket, password: str | None) -> None:
        """Take over `sock` and send the CONNECT."""
        if self._username is not None:
            self._client.username_pw_set(self._username, password)
        # paho's own dialling blocks; with a socket at hand its connect() does no more than queue a packet.
        self._client._create_socket = lambda: sock  # type: ignore[method-assign]  # noqa: SLF001
        self._client_connect()

    def subscribe_all(self, *, want_retained: bool) -> None:
        """Ask for every subscription of the options with QoS 1; the retain flag stays as published."""
        terms = SubscribeOptions(
            qos=1,
            retainAsPublished=True,
            retainHandling=SubscribeOptions.RETAIN_SEND_ON_SUBSCRIBE
            if want_retained
            else SubscribeOptions.RETAIN_DO_NOT_SEND,
        )
        self._client.subscribe([(topic, terms) for topic in self._topics])

    def publish_once(self, outgoing: Outgoing, packet_id: int) -> None:
        """Queue a PUBLISH with QoS 1; LinkDown if the socket has gone."""
        if self._client.socket() is None:
            down = LinkDown(f"could not publish to {self._where}: the connection has ended")
            self._listener.ended(down)
            raise down
        packet = packets.publish(
            outgoing.topic, packet_id, outgoing.packed, outgoing.payload, retain=outgoing.retain
        )
        self._client._packet_queue(mqtt.PUBLISH, packet, packet_id, 1)  # noqa: SLF001 - paho would pack it again

    def acknowledge(self, packet_id: int, qos: int) -> None:
        """Let the broker forget a message: PUBACK, or PUBCOMP from one that sends QoS 2 although it granted 1."""
        if qos == 1:
            self._client._packet_queue(mqtt.PUBACK, packets.puback(packet_id), packet_id, 1)  # noqa: SLF001 - as above
        else:
            self._client.ack(packet_id, qos)

    def keep_alive(self) -> float:
        """Ping, or end a connection that does not answer; gives the seconds after which to call again."""
        self._client.loop_misc()
        return (self._client.keepalive or 8) / 8  # the broker's own value, if it named one; 0 is none

    def disconnect(self, code: int) -> None:
        """Queue a DISCONNECT behind everything else; the socket is closed once it is out."""
        self._client.disconnect(ReasonCode(PacketTypes.DISCONNECT, identifier=code))

    def close(self) -> None:
        """Close the socket now, with no DISCONNECT. Not from within a call of the listener."""
        self._client._sock_close()  # noqa: SLF001 - paho's public ways send a DISCONNECT and wait for it

    def pause_reading(self) -> None:
        """Leave what comes in the socket."""
        sock = self._client.socket()
        if self._reading and sock is not None:
            self._reading = False
            self._loop.remove_reader(sock)

    def resume_reading(self) -> None:
        """Undo `pause_reading`."""
        sock = self._client.socket()
        if not self._reading and sock is not None:
            self._reading = True
            self._loop.add_reader(sock, self._read, sock)
            self._loop.call_soon(self._read, sock)  # TLS may hold bytes that the socket no longer shows

    # The socket's side

    def _on_socket_open(self, _client: mqtt.Client, _userdata: object, sock: "mqtt.SocketLike") -> None:
        self._reading = True
        self._loop.add_reader(sock, self._read, sock)

    def _read(self, sock: "mqtt.SocketLike") -> None:
        try:
            self._take_packets()  # that a pause has left
            if self._reading and self._inflow.read(sock):
                self._client._last_bytes_received = time.monotonic()  # noqa: SLF001 - or paho pings for nothing
                self._take_packets()
        except Oversize as packet:
            self._listener.ended(
                LinkDown(f"{self._where} sends {packet.size} bytes, we take {self._max_packet_bytes}")
            )
        except Exception as error:  # noqa: BLE001 - no bytes of a broker may end more than its connection
            self._listener.ended(LinkDown(f"unreadable packet from {self._where}: {error!r}"))
        if self._reading and self._inflow.over:
            self._let_paho_read(None)

    def _take_packets(self) -> None:
        while self._reading and (packet := self._inflow.next()) is not None:
            if packet.head & ~packets.PUBLISH_FREE_BITS == packets.PUBLISH_QOS_1:
                message = packets.read_publish(packet.data, packet.start)
                retain = bool(packet.head & packets.RETAIN)
                self._arrived(
                    message.topic, message.payload, qos=1, retain=retain, packet_id=message.packet_id
                )
            elif packet.head & packets.TYPE_BITS == packets.PUBACK:
                self._listener.answered(*packets.read_puback(packet.data, packet.start))
            else:
                self._let_paho_read(packet.data)

    def _let_paho_read(self, data: bytes | None) -> None:
        """A packet; None for the end of the connection, which paho closes then, and says so."""
        self._for_paho = data
        self._client.loop_read()

    def _feed_paho(self, bufsize: int) -> bytes:
        """In place of reading from the socket."""
        if self._for_paho is None:
            return b""
        if not self._for_paho:
            raise BlockingIOError
        data, self._for_paho = self._for_paho[:bufsize], self._for_paho[bufsize:]
        return data

    def _on_socket_register_write(
        self, _client: mqtt.Client, _userdata: object, sock: "mqtt.SocketLike"
    ) -> None:
        # Write in the next round of the loop and wait for the socket only if it is full, which is rare.
        self._loop.call_soon(self._write, sock)

    def _on_socket_unregister_write(
        self, _client: mqtt.Client, _userdata: object, sock: "mqtt.SocketLike"
    ) -> None:
        if self._waits_to_write:
            self._waits_to_write = False
            self._loop.remove_writer(sock)

    def _write(self, sock: "mqtt.SocketLike") -> None:
        join_packets(self._client._out_packet)  # noqa: SLF001 - paho makes a call of the socket for each
        self._write_on(sock)

    def _write_on(self, sock: "mqtt.SocketLike") -> None:
        self._client.loop_write()
        if self._client.want_write() and self._client.socket() is sock and not self._waits_to_write:
            self._waits_to_write = True
            self._loop.add_writer(sock, self._write_on, sock)

    def _on_socket_close(self, _client: mqtt.Client, _userdata: object, sock: "mqtt.SocketLike") -> None:
        self._reading = False
        self._loop.remove_reader(sock)

    # The broker's side

    def _on_connect(
        self,
        _client: mqtt.Client,
        _userdata: object,
        flags: mqtt.ConnectFlags,
        reason_code: ReasonCode,
        properties: Properties | None = None,
    ) -> None:
        if reason_code.is_failure:
            self._listener.ended(
                LinkDown(f"{self._where} refused us: {_named(reason_code)}", reason_code.value)
            )
            return
        self._listener.accepted(
            session_present=flags.session_present,
            receive_maximum=getattr(properties, "ReceiveMaximum", 65_535),
            max_packet_bytes=getattr(properties, "MaximumPacketSize", None),
        )

    def _on_subscribe(
        self,
        _client: mqtt.Client,
        _userdata: object,
        _mid: int,
        reason_codes: list[ReasonCode],
        _properties: Properties | None = None,
    ) -> None:
        for topic, code in zip(self._topics, reason_codes, strict=False):
            if code.value != GRANTED_QOS_1:
                text = f"{self._where} refused the subscription to {topic}: {_named(code)}"
                self._listener.ended(LinkDown(text, code.value))
        self._listener.subscribed()

    def _on_message(self, _client: mqtt.Client, _userdata: object, message: mqtt.MQTTMessage) -> None:
        """From paho: with QoS 0 or 2."""
        self._arrived(
            message._topic,  # noqa: SLF001 - as bytes: whether they are UTF-8 is looked at in one place
            bytes(message.payload),
            qos=message.qos,
            retain=message.retain,
            packet_id=message.mid,
        )

    def _arrived(self, topic: bytes, payload: bytes, *, qos: int, retain: bool, packet_id: int) -> None:
        try:
            name = topic.decode()
        except UnicodeDecodeError:
            self._listener.ended(LinkDown(f"{self._where} sent a topic that is not UTF-8"))
            return
        self._listener.arrived(name, payload, qos=qos, retain=retain, packet_id=packet_id)

    def _on_disconnect(
        self,
        _client: mqtt.Client,
        _userdata: object,
        flags: mqtt.DisconnectFlags,
        reason_code: ReasonCode,
        _properties: Properties | None = None,
    ) -> None:
        if flags.is_disconnect_packet_from_server:
            text = f"{self._where} ended the connection: {_named(reason_code)}"
            self._listener.ended(LinkDown(text, reason_code.value))
        else:
            why = LOST.get(reason_code.value, reason_code.getName())
            self._listener.ended(LinkDown(f"lost the connection to {self._where}: {why}"))


def _will(will: Will | None) -> aiomqtt.Will | None:
    if will is None:
        return None
    return aiomqtt.Will(will.topic, will.payload, 1, will.retain, will_properties(will))


def _named(code: ReasonCode) -> str:
    return f"{code.getName()} (0x{code.value:02x})"
