"""The time-line of each preemption: from the cue to the memory being free."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from agent.guard import Cue
from agent.protocol.reasons import Reason

KEPT = 1000


@dataclass(frozen=True, slots=True)
class Preemption:
    """One preemption that has run to its end. Boot-time nanoseconds."""

    reason: Reason
    seen_ns: int
    shut_ns: int
    killed_ns: int
    reaped_ns: int

    @property
    def kill_ms(self) -> float:
        """From the cue, as it was received, to the signal."""
        return (self.killed_ns - self.seen_ns) / 1e6

    @property
    def silent_ms(self) -> float:
        """From the cue to every process of the worker reaped, so that its memory is free too."""
        return (self.reaped_ns - self.seen_ns) / 1e6


@dataclass(slots=True)
class Preemptions:
    """Matches cues with the end of the workers that they killed, in whatever order the two are told."""

    on_done: Callable[[Preemption], None]
    done: deque[Preemption] = field(default_factory=lambda: deque(maxlen=KEPT))
    count: int = 0
    _open: Cue | None = None
    _reaped_ns: int = 0

    @property
    def under_way(self) -> bool:
        """A worker was killed and is not gone yet."""
        return self._open is not None

    def begin(self, cue: Cue) -> None:
        """Take a cue; the earliest of a preemption counts."""
        if cue.killed_ns is not None and self._open is None:
            self._open = cue
            self._match()

    def reaped(self, at_ns: int) -> None:
        """The last worker is gone, with its memory."""
        self._reaped_ns = at_ns
        self._match()

    def _match(self) -> None:
        cue = self._open
        if cue is None or cue.killed_ns is None or self._reaped_ns < cue.killed_ns:
            return
        self._open = None
        reason = cue.verdict.blockers[0].reason
        ended = Preemption(reason, cue.seen_ns, cue.shut_ns, cue.killed_ns, self._reaped_ns)
        self.done.append(ended)
        self.count += 1
        self.on_done(ended)
