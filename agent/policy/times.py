"""What the clock says: the owner's weekly schedule, the departure ahead, and how often work was started."""

from typing import Final

from agent.policy.condition import DOES_NOT_APPLY, Judged, View, number, unknown
from agent.policy.schedule import weekly
from firmware_shims import vss

HOUR_NS: Final = 3_600_000_000_000
CHARGE_MARGIN: Final = 1.1
"""The charge takes a tenth longer than the car expects: a judgement, for the start only."""
MISSED_S: Final = 3_600.0
"""A departure so long ago did not take place."""
CLOCK = "the wall clock"


def in_schedule(view: View, _: bool) -> Judged:
    """Inside one of the owner's weekly windows, on the clocks of the place."""
    settings = view.settings
    if not settings.schedule:
        return DOES_NOT_APPLY
    if view.unix_s is None:
        return Judged(None, CLOCK, "a clock that can be trusted")
    inside, until_s = weekly(settings.schedule, settings.time_zone).at(view.unix_s)
    return Judged(inside, inside, "inside policy.schedule", until_s - view.unix_s)


def not_departing(view: View, held: bool) -> Judged:
    """The owner does not leave soon, and the charge that is still to come will be done in time."""
    if view.orders.departure_s is None:
        return DOES_NOT_APPLY
    if view.unix_s is None:
        return Judged(None, CLOCK, "a clock that can be trusted")
    left_s = view.orders.departure_s - view.unix_s
    if left_s < -MISSED_S:
        return DOES_NOT_APPLY
    needed_s = view.settings.departure_lead_s
    if vss.TIME_TO_COMPLETE in view.declared:
        charge_s = number(view.snapshot, vss.TIME_TO_COMPLETE)
        if charge_s is None:
            return unknown(vss.TIME_TO_COMPLETE, view.snapshot[vss.TIME_TO_COMPLETE].quality)
        needed_s += max(0.0, charge_s) * (1 if held else CHARGE_MARGIN)
    holds = left_s > needed_s
    again_s = left_s - needed_s if holds else left_s + MISSED_S
    return Judged(holds, round(left_s), f"more than {needed_s:.0f} s before the departure", again_s)


def rested(view: View, _: bool) -> Judged:
    """Work is not started more often than so many times an hour."""
    limit = view.settings.starts_per_hour
    recent = [start_ns for start_ns in view.starts_ns if view.now_ns - start_ns < HOUR_NS]
    if view.allowed or len(recent) < limit:
        return Judged(True, len(recent), f"fewer than {limit} starts in the last hour")
    again_s = (recent[-limit] + HOUR_NS - view.now_ns) / 1e9
    return Judged(False, len(recent), f"fewer than {limit} starts in the last hour", again_s)


def not_draining(view: View, _: bool) -> Judged:
    """The fleet wants no work from this car."""
    return Judged(not view.orders.draining, view.orders.draining, "no drain by the fleet")
