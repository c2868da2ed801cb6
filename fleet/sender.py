import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from agent.link import Hints, Link, LinkDown, PublishRefused
from agent.protocol import framing, jws

if TYPE_CHECKING:
    from nacl.signing import SigningKey

HINTS = Hints(content_type=framing.CONTENT_TYPE)

_log = logging.getLogger(__name__)


class Sender:
    """Signs what the fleet says and publishes it; without a key it is sent unsigned."""

    def __init__(self, link: Link, key: "SigningKey | None", kid: str) -> None:
        self._link = link
        self._key = key
        self._kid = kid
        self._unsaid: list[tuple[str, bytes]] = []
        self._under_way: set[asyncio.Future[None]] = set()

    def signed(self, body: bytes) -> bytes:
        """The payload for `body`."""
        return body if self._key is None else jws.sign(body, self._key, self._kid)

    def publish(self, topic: str, payload: bytes) -> asyncio.Future[None]:
        """Publish once, as `Link.publish` does."""
        return self._link.publish(topic, payload, hints=HINTS)

    def say(self, topic: str, body: bytes) -> None:
        """Publish, again after a reconnect if need be, until the broker has it."""
        self._say(topic, self.signed(body))

    def say_again(self) -> None:
        """Publish what the last connection did not get to the broker; call it when the link is up."""
        unsaid, self._unsaid = self._unsaid, []
        for topic, payload in unsaid:
            self._say(topic, payload)

    async def until_said(self, within_s: float) -> None:
        """Wait for the broker to have what is under way."""
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=within_s)

    def _say(self, topic: str, payload: bytes) -> None:
        try:
            answer = self.publish(topic, payload)
        except LinkDown:
            self._unsaid.append((topic, payload))
            return
        self._under_way.add(answer)
        answer.add_done_callback(self._said(topic, payload))

    def _said(self, topic: str, payload: bytes) -> Callable[[asyncio.Future[None]], None]:
        def said(answer: asyncio.Future[None]) -> None:
            self._under_way.discard(answer)
            error = answer.exception()
            if isinstance(error, LinkDown):
                self._unsaid.append((topic, payload))
            elif isinstance(error, PublishRefused):
                _log.error("%s: allow this client to publish there", error)

        return said
