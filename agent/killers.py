"""Models that ended their worker: one that does it twice without a run in between is not tried again."""

from collections import Counter
from collections.abc import Callable
from typing import Final

import msgspec

from agent.kept_notes import KeptNotes
from agent.store import Store

NOTE: Final = "killers"
DEATHS: Final = 2


class Killers:
    """Deaths by the SHA-256 of the model that was in the worker alone; kept over a restart."""

    def __init__(self, store: Store, on_error: Callable[[BaseException], None]) -> None:
        self._notes = KeptNotes(store, on_error)
        self._deaths: Counter[str] = Counter()

    async def restore(self) -> None:
        """Take up what an earlier start of the agent has seen."""
        deaths = await self._notes.read(NOTE, msgspec.json.Decoder(dict[str, int]).decode)
        self._deaths = Counter(deaths)

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
        self._notes.write({NOTE: msgspec.json.encode(self._deaths)})
