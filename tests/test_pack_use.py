"""What work takes from the traction battery, against a battery whose true charge no car tells."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

import pytest
from cars import FULLY_EQUIPPED, NS
from hypothesis import given, settings
from hypothesis import strategies as st
from stories import Story

from agent.policy.memory import FRESH
from agent.policy.pack_use import DAY_NS, PackUse
from agent.policy.settings import PolicySettings
from firmware_shims import vss
from firmware_shims.reading import Quality

HOUR_S: Final = 3600.0
CHARGING_PCT_PER_H: Final = 40.0
ROUNDINGS: Final[dict[str, Callable[[float], int]]] = {"down": math.floor, "up": math.ceil, "nearest": round}
GRAIN: Final = 10
"""The reading is looked at so often while it goes one step."""


@dataclass
class Battery:
    """A battery that falls while work runs on it, and a car that tells its charge in steps."""

    budget_pct: float
    step_pct: float
    rounding: str
    work_pct_per_h: float
    true_pct: float
    story: Story = field(init=False)
    used: list[tuple[int, int]] = field(default_factory=list)
    """When work has run on the pack: begin and end."""

    def __post_init__(self) -> None:
        opted_in = PolicySettings(
            require_grid_proof=False, pack_budget_pct_per_day=self.budget_pct, starts_per_hour=60
        )
        self.story = Story(opted_in)
        self.grid(False)

    @property
    def shown_pct(self) -> float:
        steps = ROUNDINGS[self.rounding](round(self.true_pct / self.step_pct, 9))
        return min(100.0, round(steps * self.step_pct, 6))

    def grid(self, there: bool) -> None:
        self.story.change(vss.CHARGE_LINE_POWER, 7200.0 if there else 0.0, Quality.GOOD)
        self.story.change(vss.CABLE_CONNECTED, there, Quality.GOOD)
        self.tell()

    def tell(self) -> None:
        self.story.change(vss.SOC, self.shown_pct, Quality.GOOD)
        self.story.look()

    def wait(self, seconds: float) -> None:
        """Go on in steps in which the reading changes at most once, and look right when it does."""
        end_ns = self.story.now_ns + int(seconds * NS)
        while self.story.now_ns < end_ns:
            begin_ns, works = self.story.now_ns, self.story.verdict.on_pack
            rate = self._pct_per_h()
            quiet_s = HOUR_S * 2 if not rate else max(self.step_pct / GRAIN / abs(rate) * HOUR_S, 0.001)
            self.story.pass_until(min(self.story.due_ns(end_ns), begin_ns + int(quiet_s * NS)))
            self.true_pct = min(100.0, self.true_pct + rate * (self.story.now_ns - begin_ns) / NS / HOUR_S)
            if works:
                self.used.append((begin_ns, self.story.now_ns))
            self.tell()
            self.check()

    def _pct_per_h(self) -> float:
        if self.story.car.values[vss.CABLE_CONNECTED]:
            return CHARGING_PCT_PER_H if self.true_pct < 90 else 0.0
        return -self.work_pct_per_h if self.story.verdict.on_pack else 0.0

    def check(self) -> None:
        """True use by work in the 24 hours up to now."""
        since_ns = self.story.now_ns - DAY_NS
        self.used = [span for span in self.used if span[1] > since_ns]
        used_ns = sum(end - max(begin, since_ns) for begin, end in self.used)
        used_pct = used_ns / NS / HOUR_S * self.work_pct_per_h
        assert used_pct <= self.budget_pct + self.step_pct / GRAIN + 1e-9


steps = st.one_of(
    st.tuples(st.just("wait"), st.sampled_from([60.0, 90.0, HOUR_S, 6 * HOUR_S, 25 * HOUR_S])),
    st.tuples(st.just("wait"), st.floats(1, 4 * HOUR_S)),
    st.tuples(st.just("charge"), st.floats(31, 3000)),
    st.tuples(st.just("restart"), st.just(0.0)),
    st.tuples(st.just("door"), st.floats(1, HOUR_S)),
    st.tuples(st.just("drive"), st.floats(1, HOUR_S)),
)


def lives(battery: Battery, kind: str, seconds: float) -> None:
    story = battery.story
    if kind == "charge":
        battery.grid(True)
        battery.wait(seconds)
        battery.grid(False)
    elif kind == "restart":
        story.memory = replace(FRESH, pack_use=story.memory.pack_use)
        battery.tell()
    elif kind in {"door", "drive"}:
        path, value = (vss.DRIVER_DOOR, True) if kind == "door" else (vss.GEAR, vss.GEAR_DRIVE)
        story.change(path, value, Quality.GOOD)
        battery.tell()
        battery.wait(seconds)
        story.change(path, FULLY_EQUIPPED[path], Quality.GOOD)
        battery.tell()
    battery.wait(seconds if kind == "wait" else 100)


batteries = st.builds(
    Battery,
    budget_pct=st.sampled_from([1.1, 2.0, 2.5, 5.0]),
    step_pct=st.sampled_from([0.1, 1.0]),
    rounding=st.sampled_from(sorted(ROUNDINGS)),
    work_pct_per_h=st.sampled_from([0.5, 3.0, 20.0]),
    true_pct=st.floats(61, 90),
)


@settings(max_examples=50)
@given(batteries, st.lists(steps, max_size=10))
def test_work_never_takes_more_than_the_budget_in_any_24_hours(
    battery: Battery, history: list[tuple[str, float]]
) -> None:
    battery.wait(100)
    for kind, seconds in history:
        lives(battery, kind, seconds)


@pytest.mark.parametrize("step_pct", [0.1, 1.0])
def test_most_of_the_budget_can_be_used_each_day(step_pct: float) -> None:
    battery = Battery(5.0, step_pct, "down", work_pct_per_h=3.0, true_pct=90.5)
    battery.wait(20 * HOUR_S)
    used_pct = 90.5 - battery.true_pct
    assert 4.0 - step_pct <= used_pct <= 5.0
    battery.wait(24 * HOUR_S)
    assert 2 * (4.0 - step_pct) <= 90.5 - battery.true_pct <= 10.0


def test_what_is_kept_is_bounded_however_the_reading_jumps() -> None:
    use = PackUse().begun(60.0)
    for minute in range(3 * 24 * 60):
        for soc_pct in (59.0, 60.0):
            use = use.followed(soc_pct, minute * 60 * NS)
    assert len(use.taken) <= 24 * 60
    assert use.used_pct(3 * DAY_NS) > 24 * 59


def test_what_falls_while_the_charge_was_not_known_counts() -> None:
    use = PackUse().begun(60.0).followed(None, 1 * NS).followed(58.0, 2 * NS)
    assert use.used_pct(2 * NS) == 2.0


def test_before_any_work_on_the_pack_and_after_it_nothing_counts() -> None:
    use = PackUse().followed(60.0, 0).followed(40.0, NS)
    assert use.used_pct(NS) == 0
    ended = use.begun(40.0).ended(2 * NS)
    assert ended.followed(10.0, 3 * NS).used_pct(3 * NS) == 1.0
    assert ended.ended(3 * NS) is ended
