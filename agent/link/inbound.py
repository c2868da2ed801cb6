from collections.abc import Callable, Iterator


class Inbound:
    """A message from the broker, which keeps it until `ack`.

    `retain` is the flag as the publisher set it, whether or not the message had been waiting at the broker.
    """

    __slots__ = ("_acknowledge", "acknowledged", "packet_id", "payload", "qos", "retain", "topic")

    def __init__(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int,
        retain: bool,
        packet_id: int,
        acknowledge: Callable[["Inbound"], None],
    ) -> None:
        self.topic = topic
        self.payload = payload
        self.qos = qos
        self.retain = retain
        self.packet_id = packet_id
        self.acknowledged = False
        self._acknowledge = acknowledge

    def ack(self) -> None:
        """Let the broker forget the message; call it on the event loop, once the message is safe on disk.

        It belongs to the connection that brought the message: after that has ended, or a second time, it
        does nothing. Acknowledge every message in the end: PUBACKs go out in the order of arrival, so one
        that never comes holds back all later ones.
        """
        self._acknowledge(self)


class Unacknowledged:
    """The messages of one connection that we still owe a PUBACK, in their order of arrival.

    MQTT 5 section 4.6 wants the PUBACKs in that order, and rumqttd drops a client that does otherwise.
    """

    def __init__(self) -> None:
        self._by_id: dict[int, Inbound] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def add(self, message: Inbound) -> None:
        """Owe a PUBACK for `message`."""
        self._by_id[message.packet_id] = message

    def settle(self, message: Inbound) -> Iterator[Inbound]:
        """Mark `message` and give what may be acknowledged now, oldest first.

        The mark is on the object: the broker uses a packet identifier again for another message.
        """
        message.acknowledged = True
        while self._by_id:
            oldest = next(iter(self._by_id.values()))
            if not oldest.acknowledged:
                return
            del self._by_id[oldest.packet_id]
            yield oldest
