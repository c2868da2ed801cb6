"""A million days of simulated cars, judged by the real policy; what must never happen is counted from the truth.

A car is stepped where something happens: a happening of its life, a value that passes a mark, a time that the policy
asked for. Between them everything runs in closed form, so what is counted is exact, and cheap.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import Final, Protocol

from agent.policy.memory import FRESH, Memory
from agent.policy.orders import Orders
from agent.policy.verdict import Policy, Verdict
from benchmarks import car_days_report
from benchmarks.car_day_counts import DRAIN_S, Counts
from benchmarks.car_lives import Life
from benchmarks.car_traits import DAY_S, LIFE_DAYS, Traits, dice, draw
from benchmarks.car_watch import Watch
from benchmarks.simulated_car import BOOTED_NS, NEVER_NS, NS, Car
from firmware_shims.reading import Snapshot

DAYS: Final = 1_000_000
QUICK_DAYS: Final = 2_000
SAY_EVERY_DAYS: Final = 50_000
CARS_A_PIECE: Final = 10
_END_NS: Final = BOOTED_NS + LIFE_DAYS * DAY_S * NS
_A_MOMENT_NS: Final = 1_000_000


class Judges(Protocol):
    """What is under test: the policy, or in the tests one that was broken on purpose."""

    def judge(
        self, snapshot: Snapshot, memory: Memory, now_ns: int, *, orders: Orders, unix_s: float | None
    ) -> tuple[Verdict, Memory]:
        """As `Policy.judge`."""


PolicyOf = Callable[[Traits], Judges]


def real_policy(traits: Traits) -> Policy:
    """The policy as this car's owner has configured it."""
    return Policy(traits.settings, traits.declared, traits.machine.compute_w)


class Days:
    """The days of one car: it works whenever it is allowed to, and stops as the agent does."""

    def __init__(self, traits: Traits, policy: Judges) -> None:
        self._rng = dice(traits.seed, "days")
        self._period_ns = int(traits.sensors.period_s * NS)
        self._car = Car(traits, self._rng.uniform(20, 85))
        self._watch = Watch(self._car)
        self._policy = policy
        self._happenings = Life(traits).happenings()
        self._next = 0
        self._working = False
        self._stop_ns = NEVER_NS
        self._line_ns = NEVER_NS
        self._memory = FRESH
        self._car.settle()
        self._watch.observe(working=False)
        self._verdict, self._memory = self._judged()

    def run(self) -> Counts:
        """Live through all of them."""
        while (at_ns := self._next_ns()) < _END_NS:
            self._watch.pass_to(at_ns, self._verdict, self._working)
            self._step()
        self._watch.pass_to(_END_NS, self._verdict, self._working)
        return self._watch.finish()

    def _next_ns(self) -> int:
        coming, at = self._happenings, self._next
        asked_ns = self._verdict.next_ns
        return min(
            coming[at][0] if at < len(coming) else NEVER_NS,
            NEVER_NS if asked_ns is None else max(asked_ns, self._car.now_ns + _A_MOMENT_NS),
            self._car.next_ns(),
            self._watch.due_ns,
            self._stop_ns,
            self._line_ns,
        )

    def _step(self) -> None:
        """Everything that this instant brings, in the order in which a car brings it."""
        car = self._car
        while self._next < len(self._happenings) and self._happenings[self._next][0] <= car.now_ns:
            self._happenings[self._next][2](car)
            self._next += 1
        if car.now_ns >= self._stop_ns:
            self._stop()
        car.settle()
        self._watch.observe(self._working)
        self._read_line()
        asked_ns = self._verdict.next_ns
        if car.sensors.changed or (asked_ns is not None and car.now_ns >= asked_ns):
            self._verdict, self._memory = self._judged()
            self._obey()

    def _read_line(self) -> None:
        """Charge line and current are read at their own pace: a change is seen up to a period later."""
        if self._car.now_ns >= self._line_ns:
            self._car.read_line()
            self._line_ns = NEVER_NS
        elif self._line_ns == NEVER_NS and not self._car.line_is_read:
            self._line_ns = self._car.now_ns + int(self._rng.random() * self._period_ns)

    def _judged(self) -> tuple[Verdict, Memory]:
        car = self._car
        car.sensors.changed = False
        before = self._verdict if self._watch.counts.looks else None
        verdict, memory = self._policy.judge(
            car.snapshot(), self._memory, car.now_ns, orders=car.orders, unix_s=car.unix_s
        )
        self._watch.judged(before, verdict)
        return verdict, memory

    def _obey(self) -> None:
        """Start, go on with other watts, end at once, or end within the time that a batch may take."""
        self._car.every_step = self._verdict.on_pack
        if self._verdict.allowed:
            self._working, self._stop_ns = True, NEVER_NS
            self._draw(self._verdict.budget_w)
        elif self._working and self._verdict.urgent:
            self._stop()
        elif self._working and self._stop_ns == NEVER_NS:
            self._stop_ns = self._car.now_ns + int(self._rng.random() * DRAIN_S * NS)

    def _stop(self) -> None:
        self._working, self._stop_ns = False, NEVER_NS
        self._draw(0.0)

    def _draw(self, watts: float) -> None:
        if watts != self._car.energy.work_w:
            self._car.energy.work_w = watts
            self._car.settle()
            self._watch.observe(self._working)
            self._read_line()


def live(seed: int, cars: Sequence[int], policy_of: PolicyOf = real_policy) -> Counts:
    """The counts of some cars of a fleet."""
    counts = Counts()
    for number in cars:
        traits = draw(seed, number)
        counts.add(Days(traits, policy_of(traits)).run())
    return counts


def simulate(days: int, seed: int, processes: int) -> Iterator[Counts]:
    """The counts of at least so many days, piece by piece; the pieces do not depend on the number of processes."""
    cars = range(-(-days // LIFE_DAYS))
    pieces = [cars[first : first + CARS_A_PIECE] for first in range(0, len(cars), CARS_A_PIECE)]
    if processes == 1:
        yield from map(partial(live, seed), pieces)
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("fork")) as pool:
        yield from pool.map(partial(live, seed), pieces)


async def measure(days: int, seed: int) -> Sequence[str]:
    """Simulate and report; says on stderr how far it is."""
    began_s, counts = time.monotonic(), Counts()
    processes = len(os.sched_getaffinity(0))
    for piece in simulate(days, seed, processes):
        counts.add(piece)
        if not counts.days % SAY_EVERY_DAYS:
            print(f"{counts.days:,} of {days:,} days", file=sys.stderr, flush=True)
    return car_days_report.lines(counts, seed, time.monotonic() - began_s, processes)
