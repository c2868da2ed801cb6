"""A car on the policy's bench: time goes by hand, every look is one call of the real policy."""

from dataclasses import dataclass, field

from cars import FULLY_EQUIPPED, NS, Car

from agent.policy.memory import FRESH, Memory
from agent.policy.orders import Orders
from agent.policy.settings import PolicySettings
from agent.policy.verdict import NO_ORDERS, Policy, Verdict
from agent.protocol.reasons import Reason
from firmware_shims.reading import Value

NOON_S = 1_795_003_200.0
"""Unix time of a noon, UTC."""


@dataclass
class Parking:
    """A car whose every value is declared; between two looks nothing but time passes."""

    settings: PolicySettings = field(default_factory=PolicySettings)
    car: Car = field(default_factory=lambda: Car(dict(FULLY_EQUIPPED)))
    memory: Memory = FRESH
    now_ns: int = 1000 * NS
    orders: Orders = NO_ORDERS
    unix_s: float = NOON_S
    clock_is_known: bool = True

    def look(self, after_s: float = 0.0) -> Verdict:
        self.now_ns += round(after_s * NS)
        self.unix_s += after_s
        policy = Policy(self.settings, frozenset(self.car.values), compute_w=60)
        snapshot, unix_s = self.car.snapshot(self.now_ns), self.unix_s if self.clock_is_known else None
        verdict, self.memory = policy.judge(
            snapshot, self.memory, self.now_ns, orders=self.orders, unix_s=unix_s
        )
        return verdict

    def sees(self, path: str, value: Value, after_s: float = 0.0) -> Verdict:
        """A signal changes after so many seconds."""
        self.car.values[path] = value
        return self.look(after_s)

    def settle(self) -> Verdict:
        self.look()
        return self.look(after_s=self.settings.settle_s)

    def settled(self) -> "Parking":
        verdict = self.settle()
        for _ in range(2):  # a car that may use its pack waits for the proof before it settles
            verdict = self.look(after_s=60)
        assert verdict.allowed, verdict.blockers
        return self

    def reasons(self, after_s: float = 0.0) -> list[Reason]:
        return [blocker.reason for blocker in self.look(after_s).blockers]
