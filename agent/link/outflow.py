"""Packets for the broker leave in as few calls as may be."""

from typing import TYPE_CHECKING, Final

import paho.mqtt.client as mqtt

if TYPE_CHECKING:
    from collections import deque

    from paho.mqtt.client import _OutPacket

SEND_BYTES: Final = 65_536
"""Packets are joined up to this size."""


def join_packets(queue: "deque[_OutPacket]") -> None:
    """Make one of neighbours in paho's queue, as far as they fit into `SEND_BYTES`; a DISCONNECT stays the last.

    paho makes a call of the socket for each. Not once the first was tried: TLS wants to be given the same bytes again.
    """
    groups: list[list[_OutPacket]] = []
    size = 0
    for packet in queue:
        size += packet["to_process"]
        if not groups or size > SEND_BYTES or groups[-1][-1]["command"] == mqtt.DISCONNECT:
            groups.append([])
            size = packet["to_process"]
        groups[-1].append(packet)
    queue.clear()
    for group in groups:
        whole = b"".join([packet["packet"] for packet in group])
        queue.append({**group[-1], "packet": whole, "to_process": len(whole)})
