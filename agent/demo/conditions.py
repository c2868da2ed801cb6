"""The policy's conditions for people, as the verdict that stands has judged them."""

from dataclasses import dataclass

from agent.demo.stage import Stage
from agent.policy.condition import DOES_NOT_APPLY, Condition, Judged
from agent.policy.conditions import CONDITIONS
from firmware_shims.reading import Value


@dataclass(frozen=True, slots=True)
class Line:
    """A condition as it stands: `holds` None is unknown."""

    name: str
    holds: bool | None
    value: str
    limit: str


def conditions_of(stage: Stage) -> list[Line]:
    """What there is to watch, in the table's order."""
    seen = zip(CONDITIONS, stage.service.guard.verdict.judged, strict=True)
    return [_line(condition, judged) for condition, judged in seen if _worth_a_line(condition, judged)]


def _worth_a_line(condition: Condition, judged: Judged) -> bool:
    """Orders and floors are shown when they stop work; what does not apply to this car, never."""
    if not judged.holds:
        return True
    from_signals = bool(condition.required or condition.optional)
    return judged != DOES_NOT_APPLY and from_signals and not condition.name.endswith("floor")


def _line(condition: Condition, judged: Judged) -> Line:
    limit = judged.limit if isinstance(judged.limit, str) else f"limit {shown(judged.limit)}"
    return Line(condition.name, judged.holds, shown(judged.value), limit)


def shown(value: Value | None) -> str:
    """A value or a limit in few characters."""
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else f"{value:g}"
