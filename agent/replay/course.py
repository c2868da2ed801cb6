"""The course of a replay for a plot: what stood when, with neighbours that are alike drawn as one."""

import math
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from agent.policy.modes import Situation, mode_of
from agent.protocol.messages import Mode
from agent.protocol.reasons import Reason
from agent.replay.account import Place, place_of, seen_in
from agent.replay.judge import Span
from firmware_shims import vss
from firmware_shims.reading import Snapshot

T = TypeVar("T")
CURVES: Final = (vss.CHARGE_LINE_POWER, vss.PACK_CURRENT, vss.SOC)


@dataclass
class Bar(Generic[T]):
    """Something that stood for a time."""

    from_ns: int
    to_ns: int
    what: T


@dataclass
class Curve:
    """A signal that keeps each value until the next point; NaN where it was not known."""

    at_ns: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)


@dataclass
class Course:
    """Bars and curves of one recording. A blocker's bar says whether it was the first of its moment."""

    from_ns: int | None = None
    to_ns: int = 0
    places: list[Bar[Place]] = field(default_factory=list)
    modes: list[Bar[Mode]] = field(default_factory=list)
    blockers: dict[Reason, list[Bar[bool]]] = field(default_factory=lambda: defaultdict(list))
    curves: dict[str, Curve] = field(default_factory=lambda: {path: Curve() for path in CURVES})

    def add(self, span: Span) -> None:
        """Add the next span."""
        if self.from_ns is None:
            self.from_ns = span.from_ns
        self.to_ns = span.to_ns
        _extend(self.places, span, place_of(span.verdict, seen_in(span.snapshot)))
        _extend(self.modes, span, mode_of(Situation(span.verdict, running=False, stopping=False)))
        reasons = dict.fromkeys(blocker.reason for blocker in span.verdict.blockers)
        for place, reason in enumerate(reasons):
            _extend(self.blockers[reason], span, place == 0)
        for path, curve in self.curves.items():
            _follow(curve, span.from_ns, _number(span.snapshot, path))


def _extend(bars: list[Bar[T]], span: Span, what: T) -> None:
    if bars and bars[-1].to_ns == span.from_ns and bars[-1].what == what:
        bars[-1].to_ns = span.to_ns
    else:
        bars.append(Bar(span.from_ns, span.to_ns, what))


def _follow(curve: Curve, at_ns: int, value: float) -> None:
    if (
        not curve.values or curve.values[-1] != value
    ):  # NaN differs from itself: a point too many harms nothing
        curve.at_ns.append(at_ns)
        curve.values.append(value)


def _number(snapshot: Snapshot, path: str) -> float:
    value = snapshot.good(path)
    return math.nan if value is None or isinstance(value, bool | str) else float(value)
