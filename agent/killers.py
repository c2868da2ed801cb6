"""Models that ended their worker: one that does it twice without a run in between is not tried again."""

from asyncio import Future
from collections import Counter
from collections.abc import Callable
from typing import Final

import msgspec

from agent.store import Store

NOTE: Final = "killers"
DEATHS: Final = 2


class Killers:
    """Deaths by the SHA-256 of the model that was in the worker alone; kept over a restart."""

    def __init__(self, store: Store, on_error: Callable[[BaseException], None]) -> None:
        self._store = store
        self._on_error = on_error
        self._deaths: Counter[str] = Counter()

    async def restore(self) -> None:
        """Take up what an earlier start of the agent has seen."""
        body = await self._store.run(lambda ledger: ledger.notes.read(NOTE))
        if body is not None:
            self._deaths = Counter(msgspec.json.decode(body, type=dict[str, int]))

    def refused(self, sha256: str) -> bool:
        """Whether this model is not to be run any more."""
        return self._deaths[sha256] >= DEATHS

    def died(self, sha256: str) -> None:
        """Its worker has ended by itself."""
        self._deaths[sha256] += 1
        self._write()

    def worked(self, sha256: str) -> None:
        """A run has succeeded: what happened before was not the model's fault."""
        if self._deaths.pop(sha256, 0):
            self._write()

    def _write(self) -> None:
        body = msgspec.json.encode(self._deaths)
        self._store.run(lambda ledger: ledger.notes.write(NOTE, body)).add_done_callback(self._written)

    def _written(self, done: Future[None]) -> None:
        if not done.cancelled() and (error := done.exception()) is not None:
            self._on_error(error)
