"""Cars whose signals, orders and clocks do anything, and the real policy that looks at them."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from cars import FULLY_EQUIPPED, NS, Car
from hypothesis import strategies as st
from policy_oracle import DAYTIME, Facts

from agent.policy.memory import FRESH, Memory
from agent.policy.orders import Orders
from agent.policy.settings import PolicySettings
from agent.policy.verdict import Policy, Verdict
from firmware_shims import vss
from firmware_shims.reading import Quality, Value

COMPUTE_W: Final = 60.0
NOON_S: Final = 1_795_003_200.0
"""Unix time of a noon, UTC."""

VALUES: Final[dict[str, tuple[Value, ...]]] = {
    vss.LOW_VOLTAGE_STATE: ("OFF", "LOCK", "ACC", "ON", "", 0),
    **dict.fromkeys(vss.DOORS, (False, 0, True, 1, "closed")),
    vss.DRIVER_SEAT: (False, True),
    vss.BRAKE: (0.0, -0.0, 0.4, 100.0),
    vss.DRIVER_LOCK: (True, 1, False, "true"),
    vss.GEAR: (126, 126.0, 0, -1, 127, "P"),
    vss.SPEED: (0.0, 0.5, -0.5, 0.51, -0.51, 130.0),
    vss.CHARGE_LINE_POWER: (7200.0, 66.1, 65.9, 0.0, -100.0, "7200"),
    vss.PACK_CURRENT: (15.0, -0.5, -0.51, -20.0),
    vss.CABLE_CONNECTED: (True, False),
    vss.SOC: (64.0, 100.0, 60.0, 59.9, 50.1, 50.0, 30.0, 29.9, 25.0, 24.9, 20.0, 19.9, 0.0),
    vss.PACK_TEMPERATURE_MIN: (22.0, 5.0, 4.9, 0.0, -0.1),
    vss.PACK_TEMPERATURE_MAX: (24.0, 35.0, 35.1, 40.0, 40.1),
    vss.CHIP_TEMPERATURE: (45.0, 75.0, 75.1, 80.0, 89.9, 90.0),
    vss.AMBIENT_TEMPERATURE: (18.0, -10.0, -10.1, 38.0, 38.1, 42.0, 42.1),
    vss.LOW_VOLTAGE_BATTERY: (13.6, 14.4, 13.3, 13.1, 12.9, 12.7, 12.0, 11.8, 11.7),
    vss.COMPUTE_RAIL: ("ON", "GOING_DOWN", "OFF", True),
    vss.GRID_LIMIT: (11_000.0, 60.0, 59.9, 0.0, -5.0),
    vss.TIME_TO_COMPLETE: (0.0, 600.0, 7200.0, -7200.0),
}
"""For each signal a good value first, then both sides of every border."""
ODD: Final[tuple[Value, ...]] = (math.nan, math.inf, -math.inf, 1e300, -1e300, 10**400, "", "OFF", True)
STEPS_S: Final = (0.001, 0.01, 0.5, 1, 2.999, 3, 3.001, 9, 10, 29.999, 30, 31, 59.999, 60, 61, 179, 180, 600)
LONG_STEPS_S: Final = (3600, 7200, 6 * 3600, 24 * 3600)

OPT_IN: Final = PolicySettings(require_grid_proof=False, pack_budget_pct_per_day=5)
VARIANTS: Final = (
    PolicySettings(),
    PolicySettings(schedule=(DAYTIME,), require_consent=True),
    PolicySettings(settle_s=0, grid_proof_s=0, resume_economic_s=0, starts_per_hour=6),
    PolicySettings(settle_s=5, require_locked=False, grid_limit_w=60),
    OPT_IN,
    OPT_IN.model_copy(update={"settle_s": 1, "grid_proof_s": 1, "schedule": (DAYTIME,)}),
)

changes = st.sampled_from(sorted(VALUES)).flatmap(
    lambda path: st.tuples(
        st.just(path),
        st.sampled_from(VALUES[path]) | st.just(VALUES[path][0]) | st.sampled_from(ODD),
        st.sampled_from([Quality.GOOD] * 9 + [Quality.STALE, Quality.INVALID, Quality.NEVER]),
    )
)
orders = st.builds(
    Orders,
    st.sampled_from([False, False, False, True]),
    st.sampled_from([False, False, False, True]),
    st.sampled_from([True, True, None, False]),
    st.none() | st.sampled_from([NOON_S + hours * 3600 for hours in (-2, 0.2, 0.5, 1, 3, 30)]),
)


@dataclass
class Story:
    """A car, and the real policy that looks at every event and whenever it said that time may change something."""

    settings: PolicySettings
    declared: tuple[str, ...] = tuple(FULLY_EQUIPPED)
    now_ns: int = 1000 * NS
    wall_s: float | None = NOON_S
    orders: Orders = field(default_factory=lambda: Orders(consent=True))
    memory: Memory = FRESH
    after_look: Callable[[Verdict], None] = lambda _: None

    def __post_init__(self) -> None:
        self.car = Car({path: FULLY_EQUIPPED[path] for path in self.declared})
        self.policy = Policy(self.settings, frozenset(self.declared), compute_w=COMPUTE_W)
        self.verdict = self.look()

    def look(self) -> Verdict:
        snapshot = self.car.snapshot(self.now_ns)
        arguments = (snapshot, self.memory, self.now_ns)
        self.verdict, memory = self.policy.judge(*arguments, orders=self.orders, unix_s=self.wall_s)
        again = self.policy.judge(*arguments, orders=self.orders, unix_s=self.wall_s)
        assert repr(again) == repr((self.verdict, memory)), "the same look twice is not the same"
        self.memory = memory
        self.after_look(self.verdict)
        return self.verdict

    def pass_until(self, then_ns: int) -> None:
        if self.wall_s is not None:
            self.wall_s += (then_ns - self.now_ns) / NS
        self.now_ns = then_ns

    def due_ns(self, end_ns: int) -> int:
        """When to look next, at `end_ns` at the latest."""
        assert self.verdict.next_ns is None or self.verdict.next_ns > self.now_ns
        return min(end_ns, self.verdict.next_ns or end_ns)

    def wait(self, seconds: float) -> None:
        end_ns = self.now_ns + int(seconds * NS)
        while self.now_ns < end_ns:
            self.pass_until(self.due_ns(end_ns))
            self.look()

    def change(self, path: str, value: Value, quality: Quality) -> None:
        if path in self.car.values:
            self.car.values[path], self.car.qualities[path] = value, quality

    def facts(self) -> Facts:
        return Facts(self.car, self.orders, self.settings, COMPUTE_W, self.wall_s)
