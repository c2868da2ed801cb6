"""What the demo claims, each claim held against what was recorded."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from agent.demo.owner import Visit
from agent.demo.record import Tick
from agent.demo.wire import Counted
from agent.demo.workload import Tally
from agent.protocol.messages import Event
from agent.protocol.reasons import Reason
from agent.store import Counts

RIGHT_MIN: Final = 0.9
"""The demo's own threshold for labels that are right."""


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that a run has left behind."""

    tally: Tally
    counted: Counted
    preempted: Mapping[str, Event]
    visit: Visit
    ticks: Sequence[Tick]
    wall_s: float
    """From the first task sent to the last answered."""
    owed: Counts
    watts_per_core: float


@dataclass(frozen=True, slots=True)
class Check:
    """A claim; `text` says what was seen."""

    name: str
    holds: bool
    text: str


def check(facts: Facts) -> list[Check]:
    """Every claim of the demo."""
    return [judge(facts) for judge in CLAIMS]


def _all_ended(facts: Facts) -> Check:
    asked, done = len(facts.tally.asked), facts.tally.tasks_done
    text = "; ".join([f"{done} of {asked} tasks answered in full", *facts.tally.failures[:3]])
    return Check("every task ended well", 0 < asked == done, text)


def _exactly_once(facts: Facts) -> Check:
    seen = facts.counted
    text = f"{seen.once} once, {seen.twice} more often, {seen.missing} not at all on the wire"
    if seen.unasked:
        text += f"; {seen.unasked} that nobody had asked for"
    if seen.repeats:
        text += f"; {seen.repeats} results said again"
    complete = facts.tally.rows_done == facts.tally.rows_asked == seen.once
    return Check(
        "every row was answered exactly once", complete and not seen.twice + seen.missing + seen.unasked, text
    )


def _door_stops(facts: Facts) -> Check:
    name = "the door stopped inference"
    visit = facts.visit
    if visit.opened_s is None:
        return Check(name, False, "the work was done before the owner came: ask for more (--tasks)")
    if visit.preemption is None:
        return Check(name, False, "no worker was killed")
    if visit.rows_when_gone is None or visit.rows_when_closed is None:
        return Check(name, False, "the visit did not come to its end")
    rows = visit.rows_when_closed - visit.rows_when_gone
    owner = visit.preemption.reason is Reason.OWNER_PRESENT
    text = f"worker killed for {visit.preemption.reason.label}, {rows} rows done until the door was closed"
    return Check(name, owner and rows == 0, text)


def _resumes(facts: Facts) -> Check:
    name = "work resumed by itself"
    visit = facts.visit
    if visit.resumed_s is None or visit.closed_s is None:
        return Check(name, False, "no row was done after the owner had gone")
    return Check(name, True, f"{visit.resumed_s - visit.closed_s:.1f} s after the door was closed")


def _labels(facts: Facts) -> Check:
    labels = facts.tally.labels
    name = f"labels right >= {RIGHT_MIN:.0%} (the demo's own threshold)"
    return Check(
        name,
        labels.total > 0 and labels.right >= RIGHT_MIN * labels.total,
        f"{labels.right} of {labels.total}",
    )


def _settled(facts: Facts) -> Check:
    owed = facts.owed
    text = (
        f"the agent's store has {owed.open_tasks} open tasks and {owed.unsettled_results} unsettled results"
    )
    return Check("nothing is owed", not owed.open_tasks and not owed.unsettled_results, text)


CLAIMS: Final[Sequence[Callable[[Facts], Check]]] = (
    _all_ended,
    _exactly_once,
    _door_stops,
    _resumes,
    _labels,
    _settled,
)
