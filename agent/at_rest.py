"""What `parkwatt tasks` and `parkwatt history` say while no agent runs: read from its store, which stays as it is."""

import datetime as dt
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from agent.history.report import History, first_possible, reported
from agent.policy.settings import PolicySettings
from agent.settings import Settings, StoreSettings
from agent.store.reading import reading
from agent.task_list import TaskList, listed, task_list


@dataclass(frozen=True, slots=True)
class AtRest:
    """Where an agent keeps its store, and what that does not say."""

    store: Path
    vehicle: str
    time_zone: str

    @classmethod
    def of(cls, settings: Settings | None) -> Self:
        """What a configuration says; without one the defaults."""
        if settings is None:
            return cls(StoreSettings().path, "", PolicySettings().time_zone)
        return cls(settings.store.path, settings.vehicle.id, settings.policy.time_zone)


def tasks_at_rest(place: AtRest, ended: int, at: dt.datetime) -> TaskList:
    """The tasks that an agent has left behind; raises `StoreUnusable`."""
    with reading(place.store) as ledger:
        found = listed(ledger, ended)
    return task_list(found, {}, vehicle=place.vehicle, at=at, live=False)


def history_at_rest(place: AtRest, days: int, at: dt.datetime) -> History:
    """The account of the last `days` days up to when the agent ended; raises `StoreUnusable`."""
    first_day = first_possible(days, at)
    with reading(place.store) as ledger:
        sums = ledger.history.since(first_day)
    return reported(sums, vehicle=place.vehicle, time_zone=place.time_zone, at=at, days=days)
