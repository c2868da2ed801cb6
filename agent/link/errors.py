class LinkDown(Exception):  # noqa: N818 - says what happened, not that somebody erred
    """There is no connection, or it ended before the broker answered.

    `code` is the MQTT 5 reason code where the broker gave one.
    """

    def __init__(self, text: str, code: int | None = None) -> None:
        super().__init__(text)
        self.text = text
        self.code = code


class PublishRefused(Exception):  # noqa: N818 - as above
    """The broker answered a publish with a negative PUBACK (reason code 0x80 or above)."""

    def __init__(self, topic: str, code: int, name: str) -> None:
        super().__init__(f"the broker refused a message on {topic}: {name} (0x{code:02x})")
        self.topic = topic
        self.code = code
        self.name = name


class TooLarge(Exception):  # noqa: N818 - as above
    """The packet would be larger than the broker takes; it was not sent."""

    def __init__(self, topic: str, packet_bytes: int, limit_bytes: int) -> None:
        super().__init__(
            f"a message on {topic} makes a packet of {packet_bytes} bytes, the limit is {limit_bytes}: send less"
        )
        self.topic = topic
        self.packet_bytes = packet_bytes
        self.limit_bytes = limit_bytes
