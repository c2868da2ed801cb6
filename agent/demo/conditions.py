"""The policy's conditions for people, as the verdict that stands has judged them."""

from dataclasses import dataclass
from typing import Final

from agent.demo.stage import Stage
from agent.policy.conditions import CONDITIONS, Cause, Condition, Judged
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
    judged = stage.service.guard.verdict.judged
    return [_line(condition, seen) for condition, seen in zip(CONDITIONS, judged, strict=True)]


def _line(condition: Condition, judged: Judged) -> Line:
    name = WORDS.get((condition.reason, condition.cause), condition.reason.label)
    limit = judged.limit if isinstance(judged.limit, str) else f"limit {shown(judged.limit)}"
    return Line(name, judged.holds, shown(judged.value), limit)


def shown(value: Value | None) -> str:
    """A value or a limit in few characters."""
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else f"{value:g}"
