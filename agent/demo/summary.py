"""The end of a run in words: plain lines for a terminal of 80 columns."""

import textwrap
from collections.abc import Iterator
from typing import Final

from agent.demo.checks import Check, Facts
from agent.demo.record import Second, seconds_of, working_s
from agent.protocol.messages import EnergySource

WIDTH: Final = 80
HEADER: Final = "second   the car was           door    rows  budget   worker   blocked by"
OK: Final = "ok"
FAILED: Final = "FAILED"


def described(facts: Facts, checks: list[Check]) -> Iterator[str]:
    """All of it: what the car did second by second, the results, the checks."""
    yield HEADER
    yield from map(row_of, seconds_of(facts.ticks))
    yield ""
    yield from results(facts)
    yield ""
    yield from verdicts(checks)


def row_of(second: Second) -> str:
    """One second in one line, as `HEADER` has it."""
    modes = ", ".join(mode.value for mode in second.modes)
    worker = "-" if second.worker_mib is None else f"{second.worker_mib:.0f} MiB"
    return (
        f"{second.at_s:>4} s  {modes:<22} {'open' if second.door_open else 'closed':<6} {second.rows:>5}"
        f" {second.budget_w:>6g} W {worker:>8}   {', '.join(second.blockers)}"
    ).rstrip()


def results(facts: Facts) -> Iterator[str]:
    """What came out of the run."""
    for name, text in _figures(facts):
        yield from _wrapped(f"{name:<13}", text)


def verdicts(checks: list[Check]) -> Iterator[str]:
    """Each check, and what was seen."""
    for check in checks:
        yield from _wrapped(f"{OK if check.holds else FAILED:<8}", f"{check.name}: {check.text}")


def _wrapped(begin: str, text: str) -> list[str]:
    """Lines of at most `WIDTH` characters; what follows the first stands below its text."""
    return textwrap.wrap(text, WIDTH, initial_indent=begin, subsequent_indent=" " * len(begin))


def _figures(facts: Facts) -> Iterator[tuple[str, str]]:
    tally, work_s = facts.tally, working_s(facts.ticks)
    yield "tasks", f"{tally.tasks_done} of {len(tally.asked)} done"
    yield "rows", f"{tally.rows_done} of {tally.rows_asked}"
    yield "rows/s", f"{_rate(tally.rows_done, work_s)} in the {work_s:.1f} s of work"
    yield (
        "",
        f"{_rate(tally.rows_done, facts.wall_s)} in all {facts.wall_s:.1f} s from the first task to the last answer",
    )
    labels = tally.labels
    share = labels.right / labels.total if labels.total else 0.0
    yield "labels", f"{labels.right} of {labels.total} right ({share:.1%})"
    yield "", ", ".join(f"{kind} {score.right}/{score.total}" for kind, score in sorted(tally.scores.items()))
    yield from _energy(facts)
    yield from _preemption(facts)


def _rate(rows: int, seconds: float) -> str:
    return f"{rows / seconds:.0f}" if seconds else "-"


def _energy(facts: Facts) -> Iterator[tuple[str, str]]:
    """Joules by their source: sources are never mixed."""
    for source, joules in facts.tally.joules.items():
        yield "energy", f"{joules / facts.tally.rows_done:.4f} J a row, {joules:.1f} J in all"
        if source is EnergySource.MODEL:
            yield "", f"by {source.value}: CPU seconds x {facts.watts_per_core:g} W per core; no meter here"
        else:
            yield "", f"by {source.value}"
    if not facts.tally.joules:
        yield "energy", "no meter"


def _preemption(facts: Facts) -> Iterator[tuple[str, str]]:
    preemption = facts.visit.preemption
    if preemption is None:
        yield "preemption", "none"
        return
    yield "preemption", f"{preemption.kill_ms:.2f} ms from the cue (the door) to the signal to the worker"
    yield "", f"{preemption.silent_ms:.1f} ms from the cue to the worker gone and its memory free"
    cut = [
        f"{task_id} with {event.rows_done} of {event.rows_total}"
        for task_id, event in sorted(facts.preempted.items())
    ]
    yield "interrupted", f"{', '.join(cut)} rows done" if cut else "no task"
