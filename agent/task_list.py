"""What waits, runs and has ended lately: the answer to `tasks` on the control socket, and its text for people."""

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from agent.job import Job, Key
from agent.protocol.messages import Attempt, EnergySource, Id, ReasonInfo, TaskState, Time
from agent.protocol.reasons import Reason
from agent.store import Ledger
from agent.store.listing import Listed
from agent.store.spent import Spent
from agent.told import ago, ahead, joules

ENDED_SHOWN: Final = 20
ENDED_MOST: Final = 1000
HEAD: Final = ("task", "attempt", "state", "rows", "energy", "changed", "expires")


class SpentOn(msgspec.Struct, frozen=True):
    """What answered rows took whose joules come from one source; `energy_j` None: they are not known."""

    source: EnergySource
    rows: int
    device_s: float
    energy_j: float | None


class TaskLine(msgspec.Struct, frozen=True):
    """One task. `since` is when its state last changed; `unsettled`: results that the fleet has not confirmed.

    `model` is known of open tasks while the agent runs.
    """

    id: Id
    attempt: Attempt
    state: TaskState
    priority: int
    rows_done: int
    rows_total: int
    received: Time
    expires: Time
    since: Time
    reason: ReasonInfo | None
    spent: list[SpentOn]
    unsettled: int
    model: str | None = None


class TaskList(msgspec.Struct, frozen=True):
    """Open tasks in the order in which they are due, and the newest of those that ended. `live`: an agent runs."""

    vehicle: str
    at: Time
    live: bool
    open: list[TaskLine]
    ended: list[TaskLine]


def listed(ledger: Ledger, ended: int) -> tuple[list[Listed], list[Listed]]:
    """What the store says; for the thread that has it."""
    return ledger.listing.open(), ledger.listing.ended(ended)


def task_list(
    found: tuple[Sequence[Listed], Sequence[Listed]],
    jobs: Mapping[Key, Job],
    *,
    vehicle: str,
    at: dt.datetime,
    live: bool,
) -> TaskList:
    """The document; of jobs that are under way the newest rows may not be on disk yet."""
    waiting, ended = found
    return TaskList(
        vehicle=vehicle,
        at=at,
        live=live,
        open=[_line(each, jobs.get((each.id, each.attempt))) for each in waiting],
        ended=[_line(each, None) for each in ended],
    )


def described(tasks: TaskList) -> Iterator[str]:
    """The lines of `parkwatt tasks`."""
    origin = "the running agent" if tasks.live else "its store, no agent runs"
    whose = f" of {tasks.vehicle}" if tasks.vehicle else ""
    yield f"tasks{whose} at {tasks.at:%Y-%m-%d %H:%M:%SZ}, from {origin}"
    for title, lines, nothing in (
        ("waiting and running", tasks.open, "no task waits or runs"),
        ("ended, newest first", tasks.ended, "none has ended in the last day"),
    ):
        yield ""
        yield f"{title}: {len(lines) or nothing}"
        if lines:
            yield from _table([HEAD, *(_cells(line, tasks.at) for line in lines)], [None, *lines])


def _line(found: Listed, job: Job | None) -> TaskLine:
    code = found.reason_code
    return TaskLine(
        id=found.id,
        attempt=found.attempt,
        state=job.state if job is not None else TaskState(found.state),
        priority=found.priority,
        rows_done=found.rows_done if job is None else max(job.done, found.rows_done),
        rows_total=found.rows_asked,
        received=_time(found.received_at),
        expires=_time(found.expires_at),
        since=_time(found.changed_at),
        reason=None if code is None else ReasonInfo.of(Reason(code), found.reason_text),
        spent=[_spent(each) for each in found.spent],
        unsettled=found.unsettled,
        model=None if job is None else f"{job.task.model.name} {job.task.model.version}",
    )


def _spent(spent: Spent) -> SpentOn:
    source = EnergySource(spent.source)
    energy_j = None if source is EnergySource.NONE else spent.energy_j
    return SpentOn(source, spent.rows, round(spent.device_s, 6), energy_j)


def _cells(line: TaskLine, now: dt.datetime) -> tuple[str, ...]:
    return (
        line.id,
        str(line.attempt),
        line.state.value,
        f"{line.rows_done}/{line.rows_total}",
        _energy(line.spent),
        ago(line.since, now),
        ahead(line.expires, now) if line.state.is_open else "-",
    )


def _energy(spent: Iterable[SpentOn]) -> str:
    """Each source by itself: they are never added up."""
    told = [f"{joules(each.energy_j)} {each.source.value}" for each in spent if each.energy_j is not None]
    return ", ".join(told) or "-"


def _table(rows: Sequence[tuple[str, ...]], lines: Sequence[TaskLine | None]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for cells, line in zip(rows, lines, strict=True):
        yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
        if line is not None and (note := _note(line)):
            yield f"      {note}"


def _note(line: TaskLine) -> str:
    """Why it is where it is, and what else there is to say of it."""
    reason = line.reason
    why = (
        "" if reason is None else f"{reason.code.value} {reason.name}" + (reason.text and f": {reason.text}")
    )
    owed = f"{line.unsettled} {'result' if line.unsettled == 1 else 'results'} not yet settled"
    return "; ".join(filter(None, (line.model or "", why, owed if line.unsettled else "")))


def _time(unix_s: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(unix_s, dt.UTC)
