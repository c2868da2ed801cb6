"""Signals, policy and gate under one lock: from a frame that was read to the kill, in the thread that read it.

Nothing in here waits for the event loop, the disk or the network. A cue takes well under 0.2 ms to the signal
that ends the worker.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from agent.policy.memory import FRESH, Lasting
from agent.policy.orders import Orders
from agent.policy.region import Whereabouts
from agent.policy.verdict import Policy, Verdict
from agent.protocol.reasons import Reason
from agent.signals import NS, SOURCE_SILENT_NS, Signals
from firmware_shims.clock import Clock
from firmware_shims.reading import Reading, Snapshot, Source

Kill = Callable[[], int | None]
"""Ends a worker with all its processes at once; returns when the signal was sent, None when it was gone already."""
TICK_NS = SOURCE_SILENT_NS // 2
UNWATCHED_NS = 4 * TICK_NS
"""Without a look for so long nobody would notice that a source died or that a window ended."""
WALL_NS = 30 * NS
"""The wall clock may be set: what depends on it is judged at least so often."""
BUDGET_STEP = 0.1


@dataclass(frozen=True, slots=True)
class Cue:
    """How a preemption began. Boot-time nanoseconds; `killed_ns` None when no worker was there to be killed.

    `victims`: the workers that were alive until then, each by its `kill`.
    """

    verdict: Verdict
    seen_ns: int
    shut_ns: int
    killed_ns: int | None
    victims: tuple[Kill, ...] = ()


class Guard:
    """Decides whether work may run and ends it when it may not. Every method may be called from any thread.

    `on_change` is called under the lock, in the thread that brought the change: it must only hand over.
    """

    def __init__(
        self,
        policy: Policy,
        sources: Sequence[Source],
        clock: Clock,
        on_change: Callable[[Verdict, Cue | None], None],
        wall: Callable[[], float | None] = time.time,
    ) -> None:
        self._policy = policy
        self._clock = clock
        self._wall = wall
        self._on_change = on_change
        self._signals = Signals(sources)
        self._memory = FRESH
        self._orders = Orders()
        self._judged_ns = self._looked_ns = clock()
        self._kills: list[Kill] = []
        self._lock = threading.Condition(threading.RLock())
        now_ns = clock()
        self._snapshot = self._signals.snapshot(now_ns)
        self._verdict, self._memory = policy.judge(self._snapshot, FRESH, now_ns, orders=self._orders)
        self._said = self._verdict

    @property
    def verdict(self) -> Verdict:
        """The present verdict."""
        return self._verdict

    @property
    def snapshot(self) -> Snapshot:
        """The view that the present verdict rests on."""
        return self._snapshot

    def update(self, readings: Sequence[Reading]) -> None:
        """Sink: take fresh readings; work may have been ended when this returns."""
        with self._lock:
            now_ns = self._clock()
            slept = self._signals.look(now_ns)  # first: a frame may come before anybody noticed that we slept
            changed_ns = self._signals.update(readings)
            if changed_ns is not None or slept:
                self._judge(now_ns if changed_ns is None else changed_ns)

    @property
    def urgent(self) -> bool:
        """Sink: whether there may be a worker that a frame has to end."""
        return self.may_exist

    def heard(self, source: str, now_ns: int) -> None:
        """Sink: `source` has delivered everything up to `now_ns`."""
        with self._lock:
            if self._signals.heard(source, now_ns):
                self._judge(now_ns)

    @property
    def orders(self) -> Orders:
        """The orders that stand."""
        return self._orders

    def follow(self, orders: Orders) -> None:
        """Let these orders stand from now on."""
        with self._lock:
            if orders != self._orders:
                self._orders = orders
                self._judge(self._clock())

    def adopt(self, policy: Policy) -> None:
        """Judge by another policy from now on; windows that run already keep their length."""
        with self._lock:
            self._policy = policy
            self._judge(self._clock())

    @property
    def lasting(self) -> Lasting:
        """What of the memory is to be kept over a restart."""
        return self._memory.lasting

    def recall(self, lasting: Lasting) -> None:
        """Go on from what was kept."""
        with self._lock:
            self._memory = replace(
                self._memory,
                pack_use=lasting.pack_use,
                starts_ns=lasting.starts_ns,
                whereabouts=Whereabouts(outside=lasting.outside),
            )
            self._judge(self._clock())

    def admit(self, kill: Kill) -> bool:
        """Register a worker before it does anything; False when none may exist now."""
        with self._lock:
            if not self.may_exist:
                return False
            self._kills.append(kill)
            return True

    def dismiss(self, kill: Kill) -> bool:
        """Forget a worker that is gone; False when it had been killed in here."""
        with self._lock:
            if kill not in self._kills:
                return False
            self._kills.remove(kill)
            return True

    @property
    def may_exist(self) -> bool:
        """Whether a worker may be there: work is allowed, or only windows have to pass."""
        return self._verdict.allowed or self._verdict.settling

    def run(self, stop: threading.Event) -> None:
        """Watch the time until `stop` is set: windows that end, sources that died. For a thread of its own."""
        while not stop.is_set():
            with self._lock:
                wait_ns = self.look()
                self._lock.wait(max(wait_ns / NS, 0.001))

    def look(self) -> int:
        """Look at the time once; returns for how many nanoseconds nothing can change by time alone."""
        with self._lock:
            now_ns = self._looked_ns = self._clock()
            if self._signals.look(now_ns) or now_ns >= self._due_ns():
                self._judge(now_ns)
            return min(TICK_NS, self._due_ns() - now_ns)

    @property
    def watches(self) -> bool:
        """Whether the thread in `run` still looks at the time; without it no worker may live on."""
        return self._clock() - self._looked_ns < UNWATCHED_NS

    def wake(self) -> None:
        """Let `run` look at once, for example at its `stop`."""
        with self._lock:
            self._lock.notify_all()

    def _due_ns(self) -> int:
        """When to judge again if no reading changes."""
        wall_ns = self._judged_ns + WALL_NS
        return wall_ns if self._verdict.next_ns is None else min(wall_ns, self._verdict.next_ns)

    def _judge(self, seen_ns: int) -> None:
        now_ns = self._judged_ns = self._clock()
        before, lasting = self._verdict, self._memory.lasting
        self._snapshot = self._signals.snapshot(now_ns)
        self._verdict, self._memory = self._policy.judge(
            self._snapshot, self._memory, now_ns, orders=self._orders, unix_s=self._wall()
        )
        cue = (
            self._shut(seen_ns, now_ns) if self._verdict.urgent and (self._kills or before.allowed) else None
        )
        if cue is not None or _is_news(self._verdict, self._said) or self._memory.lasting != lasting:
            self._said = self._verdict
            self._on_change(self._verdict, cue)
        if self._verdict.next_ns != before.next_ns:
            self._lock.notify_all()

    def _shut(self, seen_ns: int, shut_ns: int) -> Cue:
        """End every worker. The gate is shut already: the verdict says so."""
        signals = {kill: kill() for kill in self._kills}
        self._kills.clear()
        sent_ns = {kill: at_ns for kill, at_ns in signals.items() if at_ns is not None}
        return Cue(self._verdict, seen_ns, shut_ns, min(sent_ns.values(), default=None), tuple(sent_ns))


def _is_news(verdict: Verdict, said: Verdict) -> bool:
    """Other reasons, another unknown signal, or a budget that is a tenth off; not a value that drifts."""
    step_w = BUDGET_STEP * max(verdict.budget_w, said.budget_w)
    return _reasons(verdict) != _reasons(said) or abs(verdict.budget_w - said.budget_w) > step_w


def _reasons(verdict: Verdict) -> list[tuple[Reason, str]]:
    return [
        (blocker.reason, str(blocker.value) if blocker.reason is Reason.UNKNOWN_SIGNAL else "")
        for blocker in verdict.blockers
    ]
