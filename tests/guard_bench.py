"""The real guard over a car that is driven by hand; workers are only their kill."""

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeVar

from cars import NS, PARKED_AND_CHARGING, Car, HandClock, HandSource

from agent.guard import TICK_NS, Cue, Guard
from agent.policy.region import Region
from agent.policy.settings import PolicySettings
from agent.policy.verdict import Policy, Verdict
from agent.protocol.reasons import Reason
from firmware_shims.reading import Reading, Value

T = TypeVar("T")
COMPUTE_W = 60.0
MONDAY_S = datetime(2026, 11, 23, tzinfo=UTC).timestamp()
"""What the wall clock shows when the bench begins: Monday 0:00 UTC."""


@dataclass
class Bench:
    """A car with these `values`, told by one source or split over several (name -> paths)."""

    values: Mapping[str, Value] = field(default_factory=lambda: PARKED_AND_CHARGING)
    settings: PolicySettings = field(default_factory=PolicySettings)
    sources: Mapping[str, Sequence[str]] = field(default_factory=dict)
    clock: HandClock = field(default_factory=HandClock)
    wall_ahead_s: float = 0.0
    """How far the wall clock has been set forward."""
    said: list[tuple[Verdict, Cue | None]] = field(default_factory=list)
    killed_in: list[str] = field(default_factory=list)
    mute: set[str] = field(default_factory=set)
    """Signals that are not sent any more, by any source."""
    dead: set[str] = field(default_factory=set)
    """Sources that hang."""
    region: Region | None = None

    def __post_init__(self) -> None:
        self.car = Car(dict(self.values))
        self.began_ns = self.clock()
        self.sources = self.sources or {"car": tuple(self.values)}
        policy = Policy(self.settings, frozenset(self.values), COMPUTE_W, region=self.region)
        listeners = [HandSource(name, dict.fromkeys(paths, 0.5)) for name, paths in self.sources.items()]
        self.guard = Guard(policy, listeners, self.clock, self._hear, self.wall)

    def wall(self) -> float:
        return MONDAY_S + self.wall_ahead_s + (self.clock() - self.began_ns) / NS

    def drive(self, seconds: float, step_s: float = 0.1) -> None:
        """Let the car go on sending everything; the guard looks at the time whenever it asked to."""
        end_ns, wait_ns = self.clock() + round(seconds * NS), TICK_NS
        while self.clock() < end_ns:
            self.clock.now_ns = min(self.clock() + min(round(step_s * NS), wait_ns), end_ns)
            wait_ns = self.tick()

    def tick(self) -> int:
        """Every source that lives delivers what the car sends; then the guard looks at the time."""
        for name, paths in self.sources.items():
            if name not in self.dead:
                readings = self.car.readings(self.clock(), name)
                self.guard.update([r for r in readings if r.path in paths and r.path not in self.mute])
                self.guard.heard(name, self.clock())
        return self.guard.look()

    def show(self, path: str, value: Value) -> None:
        """One frame, 10 ms after whatever was before."""
        self.car.values[path] = value
        self.clock.forward(0.01)
        source = next(name for name, paths in self.sources.items() if path in paths)
        self.guard.update([Reading(path, value, source, self.clock())])

    def kill(self) -> int:
        self.killed_in.append(threading.current_thread().name)
        return self.clock()

    def reasons(self) -> set[Reason]:
        return {blocker.reason for blocker in self.guard.verdict.blockers}

    def _hear(self, verdict: Verdict, cue: Cue | None) -> None:
        self.said.append((verdict, cue))


def in_thread(call: Callable[[], T]) -> T:
    """Call it in a thread of its own, whose name begins with "reader"."""
    with ThreadPoolExecutor(1, "reader") as pool:
        return pool.submit(call).result()
