"""Whether a task is taken: one rule a line, the first that objects decides."""

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from agent.fetch.errors import NotFetched
from agent.fetch.place import checked
from agent.protocol.messages import EnergySource, Task
from agent.protocol.reasons import Reason, Refused
from agent.settings import Settings

LONG_ROW_S: Final = 300.0
"""A row is done whole or not at all. Shorter ones waste at most 0.6 % of the parked time with no forecast at all."""
LIKELY_ENOUGH: Final = 0.9
UNMEASURED_S: Final = 1.0
"""Until a full queue may have room, where no model in it has run here yet: a judgement."""
AHEAD_MOST_S: Final = 86_400.0
"""No car knows what it does in more than a day."""


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What the rules look at beside the task. `now` is never earlier than the newest trusted signed time.

    `remote_bytes` stand at a URL, and on the disk once they are fetched; the other bytes are held in memory.
    `row_s`: measured seconds of one row of this model, None before the first. `stays_for`: P(the car stays at least
    so many seconds more), None where it is not known. `kills_workers`: this model has ended its worker twice.
    """

    settings: Settings
    energy_source: EnergySource
    now: dt.datetime
    open_tasks: int
    open_bytes: int
    open_remote_bytes: int
    queued_s: float
    task_bytes: int
    task_remote_bytes: int
    row_s: float | None
    stays_for: Callable[[float], float | None]
    kills_workers: bool

    @property
    def room_at(self) -> dt.datetime:
        """The earliest time at which a full queue has room: one task is done, and the rest fits into `queue_s`."""
        too_long_s = self.queued_s - self.settings.tasks.queue_s
        one_task_s = self.queued_s / self.open_tasks if self.queued_s else UNMEASURED_S
        return self.now + dt.timedelta(seconds=min(max(one_task_s, too_long_s), AHEAD_MOST_S))


def _audience(task: Task, at: Circumstances) -> str | None:
    return (
        None
        if task.audience == at.settings.vehicle.id
        else f"for {task.audience}, this is {at.settings.vehicle.id}"
    )


def _deadline(task: Task, at: Circumstances) -> str | None:
    return f"expired at {task.expires_at}, it is {at.now}" if task.expires_at <= at.now else None


def _residency(task: Task, at: Circumstances) -> str | None:
    """The data's regions and the car's own list must both hold the region in which the car is."""
    here = {at.settings.vehicle.region, at.settings.vehicle.country}
    if not here & set(at.settings.trust.residency):
        return f"this car may compute in {', '.join(at.settings.trust.residency)}, it is in {at.settings.vehicle.region}"
    if task.residency is not None and not here & set(task.residency):
        return f"may stay in {', '.join(task.residency) or 'no region'}, this car is in {at.settings.vehicle.region}"
    return None


def _energy(task: Task, at: Circumstances) -> str | None:
    metered = at.energy_source is not EnergySource.NONE
    return (
        None
        if metered or task.limits.energy_j is None
        else "limits.energy_j needs a meter, this car has none"
    )


def _backend(task: Task, at: Circumstances) -> str | None:
    names = [backend.use for backend in at.settings.backends]
    known = task.backend is None or task.backend in names
    return None if known else f"backend {task.backend!r} is not here: {', '.join(names)}"


def _inputs_url(task: Task, at: Circumstances) -> str | None:
    """As far as the URL alone tells; where its host is found and where its links lead is seen at the fetch."""
    if task.inputs_url is None:
        return None
    try:
        checked(task.inputs_url, at.settings.inputs.rules)
    except NotFetched as error:
        return f"inputs_url: {error.text}"
    return None


def _inputs_size(_: Task, at: Circumstances) -> str | None:
    most = at.settings.inputs.max_bytes
    if at.task_remote_bytes <= most:
        return None
    return f"the inputs at inputs_url have {at.task_remote_bytes} bytes, inputs.max_bytes is {most}"


def _killer(task: Task, at: Circumstances) -> str | None:
    model = task.model
    return (
        f"model {model.name} {model.version} ended its worker twice here: send other bytes"
        if at.kills_workers
        else None
    )


def _stay(_: Task, at: Circumstances) -> str | None:
    """A model that nobody has measured here is taken: its first row tells."""
    if at.row_s is None or at.row_s <= LONG_ROW_S:
        return None
    likely = at.stays_for(at.row_s)
    if likely is None:
        return f"one row takes {at.row_s:.0f} s, and it is not known how long the car will stay"
    if likely < LIKELY_ENOUGH:
        return f"one row takes {at.row_s:.0f} s, the car stays so long with p = {likely:.3f}, {LIKELY_ENOUGH:g} is needed"
    return None


def _queue(_: Task, at: Circumstances) -> str | None:
    limits = at.settings.tasks
    if not at.open_tasks:
        return None
    if at.open_tasks >= limits.queue_tasks:
        return f"{at.open_tasks} tasks are open, queue_tasks is {limits.queue_tasks}"
    if at.open_bytes + at.task_bytes > limits.queue_bytes:
        return f"{at.open_bytes} + {at.task_bytes} bytes, queue_bytes is {limits.queue_bytes}"
    if at.open_remote_bytes + at.task_remote_bytes > (most := at.settings.inputs.max_bytes):
        return f"{at.open_remote_bytes} + {at.task_remote_bytes} bytes from URLs, inputs.max_bytes is {most}"
    if at.queued_s > limits.queue_s:
        return f"{at.queued_s:.3g} s of work are open, queue_s is {limits.queue_s:g}"
    return None


RULES: tuple[tuple[Reason, Callable[[Task, Circumstances], str | None]], ...] = (
    (Reason.WRONG_AUDIENCE, _audience),
    (Reason.EXPIRED, _deadline),
    (Reason.RESIDENCY, _residency),
    (Reason.LIMIT_ENERGY, _energy),
    (Reason.BACKEND_UNUSABLE, _backend),
    (Reason.INPUT_FETCH, _inputs_url),
    (Reason.TOO_LARGE, _inputs_size),
    (Reason.MODEL_INVALID, _killer),
    (Reason.DEPARTURE_SOON, _stay),
    (Reason.QUEUE_FULL, _queue),
)


def admit(task: Task, at: Circumstances) -> None:
    """Return if the task may be taken, else raise Refused with the first objection."""
    for reason, rule in RULES:
        objection = rule(task, at)
        if objection is not None:
            raise Refused(reason, objection, at.room_at if reason is Reason.QUEUE_FULL else None)
