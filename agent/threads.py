"""Threads that live as long as the service; one that fails ends it."""

import asyncio
import logging
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self

JOIN_S: Final = 0.5
"""Together; a driver that hangs, or a connection that is being made, is left behind."""

log = logging.getLogger(__name__)


class Threads:
    """Runs functions in threads inside `async with`; `failed` is done with the error of the first that raised."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._threads: list[threading.Thread] = []

    def start(self, name: str, run: Callable[..., None], *args: Any) -> None:
        """Run `run(*args)` in a thread of that name (15 characters show up in ps)."""
        thread = threading.Thread(target=self._guarded, args=(run, args), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def runs(self, name: str) -> bool:
        """Whether the thread of that name has begun and not ended."""
        return any(thread.is_alive() for thread in self._threads if thread.name == name)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop.set()
        loop = asyncio.get_running_loop()
        until_s = loop.time() + JOIN_S
        for thread in self._threads:
            await asyncio.to_thread(thread.join, max(until_s - loop.time(), 0))
            if thread.is_alive():
                log.warning("thread %s does not end, and is left behind", thread.name)
        if self.failed.done() and not self.failed.cancelled():
            self.failed.exception()

    def _guarded(self, run: Callable[..., None], args: tuple[Any, ...]) -> None:
        try:
            run(*args)
        except BaseException as error:
            self.failed.get_loop().call_soon_threadsafe(self._fail, error)
            raise

    def _fail(self, error: BaseException) -> None:
        if not self.failed.done():
            self.failed.set_exception(error)
