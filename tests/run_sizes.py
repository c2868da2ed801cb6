"""How many rows went into each run of a service in this process."""

import pytest
from agents import RunningAgent

from agent.batch import Batch
from agent.job import Spending
from agent.station import Loaded, Station
from backends.slots import Slot


def sizes_of_runs(car: RunningAgent, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Fills with the rows of each run from now on."""
    sizes = []
    run = car.service.executor.runs.run

    async def noted(station: Station, loaded: Loaded, slot: Slot, batch: Batch) -> Spending:
        sizes.append(batch.rows)
        return await run(station, loaded, slot, batch)

    monkeypatch.setattr(car.service.executor.runs, "run", noted)
    return sizes
