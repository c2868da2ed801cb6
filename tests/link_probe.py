"""What the link's tests stand behind the link, in place of the service."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from agent.link import Inbound, Link, LinkDown, LinkOptions, Retry

DEADLINE_S = 30.0


async def eventually(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.005)


def at_once() -> Retry:
    """Retries without any wait, so that a test sees many of them."""
    return Retry(jitter=lambda: 0.0)


@dataclass
class Probe:
    """Keeps everything that a link said."""

    messages: list[Inbound] = field(default_factory=list)
    ups: list[bool] = field(default_factory=list)
    downs: list[LinkDown] = field(default_factory=list)
    dropped_sessions: list[str] = field(default_factory=list)
    acknowledge: bool = False

    def link(
        self,
        port: int,
        *,
        retry: Retry | None = None,
        clock: Callable[[], int] = time.monotonic_ns,
        **options: Any,
    ) -> Link:
        terms = {"host": "127.0.0.1", "client_id": "veh-0001", "subscriptions": ("fleet/task",), **options}
        return Link(
            LinkOptions(port=port, **terms),
            on_message=self._on_message,
            on_up=self.ups.append,
            on_down=self.downs.append,
            on_session_dropped=self.dropped_sessions.append,
            retry=retry or at_once(),
            clock=clock,
        )

    def _on_message(self, message: Inbound) -> None:
        self.messages.append(message)
        if self.acknowledge:
            message.ack()

    @property
    def payloads(self) -> list[bytes]:
        return [message.payload for message in self.messages]


@contextlib.asynccontextmanager
async def running(*links: Link) -> AsyncIterator[None]:
    """Run links, and pull their plug at the end, as `kill -9` would; what `run` raised is raised."""
    tasks = [asyncio.create_task(link.run()) for link in links]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome
