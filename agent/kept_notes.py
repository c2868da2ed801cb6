"""What a part of the agent keeps for itself over a restart: on disk as soon as there is room, the newest body of each."""

import logging
from asyncio import Future
from collections.abc import Callable, Mapping
from typing import TypeVar

from agent.store import Ledger, Store, StoreClosed

log = logging.getLogger(__name__)
T = TypeVar("T")


class KeptNotes:
    """The notes of one part of the agent; those that are given together are on disk together.

    While the store is full one write waits there: of what comes meanwhile only the newest is written behind it.
    """

    def __init__(self, store: Store, on_error: Callable[[BaseException], None]) -> None:
        self._store = store
        self._on_error = on_error
        self._unwritten: dict[str, bytes] = {}
        self._under_way = 0

    async def read(self, name: str, decode: Callable[[bytes], T]) -> T | None:
        """Return what an earlier start has kept; None where that is nothing, or `decode` raises ValueError for it."""
        body = await self._store.run(lambda ledger: ledger.notes.read(name))
        try:
            return None if body is None else decode(body)
        except ValueError as error:
            log.warning("the note %r cannot be used and is forgotten: %s", name, error)
            return None

    def write(self, bodies: Mapping[str, bytes]) -> None:
        """Replace the notes of these names."""
        self._unwritten.update(bodies)
        if not (self._under_way and self._store.writer.waiting):
            self._write()

    def _write(self) -> None:
        bodies, self._unwritten = self._unwritten, {}
        self._under_way += 1

        def write(ledger: Ledger) -> None:
            for name, body in bodies.items():
                ledger.notes.write(name, body)

        self._store.owe(write, lane=self).add_done_callback(self._written)

    def _written(self, done: Future[None]) -> None:
        self._under_way -= 1
        if done.cancelled() or isinstance(error := done.exception(), StoreClosed):
            return
        if error is not None:
            self._on_error(error)
        elif self._unwritten and not self._under_way:
            self._write()
