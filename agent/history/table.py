"""The account of the days as a table for a terminal."""

from collections.abc import Iterator, Sequence
from typing import Final

from agent.history.report import Day, Energy, History
from agent.protocol.messages import TaskState
from agent.told import joules

HEAD: Final = (
    "day",
    *("ready", "working", "settling", "blocked", "asleep", "unseen"),
    *("done", "other", "rows", "preempted", "energy", "most lost to"),
)
LEFT: Final = frozenset({"day", "energy", "most lost to"})
NAME_WIDTH: Final = 40


def described(history: History) -> Iterator[str]:
    """All lines of the table."""
    whose = f" of {history.vehicle}" if history.vehicle else ""
    yield f"history{whose}, days by {history.time_zone} up to {history.at:%Y-%m-%d %H:%M:%SZ}; times in hours"
    yield ""
    rows = [_cells(str(day.day), day) for day in history.days]
    if len(rows) > 1:
        rows.append(_cells("in all", history.total))
    if history.undated is not None:
        rows.append(_cells("no date", history.undated))
    yield from _table([HEAD, *rows])
    yield ""
    yield from _reasons(history.total)
    if history.undated is not None:
        yield ""
        yield "no date: the car did not know the date for so long, since its store was made"


def work_lost_s(day: Day) -> float:
    """Seconds in which an agent looked on and no work was allowed, but for windows that had to pass."""
    return day.blocked_s + day.draining_s + day.preempting_s


def _cells(name: str, day: Day) -> tuple[str, ...]:
    done = day.tasks.get(TaskState.DONE.value, 0)
    hours = (day.ready_s, day.working_s, day.settling_s, work_lost_s(day), day.asleep_s, day.unseen_s)
    return (
        name,
        *(f"{seconds / 3600:.1f}" if seconds else "-" for seconds in hours),
        str(done),
        str(sum(day.tasks.values()) - done),
        str(day.rows),
        str(sum(day.preemptions.values())),
        ", ".join(filter(None, map(_energy, day.energy))) or "-",
        f"{day.lost[0].name} {_hours(day.lost[0].first_s)}" if day.lost else "-",
    )


def _energy(energy: Energy) -> str:
    """By one source: the sums of two are never one."""
    return "" if energy.energy_j is None else f"{joules(energy.energy_j)} {energy.source.value}"


def _reasons(total: Day) -> Iterator[str]:
    if not total.lost:
        yield "nothing has blocked work"
        return
    yield f"{'why there was no work':<{NAME_WIDTH}}{'h as first reason':>17}{'h in all':>10}"
    for lost in total.lost:
        yield f"{f'{lost.code} {lost.name}':<{NAME_WIDTH}}{_hours(lost.first_s):>17}{_hours(lost.any_s):>10}"


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.2f}"


def _table(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for cells in rows:
        shown = (
            cell.ljust(width) if head in LEFT else cell.rjust(width)
            for head, cell, width in zip(HEAD, cells, widths, strict=True)
        )
        yield "  ".join(shown).rstrip()
