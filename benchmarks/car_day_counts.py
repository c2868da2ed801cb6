"""What is counted over simulated car-days: promises broken, how often each was challenged, and where time went.

The limits stand here once more, as what was promised to owners: they are not read from the policy.
"""

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Final

FLOOR_PCT: Final = 20.0
READING_WITHIN_PCT: Final = 1.0
"""How far a reading of the charge may be from the truth: steps and errors of the simulated sensors end there."""
GRID_LOST_S: Final = 3.0
PACK_BUDGET_PCT: Final = 5.0
STARTS_PER_HOUR: Final = 6
DRAIN_S: Final = 5.0
FORESEEN_WITHIN_S: Final = 900.0
"""The charge is promised for a departure as far as the car's own forecast of it errs by no more than this."""
MET_WITHIN_PCT: Final = 0.1
CHIP_STOP_C, AMBIENT_STOP_C, SUPPLY_FLOOR_V = 90.0, 42.0, 11.8
PACK_STOP_C: Final = (0.0, 40.0)


class Promise(Enum):
    """What must never happen, and what is counted as its challenge."""

    OWNER = ("work seconds with the owner present", "owners came during work")
    PARKED = ("work seconds of a car that moves", "cars began to roll during work")
    FLOOR = (
        "work seconds below the floor of 20 %",
        "charge low during work, or below the floor on grid power",
    )
    GRID = ("work seconds without grid power, after 3 s and a reading", "grid power lost during work")
    BUDGET = (
        "work seconds beyond 5 % of the pack in 24 h",
        "work on the pack ended by its budget or its charge",
    )
    DEPARTURE = ("departures below target because of work", "work ended for a departure")
    STARTS = ("starts beyond 6 in an hour", "sixth starts in an hour")
    WORD = ("work seconds without consent, or while paused", "consent withdrawn or pause during work")
    HOURS = (
        "work seconds outside the hours or in a drain, after 5 s",
        "hours ended or drain came during work",
    )
    HEAT = ("work seconds with chip, pack or air beyond its limit", "work ended by a temperature")
    SUPPLY = ("work seconds on a failing 12 V supply or rail", "supply or rail failed during work")

    def __init__(self, broken: str, challenge: str) -> None:
        self.broken = broken
        self.challenge = challenge


class Told(StrEnum):
    """What the agent knew of a departure from the wallbox."""

    IN_TIME = "announced, and the car tells its time to complete"
    UNFORESEEN = "same, but supply or loads took more than 15 min from the forecast"
    NO_FORECAST = "announced, but the car does not tell its time to complete"
    SOONER = "announced, but the car left sooner"
    NOBODY = "not announced"
    OPTED_IN = "opted in to pack energy"


class Loss(StrEnum):
    """Why a car was not usable."""

    CHARGE_ENDED = "plugged in, but grid power not proven because charging had ended"
    ASLEEP_CHARGE_ENDED = "the same, and the car sleeps: it shows nothing"
    SUPPLY_PAUSED = "plugged in, but the supply waits, pauses or has failed"
    ASLEEP_SUPPLY_PAUSED = "the same, and the car sleeps"
    SUPPLY_WEAK = "plugged in, but the supply does not carry car and computer, or is not read so"
    NOT_PLUGGED = "not plugged in"
    ASLEEP_NOT_PLUGGED = "not plugged in, and the car sleeps"
    DRIVING = "driving"
    OWNER = "owner present, or not locked, or not switched off"
    UNKNOWN = "a signal unknown while the car is awake"
    PAUSED = "paused by the vehicle's operating system"
    CONSENT = "no consent"
    CHARGE_LOW = "charge low"
    PACK_BUDGET = "pack energy: budget used, or charge too low for it"
    PACK_TEMPERATURE = "pack temperature"
    AMBIENT = "ambient temperature"
    CHIP = "chip temperature"
    LOW_VOLTAGE = "low-voltage supply or own rail"
    GRID_LIMIT = "grid limit"
    HOURS = "outside the owner's hours"
    DEPARTURE = "departure ahead"
    DRAINING = "drained by the fleet"
    SETTLING = "settling"
    RESTING = "six starts in the last hour"
    OTHER = "another reason"


@dataclass(slots=True)
class Departures:
    """Departures of one kind. `worked`: of cars that worked before the target was met; percents of charge."""

    count: int = 0
    worked: int = 0
    below: int = 0
    worst_pct: float = 0.0

    def add(self, other: "Departures") -> None:
        """Take in those of another."""
        self.count += other.count
        self.worked += other.worked
        self.below += other.below
        self.worst_pct = max(self.worst_pct, other.worst_pct)


@dataclass(slots=True)
class Counts:
    """Everything that is counted; sums of two are counts again."""

    days: int = 0
    looks: int = 0
    starts: int = 0
    worked_wh: float = 0.0
    most_taken_pct: float = 0.0
    """Most that work took from one pack in 24 hours."""
    dips_wh: float = 0.0
    """Taken from the pack of cars that may not, while grid power was missed and its grace ran."""
    broken: dict[Promise, float] = field(default_factory=lambda: dict.fromkeys(Promise, 0.0))
    challenged: Counter[Promise] = field(default_factory=Counter)
    lost_s: dict[Loss, float] = field(default_factory=lambda: dict.fromkeys(Loss, 0.0))
    usable_min: Counter[int] = field(default_factory=Counter)
    """Days by their usable minutes."""
    departures: dict[Told, Departures] = field(default_factory=lambda: {told: Departures() for told in Told})

    def add(self, other: "Counts") -> None:
        """Take in the counts of other days."""
        self.days += other.days
        self.looks += other.looks
        self.starts += other.starts
        self.worked_wh += other.worked_wh
        self.dips_wh += other.dips_wh
        self.most_taken_pct = max(self.most_taken_pct, other.most_taken_pct)
        self.challenged.update(other.challenged)
        self.usable_min.update(other.usable_min)
        for promise, amount in other.broken.items():
            self.broken[promise] += amount
        for loss, seconds in other.lost_s.items():
            self.lost_s[loss] += seconds
        for told, departures in other.departures.items():
            self.departures[told].add(departures)

    def usable_h(self, share: float) -> float:
        """The usable hours that so many of the days do not exceed."""
        wanted, seen = share * self.days, 0
        for minutes in sorted(self.usable_min):
            seen += self.usable_min[minutes]
            if seen >= wanted:
                return minutes / 60
        return 0.0
