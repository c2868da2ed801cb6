"""The real policy over a recorded car: stepped at what happens, with no clock but the log's.

What happens is a reading, the moment at which one grows stale, and the moment at which time alone may change the
verdict. Between two of them nothing can change.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from agent.policy.memory import FRESH
from agent.policy.orders import Orders
from agent.policy.verdict import Policy, Verdict
from agent.replay.recording import unix_s
from agent.signals import NS, Signals
from firmware_shims.reading import Reading, Snapshot, Source

CONSENTING: Final = Orders(consent=True)
"""A log does not hold the owner's word."""


@dataclass(frozen=True, slots=True)
class Span:
    """A time in which nothing changed: what stood then, and the view that it rests on."""

    from_ns: int
    to_ns: int
    verdict: Verdict
    snapshot: Snapshot


class Judge:
    """A `Sink` for one source that judges as the guard does; `take` gets every span once, in order."""

    urgent = True

    def __init__(self, policy: Policy, source: Source, take: Callable[[Span], None]) -> None:
        self._policy = policy
        self._signals = Signals([source])
        self._ages_ns = {path: int(age_s * NS) for path, age_s in source.stale_after_s.items()}
        self._stale_ns: dict[str, int] = {}
        self._take = take
        self._memory = FRESH
        self._stands: tuple[Verdict, Snapshot] | None = None
        self._since_ns = 0
        self._now_ns = 0

    def heard(self, source: str, now_ns: int) -> None:
        """Let the time until `now_ns` pass."""
        if self._stands is None:
            self._judge(now_ns)
        while (due_ns := self._due_ns()) is not None and due_ns <= now_ns:
            expired = self._signals.heard(source, due_ns)
            self._stale_ns = {path: at_ns for path, at_ns in self._stale_ns.items() if at_ns > due_ns}
            if expired or due_ns == self._next_ns():
                self._judge(due_ns)
            self._now_ns = due_ns
        self._now_ns = now_ns

    def update(self, readings: Sequence[Reading]) -> None:
        """Take what was read at the moment that was heard last."""
        for reading in readings:
            self._stale_ns[reading.path] = reading.stamp_ns + self._ages_ns[reading.path] + 1
        if self._signals.update(readings) is not None:
            self._judge(self._now_ns)

    def close(self) -> None:
        """Hand over the span that stands at the log's end."""
        if self._stands is not None and self._now_ns > self._since_ns:
            self._take(Span(self._since_ns, self._now_ns, *self._stands))
        self._since_ns = self._now_ns

    def _due_ns(self) -> int | None:
        """When something may change by time alone."""
        due = [*self._stale_ns.values(), self._next_ns()]
        return min((at_ns for at_ns in due if at_ns is not None), default=None)

    def _next_ns(self) -> int | None:
        """The policy's own moment, unless it has been judged already."""
        next_ns = self._stands[0].next_ns if self._stands else None
        return next_ns if next_ns is not None and next_ns > self._now_ns else None

    def _judge(self, now_ns: int) -> None:
        self._now_ns = now_ns
        self.close()
        snapshot = self._signals.snapshot(now_ns)
        verdict, self._memory = self._policy.judge(
            snapshot, self._memory, now_ns, orders=CONSENTING, unix_s=unix_s(now_ns)
        )
        self._stands = (verdict, snapshot)


def judge(policy: Policy, source: Source, take: Callable[[Span], None]) -> None:
    """Judge a recording from its beginning to its end."""
    bench = Judge(policy, source, take)
    source.run(bench, threading.Event())
    bench.close()
