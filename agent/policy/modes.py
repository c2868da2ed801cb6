"""The published mode, derived from the verdict and what the worker does; it is kept nowhere."""

from collections.abc import Callable
from dataclasses import dataclass

from agent.policy.verdict import Verdict
from agent.protocol.messages import Mode
from agent.protocol.reasons import Reason


@dataclass(frozen=True, slots=True)
class Situation:
    """What the mode depends on. `stopping`: a worker has been told to end and is not gone yet."""

    verdict: Verdict
    running: bool
    stopping: bool


def _draining(now: Situation) -> bool:
    return any(blocker.reason is Reason.DRAINING for blocker in now.verdict.blockers)


MODES: tuple[tuple[Callable[[Situation], bool], Mode], ...] = (
    (lambda now: now.stopping, Mode.PREEMPTING),
    (_draining, Mode.DRAINING),
    (lambda now: now.verdict.allowed and now.running, Mode.WORKING),
    (lambda now: now.verdict.allowed, Mode.READY),
    (lambda now: now.verdict.settling, Mode.SETTLING),
)
"""The first line that fits decides; none fits: blocked."""


def mode_of(now: Situation) -> Mode:
    """Derive the mode."""
    return next((mode for fits, mode in MODES if fits(now)), Mode.BLOCKED)
