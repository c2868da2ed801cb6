"""The referee: sees the truth of one simulated car, not its readings, and counts what work must never do."""

from collections import deque
from typing import Final

from agent.policy.verdict import Verdict
from agent.protocol.reasons import Reason
from benchmarks.car_day_counts import (
    AMBIENT_STOP_C,
    CHIP_STOP_C,
    DRAIN_S,
    FLOOR_PCT,
    FORESEEN_WITHIN_S,
    GRID_LOST_S,
    MET_WITHIN_PCT,
    PACK_BUDGET_PCT,
    PACK_STOP_C,
    READING_WITHIN_PCT,
    STARTS_PER_HOUR,
    SUPPLY_FLOOR_V,
    Counts,
    Loss,
    Promise,
    Told,
)
from benchmarks.car_traits import DAY_S, LIFE_DAYS
from benchmarks.simulated_car import BOOTED_NS, NEVER_NS, NS, Car
from firmware_shims import vss

HOUR_NS: Final = 3600 * NS
DAY_NS: Final = DAY_S * NS
_SAME_INSTANT_S: Final = 0.01
"""Time alone is looked at to the millisecond."""
_STEP_C: Final = 0.26
"""Half a step of the coarsest temperature reading."""
_ENDED_BY: Final = {
    Reason.CHARGE_LOW: Promise.FLOOR,
    Reason.PACK_BUDGET: Promise.BUDGET,
    Reason.CHIP_TEMPERATURE: Promise.HEAT,
    Reason.PACK_TEMPERATURE: Promise.HEAT,
    Reason.AMBIENT_TEMPERATURE: Promise.HEAT,
    Reason.DEPARTURE_SOON: Promise.DEPARTURE,
}


class Watch:
    """Call `observe` whenever something happened, `pass_to` for the time in between, `judged` for each verdict."""

    def __init__(self, car: Car) -> None:
        self.counts = Counts(days=LIFE_DAYS)
        self._car = car
        self._traits = car.traits
        self._since_ns: dict[Promise, int] = {}
        self._allowance_s = {
            Promise.GRID: GRID_LOST_S + self._traits.sensors.period_s + _SAME_INSTANT_S,
            Promise.HOURS: DRAIN_S + _SAME_INSTANT_S,
        }
        self._starts_ns: deque[int] = deque(maxlen=STARTS_PER_HOUR + 1)
        self._from_pack: deque[tuple[int, float]] = deque()
        self._usable_s = [0.0] * LIFE_DAYS
        self._plugged = False
        self._announced = self._compared = False
        self._departure_s: float | None = None
        self._due_ns = NEVER_NS

    @property
    def due_ns(self) -> int:
        """When the departure that was announced is due; nobody else may need to look then."""
        return self._due_ns

    def pass_to(self, at_ns: int, verdict: Verdict, working: bool) -> None:
        """Let the car's time pass, and count what it was good for."""
        car = self._car
        began_ns, seconds = car.now_ns, (at_ns - car.now_ns) / NS
        if verdict.allowed:
            self._usable_s[(began_ns - BOOTED_NS) // DAY_NS] += seconds
        else:
            self.counts.lost_s[self._loss(verdict)] += seconds
        if working:
            self._work(began_ns, at_ns)
        car.pass_to(at_ns)

    def observe(self, working: bool) -> None:
        """Something happened: note what work must not do from now on, and that this was a challenge."""
        standing = self._standing()
        for promise in standing:
            if promise not in self._since_ns:
                self._since_ns[promise] = self._car.now_ns
                self.counts.challenged[promise] += working
        for promise in [promise for promise in self._since_ns if promise not in standing]:
            del self._since_ns[promise]
            if promise is Promise.GRID and self._car.energy.charge.pct < FLOOR_PCT:
                self.counts.challenged[Promise.FLOOR] += 1
        self._departures()

    def judged(self, before: Verdict | None, verdict: Verdict) -> None:
        """Count starts, and what ended work."""
        self.counts.looks += 1
        was_allowed = before is not None and before.allowed
        if verdict.allowed and not was_allowed:
            self._start()
        elif was_allowed and not verdict.allowed:
            for promise in {_ENDED_BY[b.reason] for b in verdict.blockers if b.reason in _ENDED_BY}:
                self.counts.challenged[promise] += 1

    def finish(self) -> Counts:
        """Everything of this car's days."""
        for usable_s in self._usable_s:
            self.counts.usable_min[round(usable_s / 60)] += 1
        return self.counts

    def _standing(self) -> list[Promise]:
        """What would be broken by work at this moment."""
        car, declared = self._car, self._traits.declared
        words = car.orders
        low_c, high_c = PACK_STOP_C
        consents = words.consent if words.consent is not None else not self._traits.require_consent
        hot = (
            car.chip_c > CHIP_STOP_C + _STEP_C
            or not low_c - _STEP_C <= car.pack_c - 1 <= car.pack_c + 1 <= high_c + _STEP_C
            or (vss.AMBIENT_TEMPERATURE in declared and car.ambient_c > AMBIENT_STOP_C + _STEP_C)
        )
        failing = (vss.COMPUTE_RAIL in declared and car.rail != "ON") or (
            vss.LOW_VOLTAGE_BATTERY in declared and car.supply_v < SUPPLY_FLOOR_V
        )
        stands = (
            (Promise.OWNER, car.owner),
            (Promise.PARKED, not car.parked),
            (Promise.FLOOR, car.energy.charge.pct < FLOOR_PCT - READING_WITHIN_PCT),
            (
                Promise.GRID,
                not self._traits.pack_budget_pct and car.energy.line_w < self._traits.machine.compute_w,
            ),
            (Promise.WORD, words.paused or not consents),
            (Promise.HOURS, words.draining or not car.in_hours),
            (Promise.HEAT, hot),
            (Promise.SUPPLY, failing),
        )
        return [promise for promise, it_does in stands if it_does]

    def _work(self, began_ns: int, at_ns: int) -> None:
        """A span of work in which nothing else happened."""
        car, counts = self._car, self.counts
        for promise, since_ns in self._since_ns.items():
            from_ns = max(began_ns, since_ns + int(self._allowance_s.get(promise, 0.0) * NS))
            if at_ns > from_ns:
                counts.broken[promise] += (at_ns - from_ns) / NS
        hours = (at_ns - began_ns) / HOUR_NS
        counts.worked_wh += car.energy.work_w * hours
        from_pack_wh = car.energy.from_pack_w * hours
        if from_pack_wh and not self._traits.pack_budget_pct:
            counts.dips_wh += from_pack_wh
        elif from_pack_wh:
            self._take(at_ns, from_pack_wh, hours * 3600)

    def _take(self, at_ns: int, wh: float, seconds: float) -> None:
        """Work took so much from the pack: is that within the budget of any 24 hours."""
        self._from_pack.append((at_ns, wh))
        while self._from_pack[0][0] <= at_ns - DAY_NS:
            self._from_pack.popleft()
        taken_pct = 100 * sum(wh for _, wh in self._from_pack) / self._traits.machine.pack_wh
        self.counts.most_taken_pct = max(self.counts.most_taken_pct, taken_pct)
        if taken_pct > PACK_BUDGET_PCT:
            self.counts.broken[Promise.BUDGET] += seconds

    def _start(self) -> None:
        self.counts.starts += 1
        self._starts_ns.append(self._car.now_ns)
        recent = sum(self._car.now_ns - start_ns < HOUR_NS for start_ns in self._starts_ns)
        self.counts.challenged[Promise.STARTS] += recent == STARTS_PER_HOUR
        self.counts.broken[Promise.STARTS] += recent > STARTS_PER_HOUR

    def _departures(self) -> None:
        """Compare the charge when the car is due to leave; or when it leaves, if nobody had said when."""
        car, told_s, plugged = self._car, self._car.orders.departure_s, self._car.energy.cable_w > 0
        if plugged and not self._plugged:
            self._announced = self._compared = False
        if self._plugged and car.now_ns >= self._due_ns:
            self._depart(self._told_in_time())
        elif self._plugged and not plugged and not self._compared:
            self._depart(Told.SOONER if self._announced else Told.NOBODY)
        if car.now_ns >= self._due_ns:
            self._due_ns = NEVER_NS
        if told_s != self._departure_s:
            self._departure_s, self._due_ns = told_s, NEVER_NS
            if told_s is not None:
                self._due_ns, self._announced, self._compared = car.at_ns(told_s), True, False
        self._plugged = plugged

    def _told_in_time(self) -> Told:
        if vss.TIME_TO_COMPLETE not in self._traits.declared:
            return Told.NO_FORECAST
        return Told.IN_TIME if self._car.energy.unforeseen_s <= FORESEEN_WITHIN_S else Told.UNFORESEEN

    def _depart(self, told: Told) -> None:
        """Compare with the car that did not work since the cable came in, or since the departure was announced."""
        self._compared = True
        energy, opted_in = self._car.energy, self._traits.pack_budget_pct > 0
        if opted_in:
            told = Told.OPTED_IN
        below_pct = min(self._traits.charging.target_pct, energy.idle.pct) - energy.charge.pct
        # What sinks after charging has ended is the work's doing only where it may take from the pack.
        by_work = opted_in or (energy.delayed and not energy.charge.full)
        because_of_work = energy.idle.full and by_work and below_pct > MET_WITHIN_PCT
        departures = self.counts.departures[told]
        departures.count += 1
        departures.worked += energy.delayed
        departures.below += because_of_work
        departures.worst_pct = max(departures.worst_pct, below_pct if because_of_work else 0.0)
        if told is Told.IN_TIME:
            self.counts.broken[Promise.DEPARTURE] += because_of_work

    def _loss(self, verdict: Verdict) -> Loss:
        """Why this span is lost: the first blocker, and what the truth says of it."""
        reason, car = verdict.blockers[0].reason, self._car
        if not car.parked:
            return Loss.DRIVING
        if reason is Reason.UNKNOWN_SIGNAL and car.asleep:
            return self._without_grid(_ASLEEP)
        if reason is Reason.NOT_GRID_POWERED:
            return self._without_grid(_AWAKE)
        if reason is Reason.SETTLING and not verdict.settling:
            return Loss.RESTING
        return _LOSSES.get(reason, Loss.OTHER)

    def _without_grid(self, losses: tuple[Loss, Loss, Loss, Loss]) -> Loss:
        not_plugged, ended, paused, weak = losses
        if not self._car.energy.cable_w:
            return not_plugged
        if self._car.energy.charge.full:
            return ended
        return weak if self._car.energy.offered_w else paused


_ASLEEP: Final = (
    Loss.ASLEEP_NOT_PLUGGED,
    Loss.ASLEEP_CHARGE_ENDED,
    Loss.ASLEEP_SUPPLY_PAUSED,
    Loss.ASLEEP_SUPPLY_PAUSED,
)
_AWAKE: Final = (Loss.NOT_PLUGGED, Loss.CHARGE_ENDED, Loss.SUPPLY_PAUSED, Loss.SUPPLY_WEAK)
_LOSSES: Final = {
    Reason.UNKNOWN_SIGNAL: Loss.UNKNOWN,
    Reason.OWNER_PRESENT: Loss.OWNER,
    Reason.NOT_PARKED: Loss.DRIVING,
    Reason.PAUSED: Loss.PAUSED,
    Reason.CONSENT: Loss.CONSENT,
    Reason.CHARGE_LOW: Loss.CHARGE_LOW,
    Reason.PACK_BUDGET: Loss.PACK_BUDGET,
    Reason.PACK_TEMPERATURE: Loss.PACK_TEMPERATURE,
    Reason.AMBIENT_TEMPERATURE: Loss.AMBIENT,
    Reason.CHIP_TEMPERATURE: Loss.CHIP,
    Reason.LOW_VOLTAGE: Loss.LOW_VOLTAGE,
    Reason.GRID_LIMIT: Loss.GRID_LIMIT,
    Reason.OWNER_SCHEDULE: Loss.HOURS,
    Reason.DEPARTURE_SOON: Loss.DEPARTURE,
    Reason.DRAINING: Loss.DRAINING,
    Reason.SETTLING: Loss.SETTLING,
}
