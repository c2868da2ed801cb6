"""Gives batches to workers: within the power budget, with the time taken, and with a note of what is in whose hands."""

import contextlib
import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from agent.batch import Batch
from agent.costs import Costs, Run
from agent.energy import Energy
from agent.guard import Guard
from agent.job import Job, Spending
from agent.pace import Pace
from agent.policy.shares import shares
from agent.station import GateShut, Loaded, Station
from backends.process import ARENA_BYTES, WorkerDied, WorkerProcess
from backends.slots import Slot, layout

LANES: Final = 4
"""Jobs of one backend under way at a time: the worker runs one while the others copy, commit and publish."""
BATCH_S: Final = 0.05
"""A batch is as many rows as are expected to take this long: what a kill in the middle may cost."""
TURNS_S: Final = 0.003
"""Rows that a program takes few at a time, one after another, are given to the worker for this long in one go: it
costs the agent no more than one of them. Not for longer: the lanes take turns, and the worker must not wait for them."""
SHORTEST_ROW_S: Final = 1e-6
SLOT_BYTES: Final = ARENA_BYTES // (2 * LANES)
"""And no more than find room in the arena beside those of the other lanes."""


@dataclass(frozen=True, slots=True, eq=False)
class Errand:
    """Something that a worker was given to do: a load, or the run in `slot`."""

    jobs: Sequence[Job]
    worker: WorkerProcess | None = None
    slot: Slot | None = None


class Runs:
    """Everything that is under way in the workers of `stations`."""

    def __init__(self, stations: Sequence[Station], guard: Guard, costs: Costs, energy: Energy) -> None:
        self.costs = costs
        self.energy = energy
        self._stations = stations
        self._guard = guard
        self._paces = {station: Pace(partial(self._share, place)) for place, station in enumerate(stations)}
        self._errands: dict[Station, list[Errand]] = defaultdict(list)

    @property
    def under_way(self) -> bool:
        """Whether a worker has something in hand, or rests for the power budget's sake."""
        rests = any(self._share(place) < 1 for place in range(len(self._stations)))
        return rests or any(self._errands.values())

    async def run(self, station: Station, loaded: Loaded, slot: Slot, batch: Batch) -> Spending:
        """Run a batch; returns what it took. Raises GateShut when the gate is shut, or what `WorkerProcess.run` raises."""
        async with self._paces[station].turn():
            if not self._guard.verdict.allowed:
                raise GateShut
            with self.errand(station, Errand(batch.jobs, loaded.worker, slot)):
                return await self._measured(station, loaded, slot, batch)

    async def load(self, station: Station, job: Job, path: Path) -> Loaded:
        """Load a program; see `Station.load`. What it costs is measured once."""
        known = self.costs.known(job.program, station.name, station.setup)
        loaded = await station.load(job, path, known)
        self.costs.measured(job.program, station.name, loaded.setup, loaded.program.cost)
        return loaded

    def cancel(self, job: Job) -> None:
        """Cancel the runs that rows of this job are in."""
        for errand in itertools.chain.from_iterable(self._errands.values()):
            if job in errand.jobs and errand.worker is not None and errand.slot is not None:
                errand.worker.cancel(errand.slot)

    @contextlib.contextmanager
    def errand(self, station: Station, errand: Errand) -> Iterator[None]:
        """Keep note of what the worker has in hand, in its order. If it dies the note stays, for `suspects`."""
        errands, died = self._errands[station], False
        errands.append(errand)
        try:
            yield
        except WorkerDied:
            died = True
            raise
        finally:
            if not died:
                errands.remove(errand)

    def suspects(self, station: Station) -> Sequence[Job]:
        """The jobs that were first in the hands of a worker that has died; the notes are torn up."""
        errands = self._errands.pop(station, [])
        return errands[0].jobs if errands else ()

    def batch_rows(self, station: Station, loaded: Loaded, job: Job) -> int:
        """How many rows of this program make a batch."""
        row_s = self.costs.row_s(job.program, station.name)
        row_s = max(row_s or loaded.program.cost.run_s.get(1, BATCH_S), SHORTEST_ROW_S)
        wanted = max(1, int(BATCH_S / row_s))
        fitting = max(1, SLOT_BYTES // layout((*loaded.program.inputs, *loaded.program.outputs), rows=1)[1])
        if loaded.program.max_batch is not None:
            wanted = min(wanted, max(loaded.program.max_batch, int(TURNS_S / row_s)))
        return min(wanted, fitting)

    async def _measured(self, station: Station, loaded: Loaded, slot: Slot, batch: Batch) -> Spending:
        with self.energy.metered(station.name) as metered:
            done = await loaded.worker.run(slot)
            spending = metered.spending(done)
        took = Run(slot.rows, spending.device_s, spending.energy_j)
        self.costs.ran(batch.jobs[0].program, station.name, loaded.setup, took)
        return spending

    def _share(self, place: int) -> float:
        """What the power budget leaves for a backend; all of it where the gate, not the budget, decides."""
        verdict = self._guard.verdict
        needs_w = [station.settings.max_power_w for station in self._stations]
        return shares(needs_w, verdict.budget_w)[place] if verdict.allowed else 1.0
