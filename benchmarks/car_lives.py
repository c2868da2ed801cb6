"""What happens to a simulated car in its days, drawn before any of it is judged.

The same car has the same life whatever the policy does, so that two policies can be compared.
"""

import datetime as dt
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Concatenate, Final, ParamSpec

from agent import stay_prior
from agent.policy.stay import EDGES_S
from benchmarks.car_traits import DAY_S, LIFE_DAYS, Traits, dice
from benchmarks.simulated_car import BOOTED_NS, NS, Car
from benchmarks.simulated_energy import TARIFF
from firmware_shims import vss
from firmware_shims.reading import Quality, Value

P = ParamSpec("P")
Happening = tuple[int, int, Callable[[Car], None]]
"""When (boot-time nanoseconds), the order of those at one instant, and what it does to the car."""
HOUR_S: Final = 3600.0
END_S: Final = float(LIFE_DAYS * DAY_S)
_WEATHER_S: Final = 3 * HOUR_S
_SATURDAY: Final = 5
_DRIVING_W: Final = 7200.0
_WH_PER_DRIVEN_S: Final = _DRIVING_W / HOUR_S


_CUES: Final[tuple[tuple[str, Value, Value], ...]] = (
    (vss.DRIVER_LOCK, False, True),
    *((door, True, False) for door in vss.DOORS),
    (vss.DRIVER_DOOR, True, False),
    (vss.DRIVER_SEAT, True, False),
    (vss.BRAKE, 12.0, 0.0),
    (vss.LOW_VOLTAGE_STATE, "ACC", "OFF"),
)
"""What somebody may do first, and how it is undone; the driver's door is the likeliest."""


@dataclass(frozen=True, slots=True)
class Stay:
    """A car parked somewhere, from the moment it stands until somebody comes to drive it away."""

    from_s: float
    until_s: float
    place: str
    driven_s: float


class Life:
    """Draws everything that happens to one car."""

    def __init__(self, traits: Traits) -> None:
        self._traits = traits
        self._rng = dice(traits.seed, "life")
        self._happenings: list[Happening] = []
        seen = traits.declared - (frozenset() if traits.habits.locks else {vss.DRIVER_LOCK})
        self._cues = [cue for cue in _CUES if cue[0] in seen]

    def happenings(self) -> list[Happening]:
        """All of it, in order."""
        self._weather()
        self._words()
        self._hours()
        for stay in self._stays():
            self._stay(stay)
        self._happenings.sort(key=lambda happening: happening[:2])
        return self._happenings

    def _at(
        self, at_s: float, what: Callable[Concatenate[Car, P], None], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        if 0 <= at_s < END_S:
            at_ns = BOOTED_NS + int(at_s * NS)
            self._happenings.append((at_ns, len(self._happenings), lambda car: what(car, *args, **kwargs)))

    def _times(self, per_day: float, from_s: float, until_s: float) -> Iterator[float]:
        """Instants that come at random, so many a day."""
        at_s = from_s
        while per_day:
            at_s += self._rng.expovariate(per_day / DAY_S)
            if at_s >= until_s:
                return
            yield at_s

    def _log_uniform(self, low: float, high: float) -> float:
        return math.exp(self._rng.uniform(math.log(low), math.log(high)))

    # Where it is.

    def _stays(self) -> Iterator[Stay]:
        """One after the other; the car begins at home."""
        from_s, place, driven_s = 0.0, "home", 0.0
        for day in range(LIFE_DAYS):
            for leave_h, next_place, stay_s in self._outings(day):
                leave_s = max(day * DAY_S + leave_h * HOUR_S, from_s + 900.0)
                if leave_s >= END_S:
                    break
                yield Stay(from_s, leave_s, place, driven_s)
                drive_s = self._log_uniform(400, 4000)
                yield Stay(leave_s + drive_s, leave_s + drive_s + stay_s, next_place, drive_s)
                driven_s = self._log_uniform(400, 4000)
                from_s, place = leave_s + drive_s + stay_s + driven_s, "home"
        if from_s < END_S:
            yield Stay(from_s, END_S + HOUR_S, place, driven_s)

    def _outings(self, day: int) -> list[tuple[float, str, float]]:
        """When it leaves home on this day (hour), for where, and how long it stays there."""
        rng, habits = self._rng, self._traits.habits
        weekday = (self._traits.begins.weekday() + day) % 7
        if habits.commutes and weekday < _SATURDAY and rng.random() < 0.92:
            leave_h = min(12.0, max(4.0, rng.gauss(habits.leaves_h, 0.4)))
            outings = [(leave_h, "work", self._at_work_s(weekday, int(leave_h)))]
            if rng.random() < 0.2:
                outings.append((rng.uniform(19, 20.5), "elsewhere", self._log_uniform(1800, 9000)))
            return outings
        hours = sorted(rng.uniform(8.5, 20) for _ in range(rng.choices((0, 1, 2), (0.3, 0.45, 0.25))[0]))
        return [(hour, "elsewhere", self._log_uniform(900, 18_000)) for hour in hours]

    def _at_work_s(self, weekday: int, hour: int) -> float:
        """As long as cars really stay at work that arrive then."""
        share, curve = self._rng.random(), _curves()[hour + 24 * (weekday >= _SATURDAY)]
        stay_s = next(
            (edge_s for edge_s, staying in zip(EDGES_S, curve, strict=True) if staying <= share), EDGES_S[-1]
        )
        return min(11 * HOUR_S, max(1200.0, stay_s + self._rng.uniform(-150, 150)))

    # What happens while it stands.

    def _stay(self, stay: Stay) -> None:
        rng = self._rng
        away_s = stay.from_s
        if stay.driven_s:
            self._at(stay.from_s, Car.park, stay.driven_s * _WH_PER_DRIVEN_S)
            out_s = stay.from_s + self._log_uniform(5, 300)
            away_s = min(out_s + self._log_uniform(4, 60), stay.until_s - 300)
            self._get_out(min(out_s, away_s - 1), away_s)
        self._plug(stay, away_s)
        self._visits(away_s, stay.until_s)
        self._draws(away_s, stay.until_s)
        self._faults(away_s, stay.until_s)
        if rng.random() < self._traits.habits.announces:
            self._announce(away_s, stay.until_s)
        self._leave(stay.until_s)

    def _get_out(self, out_s: float, away_s: float) -> None:
        self._at(
            out_s,
            Car.touch,
            {vss.DRIVER_DOOR: True, vss.DRIVER_SEAT: False, vss.DRIVER_LOCK: False, vss.BRAKE: 0.0},
            owner=True,
        )
        closed: dict[str, Value] = {vss.DRIVER_DOOR: False, vss.DRIVER_LOCK: self._traits.habits.locks}
        if self._rng.random() < 0.7:
            closed[vss.LOW_VOLTAGE_STATE] = "OFF"
        else:
            self._at(away_s + self._rng.uniform(1, 120), Car.switch_off)
        self._at(away_s, Car.touch, closed, owner=False)

    def _leave(self, until_s: float) -> None:
        """Somebody comes: one cue first, the drive later."""
        path, value, _ = self._rng.choice(self._cues)
        self._at(until_s, Car.touch, {path: value}, owner=True)
        self._at(until_s + self._rng.uniform(10, 240), Car.drive)

    def _visits(self, from_s: float, until_s: float) -> None:
        """The owner touches the car and goes away again."""
        for at_s in self._times(self._traits.habits.visits_per_day, from_s + 30, until_s - 30):
            path, value, after = self._rng.choice(self._cues)
            gone_s = min(at_s + self._log_uniform(2, 1500), until_s - 5)
            self._at(at_s, Car.touch, {path: value}, owner=True)
            self._at(gone_s, Car.touch, {vss.LOW_VOLTAGE_STATE: "OFF", path: after}, owner=False)
        for at_s in self._times(0.1, from_s, until_s - 100):
            self._at(at_s, Car.roll, self._rng.uniform(1, 5))
            self._at(at_s + self._log_uniform(3, 60), Car.roll, 0.0)

    def _announce(self, away_s: float, until_s: float) -> None:
        """The owner says when to leave, mostly at once, and is not quite in time."""
        rng = self._rng
        if rng.random() < 0.3:
            self._at(away_s + rng.uniform(100, 3000), Car.leave_when_met, rng.uniform(0, 1500))
            return
        said_s = away_s + 1 if rng.random() < 0.7 else away_s + rng.random() * 0.8 * (until_s - away_s)
        leaves_s = until_s + rng.gauss(-500, 400)
        unix_s = self._traits.begins.timestamp() + leaves_s
        if leaves_s > said_s + 60:
            self._at(said_s, _announced, unix_s)
            if rng.random() < 0.7:
                self._at(until_s + 5, _announced, None)

    def _plug(self, stay: Stay, away_s: float) -> None:
        rng, charging = self._rng, self._traits.charging
        watts = {"home": charging.home_w, "work": charging.work_w}.get(stay.place, 0.0)
        if not watts:
            return
        self._at(away_s, Car.plug_in, watts, rng.random() < charging.plugs_in)
        if stay.place == "home" and charging.from_h is not None:
            self._tariff(away_s, stay.until_s, charging.from_h)
        if charging.supply == "managed":
            self._managed(away_s, stay.until_s)
        if charging.supply == "solar" and stay.place == "home":
            self._solar(away_s, stay.until_s)
        bursts_per_day = 1.0 if charging.supply == "flaky" else 0.03
        for at_s in self._times(bursts_per_day, away_s, stay.until_s):
            self._burst(
                at_s,
                stay.until_s,
                partial(Car.supply, cause="burst", share=0.0),
                partial(Car.supply, cause="burst", share=1.0),
            )
        for at_s in self._times(0.02, away_s, stay.until_s):
            self._at(at_s, Car.supply, "mains", 0.0)
            self._at(at_s + self._log_uniform(30, 4 * HOUR_S), Car.supply, "mains", 1.0)

    def _tariff(self, from_s: float, until_s: float, from_h: float) -> None:
        """Charging waits for the cheap hours: seven of them a day."""
        hour = from_s / HOUR_S % 24
        self._at(from_s, Car.supply, TARIFF, float((hour - from_h) % 24 < 7))
        for day in range(int(from_s // DAY_S), int(until_s // DAY_S) + 1):
            for at_h, share in ((from_h, 1.0), (from_h + 7, 0.0)):
                at_s = day * DAY_S + at_h % 24 * HOUR_S
                if from_s < at_s < until_s:
                    self._at(at_s, Car.supply, TARIFF, share)
        self._at(until_s, Car.supply, TARIFF, 1.0)

    def _managed(self, from_s: float, until_s: float) -> None:
        """Others need the current: the wallbox pauses, or gives less."""
        for at_s in self._times(8, from_s, until_s):
            self._at(at_s, Car.supply, "manager", self._rng.choice((0.0, 0.0, 0.02, 0.2, 0.5)))
            self._at(min(until_s, at_s + self._log_uniform(20, 2400)), Car.supply, "manager", 1.0)

    def _solar(self, from_s: float, until_s: float) -> None:
        """Only what the roof gives: nothing at night, and clouds."""
        at_s = from_s
        while at_s < until_s:
            hour = at_s / HOUR_S % 24
            if not 9 <= hour < 17:
                self._at(at_s, Car.supply, "sun", 0.0)
                at_s += ((9 - hour) % 24) * HOUR_S + self._rng.uniform(1, 1200)
                continue
            self._at(at_s, Car.supply, "sun", 1.0)
            at_s += self._log_uniform(60, 7200)
            if self._rng.random() < 0.8:
                self._at(at_s, Car.supply, "sun", 0.0)
                at_s += self._log_uniform(10, 1800)
        self._at(until_s, Car.supply, "sun", 1.0)

    def _burst(
        self, at_s: float, until_s: float, off: Callable[[Car], None], on: Callable[[Car], None]
    ) -> None:
        """Off and on again many times, some of them faster than anything settles."""
        slowest_s = self._rng.choice((2.0, 20.0, 200.0))
        for _ in range(self._rng.randint(5, 25)):
            back_s = at_s + self._log_uniform(0.2, slowest_s)
            if back_s >= until_s:
                return
            self._at(at_s, off)
            self._at(back_s, on)
            at_s = back_s + self._log_uniform(0.2, 4 * slowest_s)

    def _draws(self, from_s: float, until_s: float) -> None:
        """What else draws on the pack."""
        rng = self._rng
        if self._traits.habits.sentry_w:
            self._at(from_s + 60, Car.load, "sentry", self._traits.habits.sentry_w)
            self._at(until_s, Car.load, "sentry", 0.0)
        if rng.random() < 0.25:
            self._at(until_s - rng.uniform(300, 1200), Car.load, "preconditioning", rng.uniform(1500, 4000))
        for per_day, name, low_w, high_w, low_s, high_s in (
            (0.7, "telematics", 20.0, 60.0, 100.0, 600.0),
            (0.1, "cabin protection", 400.0, 2500.0, 1800.0, 7 * HOUR_S),
        ):
            for at_s in self._times(per_day, from_s, until_s):
                self._at(at_s, Car.load, name, rng.uniform(low_w, high_w))
                self._at(min(until_s, at_s + self._log_uniform(low_s, high_s)), Car.load, name, 0.0)

    def _faults(self, from_s: float, until_s: float) -> None:
        """Sensors that die for a while, a converter that drops out, a rail that goes down, a charge that jumps."""
        rng, paths = self._rng, sorted(self._traits.declared)
        for at_s in self._times(0.1, from_s, until_s):
            bad = partial(
                Car.fail, path=rng.choice(paths), quality=rng.choice((Quality.STALE, Quality.INVALID))
            )
            well = partial(Car.fail, path=bad.keywords["path"], quality=None)
            if rng.random() < 0.1:
                self._burst(at_s, until_s, bad, well)
            else:
                self._at(at_s, bad)
                self._at(at_s + self._log_uniform(0.5, 4 * HOUR_S), well)
        for at_s in self._times(0.15, from_s, until_s):
            self._at(at_s, Car.converter, rng.choice((12.6, 12.2, 11.5)))
            self._at(at_s + self._log_uniform(1, 1800), Car.converter, None)
        for at_s in self._times(0.15, from_s, until_s):
            self._at(at_s, Car.power_rail, rng.choice(("GOING_DOWN", "FAULT")))
            self._at(at_s + self._log_uniform(0.2, 600), Car.power_rail, "ON")
        for at_s in self._times(0.03, from_s, until_s):
            self._at(at_s, Car.calibrate, rng.uniform(-12, 5))
        for at_s in self._times(0.1, from_s, until_s):
            self._at(at_s, Car.err, self._traits.sensors.soc_error_pct + rng.uniform(-0.5, 0.5))

    # What does not depend on where it stands.

    def _weather(self) -> None:
        traits, rng = self._traits, self._rng
        clear, offset_c = 0.0, 0.0
        for step in range(int(END_S / _WEATHER_S)):
            at_s = step * _WEATHER_S
            hour = at_s / HOUR_S % 24
            if not hour:
                clear, offset_c = rng.random(), rng.gauss(0, 3)
            day = (traits.begins + dt.timedelta(seconds=at_s)).timetuple().tm_yday
            sun_c = clear * traits.machine.sun_c if 9 <= hour < 18 else 0.0
            ambient_c = traits.climate.ambient_c(day, hour) + offset_c
            self._at(at_s, Car.weather, ambient_c, sun_c, _WEATHER_S if step else 5 * DAY_S)

    def _words(self) -> None:
        """What the owner, the vehicle's operating system, the fleet and the grid say."""
        rng = self._rng
        given_s = rng.uniform(0, 2 * DAY_S) if rng.random() < 0.5 else 1.0
        if self._traits.require_consent:
            self._at(given_s, _consenting, True)
        for at_s in self._times(0.05, 3 * DAY_S, END_S):
            self._at(at_s, _consenting, False)
            self._at(at_s + self._log_uniform(60, 20 * HOUR_S), _consenting, True)
        for at_s in self._times(0.1, 0, END_S):
            self._at(at_s, _draining, True)
            self._at(at_s + self._log_uniform(10, 6 * HOUR_S), _draining, False)
        for at_s in self._times(0.2, 0, END_S):
            self._at(at_s, _paused, True)
            self._at(at_s + self._log_uniform(1, 2000), _paused, False)
        if vss.GRID_LIMIT in self._traits.declared:
            for at_s in self._times(4, 0, END_S):
                self._at(at_s, Car.show, vss.GRID_LIMIT, rng.choice((0.0, 20.0, 60.0, 200.0, 400.0)))

    def _hours(self) -> None:
        """The owner's weekly windows, as the clocks of the place show them."""
        begins, zone = self._traits.begins, self._traits.begins.tzinfo
        edges: list[tuple[float, int]] = []
        for day in range(-1, LIFE_DAYS + 2):
            date = begins.date() + dt.timedelta(days=day)
            for window in self._traits.schedule:
                if date.weekday() in window.days:
                    ends = date + dt.timedelta(days=int(window.to_h <= window.from_h or window.to_h == 24))
                    for on, hour, change in ((date, window.from_h, 1), (ends, window.to_h % 24, -1)):
                        edge = dt.datetime.combine(on, dt.time(hour), zone)
                        edges.append((edge.timestamp() - begins.timestamp(), change))
        depth = 0
        for at_s, change in sorted(edges):
            depth += change
            self._at(max(0.0, at_s), Car.hours, inside=depth > 0)


def _announced(car: Car, unix_s: float | None) -> None:
    car.order(replace(car.orders, departure_s=unix_s))


def _consenting(car: Car, given: bool) -> None:
    car.order(replace(car.orders, consent=given))


def _draining(car: Car, draining: bool) -> None:
    car.order(replace(car.orders, draining=draining))


def _paused(car: Car, paused: bool) -> None:
    car.order(replace(car.orders, paused=paused))


@lru_cache(maxsize=1)
def _curves() -> tuple[tuple[float, ...], ...]:
    return stay_prior.load(None).prior.curves
