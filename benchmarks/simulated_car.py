"""One simulated car: its states, its temperatures, its sleep, and what its sensors make of all that.

It knows nothing of the policy. Every quantity runs in closed form between two happenings, so a car is only stepped
where something happens: the charge runs in straight lines, the chip's temperature by its own time constant.
"""

import math
from dataclasses import replace
from typing import Final

from agent.policy.orders import Orders
from benchmarks.car_traits import Traits
from benchmarks.simulated_energy import Energy
from benchmarks.simulated_sensors import Sensors, stepped
from firmware_shims import vss
from firmware_shims.reading import Quality, Snapshot, Value

NS: Final = 1_000_000_000
BOOTED_NS: Final = 1000 * NS
NEVER_NS: Final = 1 << 62
PACK_V: Final = 360.0
SLEEPING_SUPPLY_V: Final = 12.7
_PACK_WARMS_S: Final = 12 * 3600.0
_COMPUTER_C: Final = 12.0
"""How much warmer an idle computer is than the air around it."""
_EMPTY_PCT, _FAST_CHARGED_PCT = 8.0, 55.0
_ANXIOUS_PCT: Final = 30.0
"""Below this an owner plugs in whatever the habit is."""
_SOC_MARKS: Final = (
    *(5, 12, 15, 17, 18, 19, 20, 21, 24, 25, 26, 30),
    *(35, 40, 45, 50, 55, 60, 65, 70, 75, 80, 85, 90, 95),
)
_CHIP_WORKING: Final = (80.0, 85.0, 88.0, 90.0, 91.0)
_CHIP_IDLE: Final = (75.0, 90.0)
_HOVERS_AT: Final = (80.0, 85.0, 88.0)
_HOVERS_S: Final = 300.0
"""Where more heat brings less power a temperature may hover for hours: it is looked at so often."""
_CURRENT_MARKS: Final = (-2.0, -0.5, 0.0, 1.0)
_PACK_MARKS: Final = (-5, -2, -1, 0, 1, 2, 4, 5, 6, 30, 34, 35, 36, 39, 40, 41, 45)
_AMBIENT_MARKS: Final = (-11, -10, -9, 37, 38, 39, 41, 42, 43)
_LEAST_STEP_PCT: Final = 0.5
_FORECAST_LOOK_S: Final = 300.0
_FORECAST_MOVED_S: Final = 120.0
_BEYOND_S: Final = 1e-3
"""A mark is looked at so long after it was reached: by then the reading shows it."""


class Car:
    """What can happen to it is a method; after one, or several at an instant, comes `settle`, and then time passes."""

    def __init__(self, traits: Traits, soc_pct: float) -> None:
        self.traits = traits
        self.now_ns = BOOTED_NS
        self.energy = Energy(traits, soc_pct)
        self.sensors = Sensors(traits.declared, _marks(traits))
        self.owner, self.parked = False, True
        self.orders = Orders()
        self.in_hours = not traits.schedule
        self.ambient_c = self.pack_c = traits.climate.mean_c
        self.chip_c = self.ambient_c + _COMPUTER_C
        self.rail = "ON"
        self.every_step = False
        """Every step of the charge's reading matters: to somebody who counts them."""
        self._begins_unix_s = traits.begins.timestamp()
        self._sun_c = 0.0
        self._dropped_out_v: float | None = None
        self._idle_since_ns = self.now_ns
        self._completes_s = 0.0
        self._stepped_pct = soc_pct
        self._soc_error_pct = traits.sensors.soc_error_pct
        self._shown_soc = stepped(traits.sensors.soc_step_pct)
        self._shown_line = stepped(traits.sensors.line_step_w)
        self._show_first()

    @property
    def asleep(self) -> bool:
        """Its bus is silent."""
        return self.energy.asleep

    @property
    def unix_s(self) -> float:
        """The wall clock."""
        return self._begins_unix_s + (self.now_ns - BOOTED_NS) / NS

    def at_ns(self, unix_s: float) -> int:
        """The boot-time clock at a time of the wall clock."""
        return BOOTED_NS + int((unix_s - self._begins_unix_s) * NS)

    @property
    def supply_v(self) -> float:
        """The low-voltage supply."""
        if self.asleep:
            return SLEEPING_SUPPLY_V
        return self.traits.machine.converter_v if self._dropped_out_v is None else self._dropped_out_v

    @property
    def line_is_read(self) -> bool:
        """Whether the last readings of the charge line and the pack's current still hold."""
        shown = (self.sensors.value(vss.CHARGE_LINE_POWER), self.sensors.value(vss.PACK_CURRENT))
        return shown == self._line()

    def snapshot(self) -> Snapshot:
        """What the agent sees now; valid until the car's next step."""
        return Snapshot(self.now_ns, self.sensors.readings)

    def pass_to(self, at_ns: int) -> None:
        """Let time go by; nothing happens in between."""
        seconds = (at_ns - self.now_ns) / NS
        end_c = self._chip_end_c()
        self.chip_c = end_c + (self.chip_c - end_c) * math.exp(-seconds / self.traits.machine.chip_tau_s)
        self.energy.run(seconds)
        self.now_ns = at_ns
        self._show_measured()

    def settle(self) -> None:
        """Wake or fall asleep, as what has happened demands."""
        resting = self._at_rest()
        if not resting:
            self._idle_since_ns = self.now_ns
        if self.asleep is not (resting and (self.asleep or self.now_ns >= self._sleeps_ns())):
            self.energy.asleep = not self.asleep
            self._idle_since_ns = self.now_ns
            self._show_supply()
            self.sensors.silence(self.asleep, self.now_ns)

    def next_ns(self) -> int:
        """When something would next happen by itself: a mark that is passed, the end of charging, sleep."""
        after_s = min(
            self.energy.turns_s(), self._soc_mark_s(), self._chip_mark_s(), self._forecast_look_s(), 1e8
        )
        at_ns = self.now_ns + int((after_s + _BEYOND_S) * NS)
        if self.asleep or not self._at_rest():
            return at_ns
        return min(at_ns, max(self.now_ns, self._sleeps_ns()))

    # What can happen to it.

    def show(self, path: str, value: Value) -> None:
        """A state of the car changes."""
        self.sensors.show(path, value, self.now_ns)

    def touch(self, values: dict[str, Value], *, owner: bool) -> None:
        """Somebody does something to the car, and is there from now on or not."""
        self.owner = owner
        for path, value in values.items():
            self.show(path, value)

    def switch_off(self) -> None:
        """It does so by itself a while after its owner has gone, unless there is somebody again."""
        if not self.owner:
            self.show(vss.LOW_VOLTAGE_STATE, "OFF")

    def drive(self) -> None:
        """Leave."""
        self.parked = False
        self.energy.unplug()
        self.energy.loads.clear()
        driving: dict[str, Value] = {
            **dict.fromkeys(vss.DOORS, False),
            vss.LOW_VOLTAGE_STATE: "ON",
            vss.GEAR: vss.GEAR_DRIVE,
            vss.SPEED: 40.0,
            vss.DRIVER_SEAT: True,
            vss.BRAKE: 0.0,
            vss.CABLE_CONNECTED: False,
        }
        self.touch(driving, owner=True)

    def park(self, used_wh: float) -> None:
        """Arrive; who would arrive empty has been to a fast charger."""
        self.parked = True
        pct = self.energy.charge.pct
        left_pct = pct - 100 * used_wh / self.traits.machine.pack_wh
        self.calibrate((left_pct if left_pct > _EMPTY_PCT else _FAST_CHARGED_PCT) - pct)
        self.pack_c += 4
        self._show_weather()
        self.touch({vss.GEAR: vss.GEAR_PARK, vss.SPEED: 0.0}, owner=True)

    def roll(self, speed_kmh: float) -> None:
        """The parked car is moved, by a slope or a tow truck; 0: it stands again."""
        self.parked = not speed_kmh
        self.show(vss.SPEED, speed_kmh)

    def plug_in(self, watts: float, in_the_mood: bool) -> None:
        """The owner puts the cable in, or does not."""
        if in_the_mood or self.energy.charge.pct < _ANXIOUS_PCT:
            self.energy.plug_in(watts)
            if self.orders.departure_s is not None:
                self.energy.foresee()
            self.show(vss.CABLE_CONNECTED, True)

    def supply(self, cause: str, share: float) -> None:
        """The wallbox offers this share of its power."""
        self.energy.shares[cause] = share

    def load(self, name: str, watts: float) -> None:
        """Something in the car draws so much; 0: no more."""
        self.energy.loads.pop(name, None)
        if watts:
            self.energy.loads[name] = watts

    def order(self, orders: Orders) -> None:
        """Somebody says something."""
        if orders.departure_s != self.orders.departure_s and orders.departure_s is not None:
            self.energy.foresee()
        self.orders = orders
        self.sensors.changed = True

    def leave_when_met(self, spare_s: float) -> None:
        """The owner asks the car when its charge will be met, and says to leave then, or so much later."""
        if self.energy.cable_w and not self.energy.charge.full:
            self.order(replace(self.orders, departure_s=self.unix_s + self.energy.met_in_s + spare_s))

    def hours(self, *, inside: bool) -> None:
        """One of the owner's weekly windows begins or ends; the agent has a clock of its own for that."""
        self.in_hours = inside

    def calibrate(self, jump_pct: float) -> None:
        """The charge is found to be another one than was thought."""
        self.energy.jump(jump_pct)
        self._show_measured()

    def err(self, soc_error_pct: float) -> None:
        """The charge is read with another error."""
        self._soc_error_pct = soc_error_pct
        self._show_measured()

    def fail(self, path: str, quality: Quality | None) -> None:
        """A sensor fails, or is well again."""
        self.sensors.fail(path, quality, self.now_ns)

    def converter(self, dropped_out_v: float | None) -> None:
        """The low-voltage converter drops out, to the battery's voltage; None: it is back."""
        self._dropped_out_v = dropped_out_v
        self._show_supply()

    def power_rail(self, state: str) -> None:
        """The supply of the computer itself."""
        self.rail = state
        self.show(vss.COMPUTE_RAIL, state)

    def weather(self, ambient_c: float, sun_c: float, since_s: float) -> None:
        """The air around the car; the pack follows it slowly, and is warmed to be charged in the cold."""
        self.ambient_c, self._sun_c = ambient_c, sun_c
        self.pack_c += (ambient_c - self.pack_c) * (1 - math.exp(-since_s / _PACK_WARMS_S))
        if self.energy.line_w > 1000:
            self.pack_c = max(8.0, self.pack_c)
        self._show_weather()

    def read_line(self) -> None:
        """The charge line and the pack's current are read."""
        line_w, current_a = self._line()
        self.show(vss.CHARGE_LINE_POWER, line_w)
        self.show(vss.PACK_CURRENT, current_a)

    # Its own.

    def _at_rest(self) -> bool:
        return not (self.owner or not self.parked or self.energy.loads or self.energy.line_w > 0)

    def _sleeps_ns(self) -> int:
        return self._idle_since_ns + int(self.traits.machine.sleeps_after_s * NS)

    def _line(self) -> tuple[float, float]:
        current_a = self.energy.pack_w / PACK_V + self.traits.sensors.current_error_a
        return self._shown_line(self.energy.line_w), round(current_a, 2)

    def _soc_mark_s(self) -> float:
        rate = self.energy.pct_per_s
        if not rate:
            return math.inf
        read = self.energy.charge.pct + self._soc_error_pct
        if self.every_step:
            step = max(_LEAST_STEP_PCT, self.traits.sensors.soc_step_pct)
            below = math.floor(read / step) * step
            return (below + step - read) / rate if rate > 0 else (below - read) / rate
        if rate > 0:
            return next(((mark - read) / rate for mark in _SOC_MARKS if mark > read), math.inf)
        return next(((mark - read) / rate for mark in reversed(_SOC_MARKS) if mark <= read), math.inf)

    def _chip_end_c(self) -> float:
        """Where the chip's temperature would end if all stayed as it is."""
        machine = self.traits.machine
        work_c = machine.chip_rise_c * self.energy.work_w / machine.compute_w
        return self.ambient_c + self._sun_c + (0.0 if self.asleep else _COMPUTER_C) + work_c

    def _chip_mark_s(self) -> float:
        end_c, tau_s = self._chip_end_c(), self.traits.machine.chip_tau_s
        low_c, high_c = sorted((end_c, self.chip_c))
        after_s = math.inf
        for mark in _CHIP_WORKING if self.energy.work_w else _CHIP_IDLE:
            if low_c < mark < high_c:
                reached_s = tau_s * math.log((self.chip_c - end_c) / (mark - end_c))
                after_s = min(after_s, max(reached_s, _HOVERS_S) if mark in _HOVERS_AT else reached_s)
        return after_s

    def _forecast_look_s(self) -> float:
        """The time to complete is looked at the more often the nearer it comes to the departure."""
        if self.orders.departure_s is None or not self.energy.line_w:
            return math.inf
        slack_s = self.orders.departure_s - self.unix_s - self.energy.to_complete_s
        return max(_FORECAST_LOOK_S, abs(slack_s) / 4)

    def _show_first(self) -> None:
        states: dict[str, Value] = {
            **dict.fromkeys(vss.DOORS, False),
            vss.LOW_VOLTAGE_STATE: "OFF",
            vss.DRIVER_SEAT: False,
            vss.BRAKE: 0.0,
            vss.DRIVER_LOCK: self.traits.habits.locks,
            vss.GEAR: vss.GEAR_PARK,
            vss.SPEED: 0.0,
            vss.CABLE_CONNECTED: False,
            vss.COMPUTE_RAIL: "ON",
            vss.GRID_LIMIT: 400.0,
        }
        self.touch(states, owner=False)
        self.read_line()
        self._show_supply()
        self._show_weather()
        self._show_measured()

    def _show_measured(self) -> None:
        soc_pct = self._shown_soc(min(100.0, max(0.0, self.energy.charge.pct + self._soc_error_pct)))
        self.show(vss.SOC, soc_pct)
        if self.every_step and abs(soc_pct - self._stepped_pct) >= _LEAST_STEP_PCT:
            self._stepped_pct = soc_pct
            self.sensors.changed = True
        self.show(vss.CHIP_TEMPERATURE, math.floor(self.chip_c * 10) / 10)
        to_complete_s = self.energy.to_complete_s
        self.show(vss.TIME_TO_COMPLETE, to_complete_s)
        completes_s = self.unix_s + to_complete_s if to_complete_s else 0.0
        if self.orders.departure_s is not None and abs(completes_s - self._completes_s) > _FORECAST_MOVED_S:
            self._completes_s = completes_s
            self.sensors.changed = True

    def _show_weather(self) -> None:
        self.show(vss.AMBIENT_TEMPERATURE, round(self.ambient_c * 2) / 2)
        self.show(vss.PACK_TEMPERATURE_MIN, round(self.pack_c - 1, 1))
        self.show(vss.PACK_TEMPERATURE_MAX, round(self.pack_c + 1, 1))

    def _show_supply(self) -> None:
        self.show(vss.LOW_VOLTAGE_BATTERY, round(self.supply_v, 2))


def _marks(traits: Traits) -> dict[str, tuple[float, ...]]:
    need_w = traits.machine.compute_w
    return {
        vss.SOC: _SOC_MARKS,
        vss.CHIP_TEMPERATURE: (*_CHIP_IDLE, *_CHIP_WORKING),
        vss.CHARGE_LINE_POWER: (1.0, need_w, 1.1 * need_w, 2 * need_w),
        vss.PACK_CURRENT: _CURRENT_MARKS,
        vss.PACK_TEMPERATURE_MIN: _PACK_MARKS,
        vss.PACK_TEMPERATURE_MAX: _PACK_MARKS,
        vss.AMBIENT_TEMPERATURE: _AMBIENT_MARKS,
        vss.TIME_TO_COMPLETE: (),
    }
