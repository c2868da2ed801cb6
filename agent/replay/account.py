"""The account of a stretch of time: how long work was allowed, and where the rest of it went.

Pure: it is fed verdicts with the times for which they stood, from a log or from a car that works.
"""

import enum
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from agent.policy.conditions import CONDITIONS
from agent.policy.modes import Situation, mode_of
from agent.policy.verdict import Verdict
from agent.protocol.messages import Mode
from agent.protocol.reasons import Reason
from firmware_shims import vss
from firmware_shims.reading import Quality, Snapshot


class Place(enum.Enum):
    """Where a moment of the time belongs; every moment belongs to one of them."""

    GAP = "gap"
    """The car told nothing that can be trusted."""
    OWNER = "owner"
    """Driving, or somebody at the car."""
    UNPLUGGED = "unplugged"
    """Parked, and not plugged in."""
    PROVEN = "proven"
    """Plugged in, and what flows proves it."""
    CHARGE_ENDED = "charge_ended"
    """Plugged in, but charging had ended or not begun: nothing flows, so nothing is proven."""
    UNPROVEN = "unproven"
    """Plugged in, no proof, and no word that charging had ended."""
    UNCLEAR = "unclear"
    """The car told something, but not enough for any of the others."""


PLUGGED_IN: Final = (Place.PROVEN, Place.CHARGE_ENDED, Place.UNPROVEN)


@dataclass(frozen=True, slots=True)
class Seen:
    """What the car showed beside the verdict. None: unknown. `anything`: at least one good reading."""

    anything: bool
    plugged_in: bool | None
    charging: bool | None
    soc_pct: float | None


def seen_in(snapshot: Snapshot) -> Seen:
    """The part of a view that the account is about."""
    soc_pct = snapshot.good(vss.SOC)
    return Seen(
        anything=any(reading.quality is Quality.GOOD for reading in snapshot.readings.values()),
        plugged_in=_flag(snapshot, vss.CABLE_CONNECTED),
        charging=_flag(snapshot, vss.IS_CHARGING),
        soc_pct=None if isinstance(soc_pct, bool | str) else soc_pct,
    )


def _flag(snapshot: Snapshot, path: str) -> bool | None:
    value = snapshot.good(path)
    return value if isinstance(value, bool) else None


def _holds(verdict: Verdict, reason: Reason) -> bool | None:
    """Whether everything holds that could block for this reason; None: unknown."""
    looks = [
        judged.holds
        for condition, judged in zip(CONDITIONS, verdict.judged, strict=True)
        if condition.reason is reason
    ]
    return False if False in looks else None if None in looks else True


def place_of(verdict: Verdict, seen: Seen) -> Place:
    """Where a moment belongs."""
    if not seen.anything:
        return Place.GAP
    proven = _holds(verdict, Reason.NOT_GRID_POWERED)
    parked = _holds(verdict, Reason.NOT_PARKED)
    if parked is not False and proven:
        return Place.PROVEN
    if parked is not False and seen.plugged_in:
        return Place.CHARGE_ENDED if seen.charging is False else Place.UNPROVEN
    if parked is False or _holds(verdict, Reason.OWNER_PRESENT) is False:
        return Place.OWNER
    return Place.UNPLUGGED if parked and seen.plugged_in is False else Place.UNCLEAR


@dataclass
class Account:
    """Sums of nanoseconds over spans that follow each other.

    `first_ns` counts a span for its first blocker alone, `any_ns` for each of its reasons; `unknown_ns` is by signal,
    and without the gaps, in which every signal is unknown.
    """

    from_ns: int | None = None
    to_ns: int | None = None
    mode_ns: Counter[Mode] = field(default_factory=Counter)
    place_ns: Counter[Place] = field(default_factory=Counter)
    first_ns: Counter[Reason] = field(default_factory=Counter)
    any_ns: Counter[Reason] = field(default_factory=Counter)
    unknown_ns: Counter[str] = field(default_factory=Counter)
    starts: int = 0
    soc_first_pct: float | None = None
    soc_last_pct: float | None = None
    _allowed: bool = False

    def add(self, from_ns: int, to_ns: int, verdict: Verdict, seen: Seen) -> None:
        """Add a span of the log's time in which `verdict` stood."""
        length_ns = to_ns - from_ns
        self.from_ns = from_ns if self.from_ns is None else self.from_ns
        self.to_ns = to_ns
        self.mode_ns[mode_of(Situation(verdict, running=False, stopping=False))] += length_ns
        place = place_of(verdict, seen)
        self.place_ns[place] += length_ns
        self._blame(length_ns, verdict, place)
        self.starts += verdict.allowed and not self._allowed
        self._allowed = verdict.allowed
        if seen.soc_pct is not None:
            self.soc_first_pct = seen.soc_pct if self.soc_first_pct is None else self.soc_first_pct
            self.soc_last_pct = seen.soc_pct

    def _blame(self, length_ns: int, verdict: Verdict, place: Place) -> None:
        for blocker in verdict.blockers[:1]:
            self.first_ns[blocker.reason] += length_ns
        for reason in {blocker.reason for blocker in verdict.blockers}:
            self.any_ns[reason] += length_ns
        if place is not Place.GAP:
            for blocker in verdict.blockers:
                if blocker.reason is Reason.UNKNOWN_SIGNAL:
                    self.unknown_ns[str(blocker.value)] += length_ns
