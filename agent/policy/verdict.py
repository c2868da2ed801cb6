"""The verdict: a pure function of what the car shows, what was remembered, the settings, the orders and the time.

Unknown blocks. Leaving happens on the first bad look; entering takes until every condition has held without a
break for its own window, and the windows run side by side.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
from msgspec.structs import replace

from agent.policy.condition import Cause, Condition, Judged, View, number
from agent.policy.conditions import CONDITIONS, PARKED, PROOF, required_signals
from agent.policy.energy import grid_limit_w
from agent.policy.low_pass import LowPass
from agent.policy.memory import Memory, Standing
from agent.policy.orders import Orders
from agent.policy.region import Region, Whereabouts, position
from agent.policy.settings import PolicySettings
from agent.policy.times import HOUR_NS
from agent.protocol.reasons import Reason
from firmware_shims import vss
from firmware_shims.reading import Snapshot, Value

NS: Final = 1_000_000_000
NO_ORDERS: Final = Orders()
_PARKED: Final = CONDITIONS.index(PARKED)
_A_MOMENT_NS: Final = 1_000_000
"""Time alone is looked at no sooner than this, so that a rounded instant is not looked at twice."""


@dataclass(frozen=True, slots=True)
class Blocker:
    """One reason why no work is allowed: the value that was seen and the limit it broke.

    `until_ns`: when time alone may end it, if nothing else changes; None where that is not known.
    """

    reason: Reason
    cause: Cause
    value: Value | None
    limit: float | str | None
    since_ns: int
    until_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is allowed now. `next_ns`: when time alone may change it (None: never).

    `settling`: everything holds and only windows have to pass. `on_pack`: allowed without proven grid power.
    `judged`: what was seen of each condition, in the order of `CONDITIONS`.
    """

    allowed: bool
    budget_w: float
    blockers: tuple[Blocker, ...]
    next_ns: int | None
    judged: tuple[Judged, ...]
    settling: bool = False
    on_pack: bool = False

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
    """The fixed inputs: settings, the signals that the configured sources declare, the need in watts.

    `compute_w` is what all backends together may draw, `least_w` the smallest of them (default: all of it). Without a
    `region` the car's position is not looked at.
    """

    settings: PolicySettings
    declared: frozenset[str]
    compute_w: float
    least_w: float | None = None
    region: Region | None = None

    @property
    def missing(self) -> frozenset[str]:
        """Required signals that no configured source declares: without one of them no work is ever allowed."""
        return required_signals(self.settings) - self.declared

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

        `unix_s` is the wall clock, for what depends on it; None: it cannot be trusted.
        """
        whereabouts = self._whereabouts(memory.whereabouts, snapshot)
        view = self._view(snapshot, memory, now_ns, orders, unix_s, outside=whereabouts.outside)
        standings = dict(zip(CONDITIONS, memory.standings, strict=True))
        proof = {condition: _look(condition, standings[condition], view) for condition in PROOF}
        view = replace(view, grid_proven=all(look.counts for look in proof.values()))
        looks = [
            proof.get(condition) or _look(condition, standings[condition], view) for condition in CONDITIONS
        ]
        excused = () if self.settings.require_grid_proof else PROOF
        decisive = [look for look in looks if look.condition not in excused]
        broken = _broken(decisive)
        blockers = broken or _settling(decisive, now_ns)
        verdict = Verdict(
            allowed=not blockers,
            budget_w=0.0 if blockers else self._budget_w(view),
            blockers=blockers,
            next_ns=self._next_ns(looks, view),
            judged=tuple(look.judged for look in looks),
            settling=bool(blockers) and not broken,
            on_pack=not blockers and not view.grid_proven,
        )
        return verdict, _remembered(verdict, looks, view, whereabouts)

    def _view(
        self,
        snapshot: Snapshot,
        memory: Memory,
        now_ns: int,
        orders: Orders,
        unix_s: float | None,
        *,
        outside: bool,
    ) -> View:
        pack_use = memory.pack_use.followed(number(snapshot, vss.SOC), now_ns)
        return View(
            snapshot=snapshot,
            settings=self.settings,
            declared=self.declared,
            compute_w=self.compute_w,
            least_w=self.compute_w if self.least_w is None else self.least_w,
            orders=orders,
            unix_s=unix_s,
            now_ns=now_ns,
            grid_proven=False,
            allowed=memory.allowed,
            on_pack=memory.on_pack,
            pack_use=pack_use,
            supply_v=self._filtered(memory.supply_v, number(snapshot, vss.LOW_VOLTAGE_BATTERY), now_ns),
            starts_ns=memory.starts_ns,
            region=self.region.code if self.region else None,
            outside=outside,
        )

    def _whereabouts(self, before: Whereabouts, snapshot: Snapshot) -> Whereabouts:
        if self.region is None:
            return before
        here = position(number(snapshot, vss.LONGITUDE), number(snapshot, vss.LATITUDE))
        return before if here is None else before.followed(self.region, *here)

    def _filtered(self, before: LowPass | None, supply_v: float | None, now_ns: int) -> LowPass | None:
        """The filter moves on with each look, and starts again after the supply was unknown."""
        if supply_v is None:
            return None
        return (before or LowPass(supply_v, supply_v, now_ns, self.settings.lv_filter_s)).moved(
            supply_v, now_ns
        )

    def _budget_w(self, view: View) -> float:
        """Watts that may be drawn: the need, derated from `chip_derate_c` to `chip_stop_c`, and the grid's limit."""
        chip_c = number(view.snapshot, vss.CHIP_TEMPERATURE)
        if chip_c is None:
            return 0.0
        span_c = self.settings.chip_stop_c - self.settings.chip_derate_c
        share = max(0.0, min(1.0, (self.settings.chip_stop_c - chip_c) / span_c))
        limit_w = grid_limit_w(view)
        return min(self.compute_w * share, self.compute_w if limit_w is None else limit_w)

    def _next_ns(self, looks: Sequence["_Look"], view: View) -> int | None:
        times_ns = [look.next_ns for look in looks if look.next_ns is not None]
        renews_ns = view.pack_use.renews_ns(view.now_ns)
        if renews_ns is not None:
            times_ns.append(renews_ns)
        return min(times_ns, default=None)


class _Look(msgspec.Struct, frozen=True):
    """One condition judged once. `settled_ns`: when its window ends; `next_ns`: when time alone may change it."""

    condition: Condition
    judged: Judged
    standing: Standing
    blocker: Blocker | None = None
    settled_ns: int | None = None
    next_ns: int | None = None

    @property
    def counts(self) -> bool:
        """It holds, its window has passed; or it fails within its grace."""
        return self.blocker is None and self.settled_ns is None


def _look(condition: Condition, before: Standing, view: View) -> _Look:
    judged = condition.judge(view, before.held_ns is not None)
    again_ns = None if judged.again_s is None else view.now_ns + int(judged.again_s * NS) + _A_MOMENT_NS
    if judged.holds:
        return _holding(condition, judged, before, view, again_ns)
    counted = before.held_ns is not None and view.now_ns >= before.held_ns + before.window_ns
    dip = _dip(condition, judged, before, view) if judged.holds is False and counted else None
    if dip is not None:
        return dip
    broken_ns = view.now_ns if before.broken_ns is None else before.broken_ns
    lapsed = before.lapsed or (judged.holds is False and counted)
    standing = Standing(broken_ns=broken_ns, lapsed=lapsed)
    blocker = _blocker(condition, judged, broken_ns, again_ns)
    return _Look(condition, judged, standing, blocker, next_ns=again_ns)


def _dip(condition: Condition, judged: Judged, before: Standing, view: View) -> _Look | None:
    """False, but within the grace; None when that is used up.

    Dips share one grace until it has held for its window again: else work would go on for ever without grid power
    that comes back for a moment now and then.
    """
    if before.failing_ns is None:
        forgiven = view.now_ns - before.mended_ns >= before.window_ns
        before = replace(before, failing_ns=view.now_ns, spent_ns=0 if forgiven else before.spent_ns)
    left_ns = int(condition.grace_s(view.settings) * NS) - before.spent_ns
    ends_ns = (before.failing_ns or 0) + left_ns
    if left_ns <= 0 or view.now_ns > ends_ns:
        return None
    return _Look(condition, judged, before, next_ns=ends_ns + 1)


def _mended(standing: Standing, now_ns: int) -> Standing:
    """It holds; a dip, if there was one, has ended."""
    if standing.failing_ns is None:
        return standing
    spent_ns = standing.spent_ns + now_ns - standing.failing_ns
    return replace(standing, failing_ns=None, spent_ns=spent_ns, mended_ns=now_ns)


def _holding(
    condition: Condition, judged: Judged, before: Standing, view: View, again_ns: int | None
) -> _Look:
    standing, held_ns = _mended(before, view.now_ns), before.held_ns
    if held_ns is None:
        resuming = before.lapsed and condition.resume_s is not None
        window_s = condition.resume_s if resuming and condition.resume_s else condition.window_s
        held_ns, window_ns = view.now_ns, int(window_s(view.settings) * NS)
        standing = Standing(held_ns, window_ns, lapsed=before.lapsed)
    settled_ns = held_ns + standing.window_ns
    if settled_ns <= view.now_ns:
        standing = replace(standing, lapsed=False) if standing.lapsed else standing
        return _Look(condition, judged, standing, next_ns=again_ns)
    next_ns = settled_ns if again_ns is None else min(settled_ns, again_ns)
    return _Look(condition, judged, standing, settled_ns=settled_ns, next_ns=next_ns)


def _blocker(condition: Condition, judged: Judged, since_ns: int, until_ns: int | None) -> Blocker:
    reason = Reason.UNKNOWN_SIGNAL if judged.holds is None else condition.reason
    return Blocker(reason, condition.cause, judged.value, judged.limit, since_ns, until_ns)


def _broken(looks: Sequence[_Look]) -> tuple[Blocker, ...]:
    """Where two conditions rest on one signal the first of the table speaks for both."""
    first: dict[tuple[Reason, Value | None], Blocker] = {}
    for look in looks:
        if look.blocker is not None:
            first.setdefault((look.blocker.reason, look.blocker.value), look.blocker)
    return tuple(first.values())


def _settling(looks: Sequence[_Look], now_ns: int) -> tuple[Blocker, ...]:
    """The one blocker that stands while windows have still to pass: the seconds left of the longest."""
    waiting = [(look.settled_ns, look) for look in looks if look.settled_ns is not None]
    if not waiting:
        return ()
    settled_ns, last = max(waiting, key=lambda pair: pair[0])
    limit = f"{last.condition.reason.label} to stay clear"
    since_ns = last.standing.held_ns or now_ns
    left_s = round((settled_ns - now_ns) / NS, 1)
    return (Blocker(Reason.SETTLING, last.condition.cause, left_s, limit, since_ns, settled_ns),)


def _remembered(verdict: Verdict, looks: Sequence[_Look], view: View, whereabouts: Whereabouts) -> Memory:
    starts_ns = tuple(start_ns for start_ns in view.starts_ns if view.now_ns - start_ns < HOUR_NS)
    if verdict.allowed and not view.allowed:
        starts_ns = (*starts_ns, view.now_ns)
    pack_use = view.pack_use
    if verdict.on_pack:
        pack_use = pack_use.begun(number(view.snapshot, vss.SOC))
    elif view.grid_proven or looks[_PARKED].judged.holds is False:
        pack_use = pack_use.ended(view.now_ns)
    return Memory(
        standings=tuple(look.standing for look in looks),
        allowed=verdict.allowed,
        on_pack=verdict.on_pack,
        supply_v=view.supply_v,
        pack_use=pack_use,
        starts_ns=starts_ns,
        whereabouts=whereabouts,
    )
