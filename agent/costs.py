"""What a program costs on each backend here: measured at its first load, followed by every run, kept over a restart."""

from collections.abc import Callable
from typing import Annotated, Final, NamedTuple

import msgspec

from agent.kept_notes import KeptNotes
from agent.store import Store
from backends.kernel import Cost

NOTE: Final = "costs"
PROGRAMS_KEPT: Final = 256
"""The least recently run are forgotten first."""
SHORTEST_S: Final = 1e-9
NEWEST_WEIGHT: Final = 0.2
WORTH_WRITING: Final = 0.1
"""A cost is written again when it is a tenth off what stands on disk: flash wears."""


class Entry(msgspec.Struct, array_like=True):
    """The cost of a program on a backend, followed. `setup`: what it holds for (`agent.station.Station.setup`).

    `run_s` and `run_j` by batch size, the other two as the load has measured them. `row_s`: seconds of one row in the
    batches as they have come; None before any was run.
    """

    setup: str
    run_s: dict[int, float]
    run_j: dict[int, float]
    bytes_resident: int | None = None
    cancel_bound_s: float | None = None
    row_s: Annotated[float, msgspec.Meta(gt=0)] | None = None
    written_s: float = 0.0


class Run(NamedTuple):
    """What a run of so many rows has taken; no joules where nothing could tell."""

    rows: int
    seconds: float
    joules: float | None


class Costs:
    """By program (`Job.program`) and the backend's name."""

    def __init__(self, store: Store, on_error: Callable[[BaseException], None]) -> None:
        self._notes = KeptNotes(store, on_error)
        self._entries: dict[tuple[str, str], Entry] = {}

    async def restore(self) -> None:
        """Take up what an earlier start of the agent has measured."""
        kept = msgspec.msgpack.Decoder(list[tuple[tuple[str, str], Entry]])
        self._entries = dict(await self._notes.read(NOTE, kept.decode) or ())

    def row_s(self, program: str, backend: str) -> float | None:
        """Seconds of one row; None before any was run here."""
        entry = self._entries.get((program, backend))
        return entry.row_s if entry else None

    def known(self, program: str, backend: str, setup: str) -> Cost | None:
        """What a load need not measure again; None where this setup is new."""
        entry = self._entries.get((program, backend))
        if entry is None or entry.setup != setup or not entry.run_s:
            return None
        return Cost(entry.run_s, entry.run_j, entry.bytes_resident, entry.cancel_bound_s)

    def measured(self, program: str, backend: str, setup: str, cost: Cost) -> None:
        """Take what a load has measured; what is known already of this setup stays."""
        before = self._entries.get((program, backend))
        if before is None or before.setup != setup:
            run_s, run_j = dict(cost.run_s), dict(cost.run_j)
            self._keep(program, backend, Entry(setup, run_s, run_j, cost.bytes_resident, cost.cancel_bound_s))

    def ran(self, program: str, backend: str, setup: str, run: Run) -> None:
        """Follow what a run has just taken; what was measured on another setup is forgotten."""
        entry = self._entries.pop((program, backend), None)
        if entry is None or entry.setup != setup:
            entry = Entry(setup, {}, {})
        row_s = max(run.seconds / run.rows, SHORTEST_S)
        entry.row_s = row_s if entry.row_s is None else _followed(entry.row_s, row_s)
        batch = 1 << (run.rows.bit_length() - 1)
        _follow(entry.run_s, batch, row_s * batch)
        if run.joules is not None:
            _follow(entry.run_j, batch, run.joules * batch / run.rows)
        self._keep(program, backend, entry)

    def write(self) -> None:
        """Put on disk what is worth it; called when the work goes quiet."""
        ran = [(entry, entry.row_s) for entry in self._entries.values() if entry.row_s is not None]
        if not any(abs(row_s - entry.written_s) > WORTH_WRITING * row_s for entry, row_s in ran):
            return
        for entry, row_s in ran:
            entry.written_s = row_s
        self._notes.write({NOTE: msgspec.msgpack.encode(list(self._entries.items()))})

    def _keep(self, program: str, backend: str, entry: Entry) -> None:
        self._entries[program, backend] = entry
        while len(self._entries) > PROGRAMS_KEPT:
            del self._entries[next(iter(self._entries))]


def _followed(before: float, now: float) -> float:
    return before + NEWEST_WEIGHT * (now - before)


def _follow(by_batch: dict[int, float], batch: int, now: float) -> None:
    """Batches between two measured sizes count for the smaller."""
    before = by_batch.get(batch)
    by_batch[batch] = now if before is None else _followed(before, now)
