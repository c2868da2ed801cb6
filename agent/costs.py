"""What a row of each model takes on each backend here: measured, refreshed by every run, kept over a restart."""

from asyncio import Future
from collections.abc import Callable
from typing import Annotated, Final

import msgspec

from agent.store import Store

NOTE: Final = "costs"
MODELS_KEPT: Final = 256
"""The least recently run are forgotten first."""
SHORTEST_S: Final = 1e-9
NEWEST_WEIGHT: Final = 0.2
WORTH_WRITING: Final = 0.1
"""A cost is written again when it is a tenth off what stands on disk: flash wears."""


class Cost(msgspec.Struct, array_like=True):
    """Seconds of one row. `setup` says what it was measured on: backend version, device and options."""

    row_s: Annotated[float, msgspec.Meta(gt=0)]
    setup: str
    written_s: float = 0.0


class Costs:
    """By the SHA-256 of the model and the backend's name."""

    def __init__(self, store: Store, on_error: Callable[[BaseException], None]) -> None:
        self._store = store
        self._on_error = on_error
        self._known: dict[tuple[str, str], Cost] = {}

    async def restore(self) -> None:
        """Take up what an earlier start of the agent has measured."""
        body = await self._store.run(lambda ledger: ledger.notes.read(NOTE))
        if body is not None:
            self._known = dict(msgspec.msgpack.decode(body, type=list[tuple[tuple[str, str], Cost]]))

    def row_s(self, sha256: str, backend: str) -> float | None:
        """Seconds of one row; None before any was run here."""
        cost = self._known.get((sha256, backend))
        return cost.row_s if cost else None

    def ran(self, sha256: str, backend: str, setup: str, row_s: float) -> None:
        """Take the seconds that a row has just taken; what was measured on another setup is forgotten."""
        before = self._known.pop((sha256, backend), None)
        cost = Cost(max(row_s, SHORTEST_S), setup)
        if before is not None and before.setup == setup:
            cost.row_s = before.row_s + NEWEST_WEIGHT * (cost.row_s - before.row_s)
            cost.written_s = before.written_s
        self._known[sha256, backend] = cost
        while len(self._known) > MODELS_KEPT:
            del self._known[next(iter(self._known))]

    def write(self) -> None:
        """Put on disk what is worth it; called when the work goes quiet."""
        moved = [
            cost
            for cost in self._known.values()
            if abs(cost.row_s - cost.written_s) > WORTH_WRITING * cost.row_s
        ]
        if not moved:
            return
        for cost in self._known.values():
            cost.written_s = cost.row_s
        body = msgspec.msgpack.encode(list(self._known.items()))
        self._store.run(lambda ledger: ledger.notes.write(NOTE, body)).add_done_callback(self._written)

    def _written(self, done: Future[None]) -> None:
        if not done.cancelled() and (error := done.exception()) is not None:
            self._on_error(error)
