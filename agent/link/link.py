import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from agent.link.connection import Connection
from agent.link.errors import LinkDown
from agent.link.inbound import Inbound
from agent.link.options import Hints, LinkOptions
from agent.link.retry import Outcome, Retry

NO_HINTS = Hints()

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkStatus:
    """The link as an operator sees it. `since_ns` is when `up` last changed, on the link's clock."""

    up: bool
    since_ns: int
    connects: int
    error: str
    """Why the last connection ended or could not be made; empty before the first failure."""
    next_try_ns: int | None = None
    """When it will be made again, on the link's clock; of no meaning while it is up."""


class Link:
    """A connection to the broker that comes back for ever.

    All callbacks run on the event loop and must be quick. `on_message` gets every message, one at a time;
    those of a resumed session may come before `on_up`. `on_up` (with the session-present flag) is called
    when the subscriptions stand, before anything else can publish; `on_down` when a connection that was up
    ended; `on_session_dropped` when the circuit breaker (see `Retry`) threw the session away.
    """

    def __init__(
        self,
        options: LinkOptions,
        *,
        on_message: Callable[[Inbound], None],
        on_up: Callable[[bool], None] | None = None,
        on_down: Callable[[LinkDown], None] | None = None,
        on_session_dropped: Callable[[str], None] | None = None,
        retry: Retry | None = None,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._options = options
        self._on_message = on_message
        self._on_up = on_up
        self._on_down = on_down
        self._on_session_dropped = on_session_dropped
        self._retry = retry or Retry()
        self._clock = clock
        self._connection: Connection | None = None
        self._closing = False
        self._until_closed: asyncio.Timeout | None = None
        self.status = LinkStatus(up=False, since_ns=clock(), connects=0, error="")

    @property
    def up(self) -> bool:
        """Whether a publish would be sent now."""
        return self.status.up

    @property
    def outgoing(self) -> int:
        """Publishes that the broker has not answered yet, those that wait for its Receive Maximum among them."""
        return 0 if self._connection is None else self._connection.outgoing

    def publish(
        self, topic: str, payload: bytes, *, retain: bool = False, hints: Hints = NO_HINTS
    ) -> asyncio.Future[None]:
        """Publish with QoS 1; the future completes with the PUBACK.

        Raises LinkDown when there is no connection and TooLarge when the broker would not take the packet.
        The future fails with LinkDown as soon as the connection ends, and with PublishRefused at a negative
        PUBACK. Publishes leave in order; what exceeds the broker's Receive Maximum waits in memory.
        """
        if self._connection is None:
            raise LinkDown(self.status.error or f"not connected to {self._where}")
        return self._connection.publish(topic, payload, retain=retain, hints=hints)

    async def run(self) -> None:
        """Connect, and connect again, until `close`; raises only what a callback raised.

        Cancelling it drops the connection as a crash would: the broker sends the Will.
        """
        try:
            async with asyncio.timeout(None) as self._until_closed:
                while not self._closing:
                    wait_s = self._retry.after(await self._attempt())
                    if not self._closing:
                        self.status = replace(self.status, next_try_ns=self._clock() + round(wait_s * 1e9))
                        await asyncio.sleep(wait_s)
        except TimeoutError:
            if not self._closing:
                raise
        finally:
            self._until_closed = None

    async def close(self, *, send_will: bool = False) -> None:
        """Send what is under way and DISCONNECT, then let `run` return; with `send_will` the Will is sent.

        It does not wait for PUBACKs: await the futures of `publish` first.
        """
        self._closing = True
        if self._connection is not None:
            await self._connection.say_goodbye(send_will=send_will)
        elif self._until_closed is not None:
            self._until_closed.reschedule(asyncio.get_running_loop().time())  # ends a dialling or a wait

    @property
    def _where(self) -> str:
        return f"{self._options.host}:{self._options.port}"

    async def _attempt(self) -> Outcome:
        """One connection from its beginning to its end."""
        connection = Connection(
            self._options,
            clean_start=self._retry.clean_start,
            on_message=self._on_message,
            clock=self._clock,
        )
        try:
            await connection.open()
            self._came_up(connection)
            await connection.until_down()
        except LinkDown as down:
            ended_by = down
        finally:
            connection.abort()
            self._connection = None
            was_up = self.up
            if was_up:
                self.status = replace(self.status, up=False, since_ns=self._clock())
        if not self._closing:
            if connection.outdated:
                ended_by = LinkDown("the credentials were renewed")
            self._report(ended_by, was_up)
        return self._outcome(connection, ended_by)

    def _came_up(self, connection: Connection) -> None:
        self._connection = connection
        session = "session resumed" if connection.session_present else "new session"
        _log.info("connected to %s, %s", self._where, session)
        if self._retry.clean_start:
            lost = f"threw the session at {self._where} away: {self.status.error}, again and again"
            _log.warning(lost)
            if self._on_session_dropped is not None:
                self._on_session_dropped(lost)
        self.status = replace(self.status, up=True, since_ns=self._clock(), connects=self.status.connects + 1)
        if self._on_up is not None:
            self._on_up(connection.session_present)

    def _report(self, down: LinkDown, was_up: bool) -> None:
        if was_up or down.text != self.status.error:  # not at every attempt
            _log.warning("%s", down.text)
        self.status = replace(self.status, error=down.text)
        if was_up and self._on_down is not None:
            self._on_down(down)

    def _outcome(self, connection: Connection, down: LinkDown) -> Outcome:
        if connection.accepted_ns is None:
            return Outcome(code=down.code)
        up_s = (self._clock() - connection.accepted_ns) / 1e9
        return Outcome(
            up_s=up_s, acknowledged=connection.acknowledged, code=down.code, planned=connection.outdated
        )
