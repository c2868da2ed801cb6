"""The verdict: a pure function of what the car shows, what was remembered, the settings and the time.

Unknown blocks. Leaving happens on the first bad look; entering takes until every condition has held without a
break for its own window, and the windows run side by side.
"""

from dataclasses import dataclass, replace

from agent.policy.conditions import CONDITIONS, REQUIRED_SIGNALS, Cause, Condition, Judged, View
from agent.policy.orders import Orders
from agent.policy.settings import PolicySettings
from agent.protocol.reasons import Reason
from firmware_shims import vss
from firmware_shims.reading import Snapshot, Value

NS = 1_000_000_000
NO_ORDERS = Orders()


@dataclass(frozen=True, slots=True)
class Standing:
    """What is remembered of one condition between two looks.

    `held_ns`: holds without a break since then. `failing_ns`: false since then, but still within its grace.
    `broken_ns`: blocks since then.
    """

    held_ns: int | None = None
    failing_ns: int | None = None
    broken_ns: int | None = None


Memory = tuple[Standing, ...]
"""One standing a condition, in the order of `CONDITIONS`."""
FRESH: Memory = tuple(Standing() for _ in CONDITIONS)


@dataclass(frozen=True, slots=True)
class Blocker:
    """One reason why no work is allowed: the value that was seen and the limit it broke."""

    reason: Reason
    cause: Cause
    value: Value | None
    limit: float | str | None
    since_ns: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is allowed now. `next_ns`: when time alone may change it (None: never).

    `judged`: what was seen of each condition, in the order of `CONDITIONS`.
    """

    allowed: bool
    budget_w: float
    blockers: tuple[Blocker, ...]
    next_ns: int | None
    judged: tuple[Judged, ...]

    @property
    def settling(self) -> bool:
        """Everything holds and only windows have to pass."""
        return not self.allowed and all(blocker.reason is Reason.SETTLING for blocker in self.blockers)

    @property
    def urgent(self) -> bool:
        """Blocked for the owner, for safety or by something unknown: running work ends at once."""
        return any(
            blocker.reason is Reason.UNKNOWN_SIGNAL
            or (blocker.cause is not Cause.ECONOMIC and blocker.reason is not Reason.SETTLING)
            for blocker in self.blockers
        )


@dataclass(frozen=True, slots=True)
class Policy:
    """The fixed inputs: settings, the signals that the configured sources declare, the need in watts."""

    settings: PolicySettings
    declared: frozenset[str]
    compute_w: float

    @property
    def missing(self) -> frozenset[str]:
        """Required signals that no configured source declares: without one of them no work is ever allowed."""
        return REQUIRED_SIGNALS - self.declared

    def judge(
        self,
        snapshot: Snapshot,
        memory: Memory,
        now_ns: int,
        *,
        orders: Orders = NO_ORDERS,
        unix_s: float | None = None,
    ) -> tuple[Verdict, Memory]:
        """Judge every condition once; returns the verdict and what to remember for the next call.

        `unix_s` is the wall clock, for what depends on it; None: unknown.
        """
        view = View(snapshot, self.settings, self.declared, self.compute_w, orders, unix_s)
        looks = [
            _look(condition, standing, view, now_ns)
            for condition, standing in zip(CONDITIONS, memory, strict=True)
        ]
        broken = [look.blocker for look in looks if look.blocker]
        # Two conditions may rest on one signal: the first of the table speaks for both.
        first = {(blocker.reason, blocker.value): blocker for blocker in reversed(broken)}
        blockers = tuple(blocker for blocker in broken if blocker in first.values()) or _settling(
            looks, now_ns
        )
        verdict = Verdict(
            allowed=not blockers,
            budget_w=0.0 if blockers else self._budget_w(snapshot),
            blockers=blockers,
            next_ns=min((look.next_ns for look in looks if look.next_ns is not None), default=None),
            judged=tuple(look.judged for look in looks),
        )
        return verdict, tuple(look.standing for look in looks)

    def _budget_w(self, snapshot: Snapshot) -> float:
        """Watts that may be drawn: the need, derated linearly between `chip_derate_c` and `chip_stop_c`."""
        chip_c = snapshot.good(vss.CHIP_TEMPERATURE)
        if not isinstance(chip_c, int | float):
            return 0.0
        span_c = self.settings.chip_stop_c - self.settings.chip_derate_c
        share = (self.settings.chip_stop_c - chip_c) / span_c
        return self.compute_w * max(0.0, min(1.0, share))


@dataclass(frozen=True, slots=True)
class _Look:
    """One condition judged once. `next_ns`: when its window or its grace ends."""

    condition: Condition
    judged: Judged
    standing: Standing
    blocker: Blocker | None = None
    next_ns: int | None = None
    settling: bool = False


def _look(condition: Condition, before: Standing, view: View, now_ns: int) -> _Look:
    window_ns = int(condition.window_s(view.settings) * NS)
    grace_ns = int(condition.grace_s(view.settings) * NS)
    judged = condition.judge(replace(view, held=before.held_ns is not None))
    if judged.holds:
        held_ns = now_ns if before.held_ns is None else before.held_ns
        settled_ns = held_ns + window_ns
        if settled_ns > now_ns:
            return _Look(condition, judged, Standing(held_ns=held_ns), next_ns=settled_ns, settling=True)
        return _Look(condition, judged, Standing(held_ns=held_ns))
    established = before.held_ns is not None and now_ns >= before.held_ns + window_ns
    if judged.holds is False and established and grace_ns:
        failing_ns = now_ns if before.failing_ns is None else before.failing_ns
        if now_ns <= failing_ns + grace_ns:
            return _Look(
                condition, judged, replace(before, failing_ns=failing_ns), next_ns=failing_ns + grace_ns + 1
            )
    broken_ns = now_ns if before.broken_ns is None else before.broken_ns
    return _Look(condition, judged, Standing(broken_ns=broken_ns), _blocker(condition, judged, broken_ns))


def _blocker(condition: Condition, judged: Judged, since_ns: int) -> Blocker:
    if judged.holds is None:
        return Blocker(Reason.UNKNOWN_SIGNAL, condition.cause, judged.value, judged.limit, since_ns)
    return Blocker(condition.reason, condition.cause, judged.value, judged.limit, since_ns)


def _settling(looks: list[_Look], now_ns: int) -> tuple[Blocker, ...]:
    """The one blocker that stands while windows have still to pass: the seconds left of the longest."""
    waiting = [look for look in looks if look.settling]
    if not waiting:
        return ()
    last = max(waiting, key=lambda look: look.next_ns or 0)
    left_s = ((last.next_ns or now_ns) - now_ns) / NS
    since_ns = last.standing.held_ns or now_ns
    limit = f"{last.condition.reason.label} to stay clear"
    return (Blocker(Reason.SETTLING, last.condition.cause, round(left_s, 1), limit, since_ns),)
