"""How this vehicle connects to its broker, out of the settings."""

from agent.link import LinkOptions
from agent.settings import Settings

HEADROOM_BYTES = 4_096
"""What a packet may be larger than its body: topic, properties and headers (CONNECT's Maximum Packet Size)."""


def link_options(settings: Settings) -> LinkOptions:
    """The connection of this vehicle, without Will and subscriptions."""
    mqtt = settings.mqtt
    return LinkOptions(
        host=mqtt.host,
        port=mqtt.port,
        client_id=settings.vehicle.id,
        keepalive_s=mqtt.keepalive_s,
        username=mqtt.username,
        password_file=mqtt.password_file,
        ca_file=mqtt.ca_file,
        cert_file=mqtt.cert_file,
        key_file=mqtt.key_file,
        receive_maximum=mqtt.receive_maximum,
        max_packet_bytes=mqtt.max_payload_bytes + HEADROOM_BYTES,
    )
