"""The end of a run in words: plain lines, for a terminal of 80 columns."""

from collections.abc import Iterator
from typing import Final

from agent.demo.checks import Check, Facts
from agent.demo.record import Second, seconds_of, working_s
from agent.protocol.messages import EnergySource

INDENT: Final = " " * 13
HEADER: Final = "second   the car was           door    rows  budget   worker   blocked by"


def described(facts: Facts, checks: list[Check]) -> Iterator[str]:
    """All of it: what the car did second by second, the results, the checks."""
    yield HEADER
    yield from map(row_of, seconds_of(facts.ticks))
    yield ""
    yield from results(facts)
    yield ""
    yield from verdicts(checks)


def results(facts: Facts) -> Iterator[str]:
    """What came out of the run."""
    tally, work_s = facts.tally, working_s(facts.ticks)
    yield _line("tasks", f"{tally.tasks_done} of {len(tally.asked)} done")
    yield _line("rows", f"{tally.rows_done} of {tally.rows_asked}")
    yield _line("rows/s", f"{_rate(tally.rows_done, work_s)} in the {work_s:.1f} s of work")
    yield _line(
        "", f"{_rate(tally.rows_done, facts.wall_s)} in all {facts.wall_s:.1f} s, first task to last answer"
    )
    yield from _labels(facts)
    yield from _energy(facts)
    yield from _preemption(facts)


def verdicts(checks: list[Check]) -> Iterator[str]:
    """Each check, and what was seen."""
    for check in checks:
        yield from _wrapped(f"{OK if check.holds else FAILED:<8}", f"{check.name}: {check.text}")


def _wrapped(begin: str, text: str) -> list[str]:
    """Lines of at most `WIDTH` characters; what follows the first stands below its text."""
    return textwrap.wrap(text, WIDTH, initial_indent=begin, subsequent_indent=" " * len(begin))


def _rate(rows: int, seconds: float) -> str:
    return f"{rows / seconds:.0f}" if seconds else "-"


def _labels(facts: Facts) -> Iterator[str]:
    labels, scores = facts.tally.labels, sorted(facts.tally.scores.items())
    share = labels.right / labels.total if labels.total else 0.0
    yield _line("labels", f"{labels.right} of {labels.total} right ({share:.1%})")
    for begin in range(0, len(scores), 4):
        yield INDENT + ", ".join(
            f"{label} {score.right}/{score.total}" for label, score in scores[begin : begin + 4]
        )


def _energy(facts: Facts) -> Iterator[str]:
    rows = facts.tally.rows_done
    for source, joules in facts.tally.joules.items():
        how = f" CPU seconds x {facts.watts_per_core:g} W per core; no meter here"
        basis = f"{source.value}:{how}" if source is EnergySource.MODEL else source.value
        yield _line("energy", f"{joules / rows:.4f} J a row, {joules:.1f} J in all ({basis})")
    if not facts.tally.joules:
        yield _line("energy", "no meter")


def _preemption(facts: Facts) -> Iterator[str]:
    preemption = facts.visit.preemption
    if preemption is None:
        yield _line("preemption", "none")
        return
    yield _line(
        "preemption", f"{preemption.kill_ms:.2f} ms from the cue (the door) to the signal to the worker,"
    )
    yield INDENT + f"{preemption.silent_ms:.1f} ms to the worker gone and its memory free"
    for task_id, event in facts.preempted.items():
        yield _line(
            "", f"{task_id} was interrupted, kept {event.rows_done} of {event.rows_total} rows and went on"
        )


def row_of(second: Second) -> str:
    """One second in one line."""
    modes = ", ".join(mode.value for mode in second.modes)
    worker = "-" if second.worker_mib is None else f"{second.worker_mib:.0f} MiB"
    return (
        f"{second.at_s:>4} s  {modes:<22} {'open' if second.door_open else 'closed':<6} {second.rows:>5}"
        f" {second.budget_w:>6g} W {worker:>8}   {', '.join(second.blockers)}"
    ).rstrip()
