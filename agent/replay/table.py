"""The account of a replay as a table for a terminal."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from agent.replay.report import Report

_NAME_WIDTH: Final = 52
_NUMBER_WIDTH: Final = 9


@dataclass(frozen=True, slots=True)
class Unit:
    """What times are counted in, so that a drive of seconds and a day of hours can both be read."""

    name: str
    seconds: float

    def of(self, seconds: float) -> str:
        """A time in this unit, aligned."""
        return f"{seconds / self.seconds:>{_NUMBER_WIDTH}.2f}"


def unit_for(log_s: float) -> Unit:
    """Hours for a log of more than two, else minutes, else seconds."""
    return next(
        (Unit(name, seconds) for name, seconds in (("h", 3600.0), ("min", 60.0)) if log_s >= 2 * seconds),
        Unit("s", 1.0),
    )


def described(report: Report) -> Iterator[str]:
    """All lines of the table."""
    unit = unit_for(report.log_s)
    yield from _heading(report)
    yield ""
    yield from _places(report, unit)
    yield ""
    yield from _reasons(report, unit)
    yield from _largest_limit(report, unit)


def _heading(report: Report) -> Iterator[str]:
    log, rules = report.log, report.rules
    yield f"log       {log.file}: {log.format}, {log.begins} to {log.ends} ({log.clock})"
    yield (
        f"policy    {rules.settings}; the computer takes {rules.compute_w:g} W, so grid power is proven"
        f" from {rules.grid_proof_w:g} W on"
    )
    age = "as long as the map says" if log.stale_after_s is None else f"{log.stale_after_s:g} s"
    yield f"unknown   is a signal whose last reading has stood for {age}"
    for text in log.assumed:
        yield f"assumed   {text}"
    for path in log.missing:
        yield f"missing   {path}: the log does not hold it, so no work is ever allowed"


def _places(report: Report, unit: Unit) -> Iterator[str]:
    places = report.places
    yield f"{'where the time went':<{_NAME_WIDTH}}{unit.name:>{_NUMBER_WIDTH}}"
    for name, seconds in (
        ("in the log", report.log_s),
        ("  gaps: the car told nothing", places.gap_s),
        ("  driving, or the owner at the car", places.owner_s),
        ("  parked, not plugged in", places.unplugged_s),
        ("  not told whether parked or plugged in", places.unclear_s),
        ("  plugged in", places.plugged_in_s),
        ("    proven on grid power", places.proven_s),
        ("    not proven: charging had ended or not begun", places.charge_ended_s),
        ("    not proven for another reason", places.unproven_s),
        ("usable: ready for work", report.ready_s),
    ):
        yield f"{name:<{_NAME_WIDTH}}{unit.of(seconds)}"
    yield f"{'starts':<{_NAME_WIDTH}}{report.starts:>{_NUMBER_WIDTH}}"
    for name, pct in (("charge at first", report.soc_first_pct), ("charge at last", report.soc_last_pct)):
        shown = "unknown" if pct is None else f"{pct:g} %"
        yield f"{name:<{_NAME_WIDTH}}{shown:>{_NUMBER_WIDTH}}"
    yield ""
    yield f"{'mode':<{_NAME_WIDTH}}{unit.name:>{_NUMBER_WIDTH}}"
    for mode, seconds in report.modes_s.items():
        yield f"{mode:<{_NAME_WIDTH}}{unit.of(seconds)}"


def _reasons(report: Report, unit: Unit) -> Iterator[str]:
    first, every = f"first, {unit.name}", f"in all, {unit.name}"
    yield f"{'why there was no work':<{_NAME_WIDTH}}{first:>{_NUMBER_WIDTH}} {every:>{_NUMBER_WIDTH + 2}}"
    for lost in sorted(report.reasons, key=lambda lost: -lost.first_s):
        name = f"{lost.code.value} {lost.name}"
        yield f"{name:<{_NAME_WIDTH}}{unit.of(lost.first_s)}   {unit.of(lost.any_s)}"
    for path, seconds in report.unknown_s.items():
        yield f"  unknown, gaps left out {unit.of(seconds)} {unit.name}  {path}"


def _largest_limit(report: Report, unit: Unit) -> Iterator[str]:
    places = report.places
    if places.charge_ended_s:
        yield ""
        yield (
            f"Plugged in is not enough: for {unit.of(places.charge_ended_s).strip()} of"
            f" {unit.of(places.plugged_in_s).strip()} {unit.name} on the plug the car was not charging."
        )
        yield "Nothing flows then that would prove grid power, and work would draw on the owner's battery."
