"""The time-line of each preemption: from the cue to the memory being free and the fleet being told."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from agent.guard import Cue, Kill
from agent.protocol.reasons import Reason

KEPT = 1000
WORKERS = 32
"""How many ends of workers are remembered for a cue that is told later; there are a few backends."""


@dataclass(frozen=True, slots=True)
class Preemption:
    """One preemption that has run to its end. Boot-time nanoseconds."""

    reason: Reason
    seen_ns: int
    shut_ns: int
    killed_ns: int
    reaped_ns: int
    said_ns: int | None = None
    """When the last event about a task that it interrupted went out; None while there was none."""

    @property
    def kill_ms(self) -> float:
        """From the cue, as it was received, to the signal."""
        return (self.killed_ns - self.seen_ns) / 1e6

    @property
    def silent_ms(self) -> float:
        """From the cue to every process of the worker reaped, so that its memory is free too."""
        return (self.reaped_ns - self.seen_ns) / 1e6

    @property
    def said_ms(self) -> float | None:
        """From the cue to the last event out."""
        return None if self.said_ns is None else (self.said_ns - self.seen_ns) / 1e6


@dataclass(slots=True)
class Preemptions:
    """Matches cues with the ends of the workers that they killed, in whatever order the two are told."""

    on_done: Callable[[Preemption], None]
    done: deque[Preemption] = field(default_factory=lambda: deque(maxlen=KEPT))
    count: int = 0
    _open: list[Cue] = field(default_factory=list)
    _reaped: deque[tuple[Kill, int]] = field(default_factory=lambda: deque(maxlen=WORKERS))

    @property
    def under_way(self) -> bool:
        """A worker was killed and is not gone yet."""
        return bool(self._open)

    def begin(self, cue: Cue) -> None:
        """Take a cue. One that found no worker to kill is none of these: the earliest has killed it."""
        if cue.victims:
            self._open.append(cue)
            self._match()

    def reaped(self, kill: Kill, at_ns: int) -> None:
        """The worker with this `kill` is gone, with its memory."""
        self._reaped.append((kill, at_ns))
        self._match()

    def said(self, reason: Reason, at_ns: int) -> None:
        """The fleet was told that a task was preempted, which it is when its worker is gone."""
        if self.done and self.done[-1].reason is reason:
            self.done[-1] = replace(self.done[-1], said_ns=at_ns)

    def _match(self) -> None:
        gone = dict(self._reaped)
        for cue in [cue for cue in self._open if all(victim in gone for victim in cue.victims)]:
            self._open.remove(cue)
            self._end(cue, max(gone[victim] for victim in cue.victims))

    def _end(self, cue: Cue, reaped_ns: int) -> None:
        reason = cue.verdict.blockers[0].reason
        killed_ns = cue.shut_ns if cue.killed_ns is None else cue.killed_ns
        ended = Preemption(reason, cue.seen_ns, cue.shut_ns, killed_ns, reaped_ns)
        self.done.append(ended)
        self.count += 1
        self.on_done(ended)
