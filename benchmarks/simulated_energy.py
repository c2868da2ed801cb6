"""Wallbox, charger, loads and pack of a simulated car: where the watts go, and the charge that comes of it.

The same physics runs twice: with the work, and beside it as if the car had not worked.
"""

import math
from dataclasses import dataclass, replace
from typing import Final

from benchmarks.car_traits import Traits

CHARGER_EFFICIENCY: Final = 0.9
ASLEEP_W: Final = 5.0
TARIFF: Final = "tariff"
"""The one cause for which charging begins later as planned."""
_WS_PER_WH_PCT: Final = 36.0
_LONGEST_S: Final = 10 * 86_400.0


@dataclass(slots=True)
class Charge:
    """A charge that runs. `full`: the charger has ended at the target, and has not begun again since."""

    pct: float
    full: bool = False


class Energy:
    """Between two calls of `run` all watts stay as they are.

    `charge` is the true one, `idle` that of a car that has not worked since `compare`; `delayed`: work has taken from
    the charging that runs, or ran last. `unforeseen_s`: charging time that supply and loads took from what the car foresaw at `foresee`, its
    own error included.
    """

    def __init__(self, traits: Traits, soc_pct: float) -> None:
        self.charge, self.idle = Charge(soc_pct), Charge(soc_pct)
        self.work_w = 0.0
        self.cable_w = 0.0
        self.asleep = False
        self.shares: dict[str, float] = {}
        """Of what the wallbox can do it offers the product of these, one for each cause."""
        self.loads: dict[str, float] = {}
        self.delayed = False
        self.unforeseen_s = 0.0
        self._foreseen_w: float | None = None
        self._begun = False
        self._charging = traits.charging
        self._awake_w = traits.machine.awake_w
        self._pct_ws = traits.machine.pack_wh * _WS_PER_WH_PCT
        self._forecast_error = traits.sensors.time_error

    @property
    def offered_w(self) -> float:
        """What the wallbox offers, whether the charger takes it or not."""
        return self.cable_w * math.prod(self.shares.values())

    @property
    def loads_w(self) -> float:
        """What the car draws beside our work."""
        return (ASLEEP_W if self.asleep else self._awake_w) + sum(self.loads.values())

    @property
    def line_w(self) -> float:
        """AC power into the car."""
        return self._line_w(self.charge, self.work_w)

    @property
    def pack_w(self) -> float:
        """Watts into the pack; negative: out of it."""
        return self._pack_w(self.charge, self.work_w)

    @property
    def from_pack_w(self) -> float:
        """Watts of the work that the line does not carry."""
        return max(0.0, self.work_w - self.line_w * CHARGER_EFFICIENCY)

    @property
    def pct_per_s(self) -> float:
        """How fast the charge rises."""
        return self.pack_w / self._pct_ws

    @property
    def to_complete_s(self) -> float:
        """What the car says of it, in whole minutes. As VSS has it: 0 while nothing charges."""
        if self.charge.full or not self.offered_w:
            return 0.0
        rate = self.pct_per_s
        if rate <= 0:
            return _LONGEST_S
        left_s = (self._charging.target_pct - self.charge.pct) / rate
        return min(_LONGEST_S, left_s * (1 + self._forecast_error)) // 60 * 60

    @property
    def met_in_s(self) -> float:
        """Until the target is met without work, once the supply does what is expected of it."""
        left_pct = max(0.0, self._charging.target_pct - self.charge.pct)
        return left_pct * self._pct_ws / self._expected_w()

    def turns_s(self) -> float:
        """Until charging ends, or starts again, by itself."""
        return self._turns_s(self.charge, self.pct_per_s)

    def run(self, seconds: float) -> None:
        """Let so much time pass."""
        self._count_unforeseen(seconds)
        was_full = self.charge.full
        self._run(self.charge, seconds, self.work_w)
        begun_again = was_full and not self.charge.full
        self.delayed = not begun_again and (self.delayed or (self.work_w > 0 and not was_full))
        self._run(self.idle, seconds, 0.0)

    def plug_in(self, watts: float) -> None:
        """A charge above its target is not charged."""
        self.cable_w = watts
        self.charge.full = self.charge.pct >= self._charging.target_pct
        self._foreseen_w = None
        self.compare()

    def unplug(self) -> None:
        """Neither history charges any more."""
        self.cable_w = 0.0

    def compare(self) -> None:
        """From now on `idle` is the charge of a car that does not work."""
        self.idle = replace(self.charge)
        self.delayed = False

    def foresee(self) -> None:
        """A departure was announced: from now on what was expected is compared with what comes."""
        self.compare()
        self._foreseen_w, self._begun = self._expected_w(), False
        self.unforeseen_s = abs(self._forecast_error) * self.met_in_s

    def jump(self, pct: float) -> None:
        """Both histories have so much more charge."""
        for charge in (self.charge, self.idle):
            charge.pct = min(100.0, max(1.0, charge.pct + pct))

    def _line_w(self, charge: Charge, work_w: float) -> float:
        offered_w = self.offered_w
        if not charge.full or not offered_w:
            return offered_w
        if self._charging.holds_by_grid and not self.asleep:
            return min(offered_w, (self.loads_w + work_w) / CHARGER_EFFICIENCY)
        return 0.0

    def _pack_w(self, charge: Charge, work_w: float) -> float:
        return self._line_w(charge, work_w) * CHARGER_EFFICIENCY - self.loads_w - work_w

    def _expected_w(self) -> float:
        """Into the pack, without work and without pauses."""
        return max(1.0, self.cable_w * CHARGER_EFFICIENCY - self.loads_w)

    def _count_unforeseen(self, seconds: float) -> None:
        self._begun = self._begun or self.shares.get(TARIFF) != 0
        if self._foreseen_w is not None and self.cable_w and self._begun:
            net_w = self.offered_w * CHARGER_EFFICIENCY - self.loads_w
            self.unforeseen_s += seconds * max(0.0, 1 - net_w / self._foreseen_w)

    def _turns_s(self, charge: Charge, rate: float) -> float:
        target_pct, below_pct = self._charging.target_pct, self._charging.recharges_below_pct
        if rate > 0 and not charge.full and self.offered_w:
            return max(0.0, (target_pct - charge.pct) / rate)
        if rate < 0 and charge.full and self.cable_w and below_pct is not None:
            return max(0.0, (target_pct - below_pct - charge.pct) / rate)
        return math.inf

    def _run(self, charge: Charge, seconds: float, work_w: float) -> None:
        """Through the end of charging and its start again."""
        while seconds > 0:
            rate = self._pack_w(charge, work_w) / self._pct_ws
            turns_s = self._turns_s(charge, rate)
            step_s = min(seconds, turns_s)
            charge.pct = min(100.0, max(0.0, charge.pct + rate * step_s))
            seconds -= step_s
            if step_s >= turns_s:
                charge.full = not charge.full
