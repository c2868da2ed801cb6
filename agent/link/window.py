import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from agent.link.errors import LinkDown, PublishRefused

PACKET_IDS: Final = 65_535


@dataclass(slots=True)
class Outgoing:
    """A publish and the future that its PUBACK completes. `packed` are its properties, encoded."""

    topic: str
    payload: bytes
    retain: bool
    packed: bytes
    answered: asyncio.Future[None]


class SendWindow:
    """Publishes under way on one connection, at most `size` of them; the others wait in order.

    `transmit` gives a publish to the socket under a packet identifier that no other has, or raises LinkDown.
    """

    def __init__(self, size: int, transmit: Callable[[Outgoing, int], None]) -> None:
        self.size = size
        self._transmit = transmit
        self._newest_id = 0
        self._under_way: dict[int, Outgoing] = {}
        self._waiting: deque[Outgoing] = deque()

    def __len__(self) -> int:
        return len(self._under_way)

    @property
    def waiting(self) -> int:
        """How many wait for room."""
        return len(self._waiting)

    def add(self, outgoing: Outgoing) -> None:
        """Send now or when there is room."""
        self._waiting.append(outgoing)
        self._fill()

    def answer(self, packet_id: int, code: int, name: str) -> None:
        """Complete a publish by its PUBACK: reason codes from 0x80 say that the broker did not take it.

        One that answers nothing changes nothing.
        """
        outgoing = self._under_way.pop(packet_id, None)
        if outgoing is None or outgoing.answered.cancelled():
            pass
        elif code >= 0x80:  # MQTT 5 section 2.4
            fail(outgoing.answered, PublishRefused(outgoing.topic, code, name))
        else:
            outgoing.answered.set_result(None)
        self._fill()

    def fail_all(self, error: LinkDown) -> None:
        """Fail everything at once: the connection has ended."""
        failed = [*self._under_way.values(), *self._waiting]
        self._under_way.clear()
        self._waiting.clear()
        for outgoing in failed:
            fail(outgoing.answered, LinkDown(error.text, error.code))

    def _fill(self) -> None:
        while self._waiting and len(self._under_way) < self.size:
            outgoing = self._waiting.popleft()
            if outgoing.answered.cancelled():
                continue
            packet_id = self._free_id()
            try:
                self._transmit(outgoing, packet_id)
            except LinkDown as down:
                fail(outgoing.answered, down)
            else:
                self._under_way[packet_id] = outgoing

    def _free_id(self) -> int:
        """The next of 1 to 65,535 (MQTT 5 section 2.2.1) that is not under way; `size` is below their number."""
        while True:
            self._newest_id = self._newest_id % PACKET_IDS + 1
            if self._newest_id not in self._under_way:
                return self._newest_id


def fail(future: asyncio.Future[None], error: Exception) -> None:
    """Set the exception; a caller who does not look at the future is not told off by asyncio for it."""
    if not future.done():
        future.set_exception(error)
        future.exception()
