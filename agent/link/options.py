from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Will:
    """What the broker says for us, with QoS 1, once we have been gone for `delay_s`."""

    topic: str
    payload: bytes
    retain: bool = False
    delay_s: int = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkOptions:
    """Where to connect and on what terms.

    TLS is on when `ca_file` is set. The four files are read at every connect. When they change under a connection,
    and can be used, the next one takes its place at once. `max_packet_bytes` limits packets in both directions; the
    broker may lower it, as it may `send_window`.
    """

    host: str
    port: int
    client_id: str
    keepalive_s: int = 30
    username: str | None = None
    password_file: Path | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    receive_maximum: int = 64
    send_window: int = 100
    """Publishes under way without a PUBACK; 100 is what AWS IoT Core allows a connection."""
    max_packet_bytes: int = 135_168
    session_expiry_s: int = 86_400
    will: Will | None = None
    subscriptions: tuple[str, ...] = ()
    want_retained: bool = False
    """Whether every connect brings the retained messages of the subscriptions."""
    answer_s: float = 15.0
    """How long dialling, the CONNACK and the SUBACK may take, each."""
    stall_s: float = 60.0
    """How long publishes may be under way without a single PUBACK before the connection is given up."""
    renewal_s: float = 2.0
    """How often the four files are looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hints:
    """MQTT 5 properties of a message. Bridges drop them and nobody signs them: no meaning rests on them."""

    content_type: str | None = None
    expiry_s: int | None = None
    correlation: bytes | None = None
