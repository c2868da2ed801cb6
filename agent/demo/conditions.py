"""The policy's conditions for people: the same predicates, judged once more for the eye."""

from dataclasses import dataclass
from typing import Final

from agent.demo.stage import Stage
from agent.policy.conditions import CONDITIONS, Cause, Condition, View
from agent.protocol.reasons import Reason
from firmware_shims.reading import Value

WORDS: Final = {
    (Reason.OWNER_PRESENT, Cause.OWNER): "owner away",
    (Reason.NOT_PARKED, Cause.OWNER): "parked",
    (Reason.NOT_GRID_POWERED, Cause.SAFETY): "grid powered",
    (Reason.CHARGE_LOW, Cause.SAFETY): "charge, floor %",
    (Reason.CHARGE_LOW, Cause.ECONOMIC): "charge %",
    (Reason.PACK_TEMPERATURE, Cause.SAFETY): "pack °C",
    (Reason.CHIP_TEMPERATURE, Cause.SAFETY): "chip °C",
    (Reason.DRAINING, Cause.ECONOMIC): "no drain",
}
"""What holds where a condition's reason says what does not."""


@dataclass(frozen=True, slots=True)
class Line:
    """A condition as it stands: `holds` None is unknown."""

    name: str
    holds: bool | None
    value: str
    limit: str


def conditions_of(stage: Stage) -> list[Line]:
    """Every condition of the policy in the table's order."""
    guard = stage.service.guard
    broken = {(blocker.reason, blocker.cause) for blocker in guard.verdict.blockers}
    draining = (Reason.DRAINING, Cause.ECONOMIC) in broken
    return [_line(condition, stage, draining, broken) for condition in CONDITIONS]


def _line(condition: Condition, stage: Stage, draining: bool, broken: set[tuple[Reason, Cause]]) -> Line:
    key = (condition.reason, condition.cause)
    judged = condition.judge(
        View(
            stage.service.guard.snapshot,
            stage.settings.policy,
            frozenset(stage.car.stale_after_s),
            stage.compute_w,
            draining,
            held=key not in broken,
        )
    )
    name = WORDS.get(key, condition.reason.label)
    limit = judged.limit if isinstance(judged.limit, str) else f"limit {shown(judged.limit)}"
    return Line(name, judged.holds, shown(judged.value), limit)


def shown(value: Value | None) -> str:
    """A value or a limit in few characters."""
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else f"{value:g}"
