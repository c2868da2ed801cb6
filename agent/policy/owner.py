"""The owner and the people around the car: whoever touches it has it back at once."""

from typing import Final

from agent.policy.condition import DOES_NOT_APPLY, Judged, View, every, judged, within
from firmware_shims import vss

PRESENCE_REQUIRED: Final = (vss.LOW_VOLTAGE_STATE, vss.DRIVER_DOOR)
PRESENCE_OPTIONAL: Final = (*vss.DOORS[1:], vss.DRIVER_SEAT, vss.BRAKE)
AWAY_STATES: Final = frozenset({"OFF", "LOCK"})
STANDSTILL_KMH: Final = 0.5


def away(view: View, _: bool) -> Judged:
    """Doors closed, seat empty, brake released, power off; a touch of any of them is the owner."""
    sensors = (*PRESENCE_REQUIRED[1:], *(path for path in PRESENCE_OPTIONAL if path in view.declared))
    return every(
        (
            judged(view, vss.LOW_VOLTAGE_STATE, lambda value: value in AWAY_STATES, "OFF or LOCK"),
            *(judged(view, path, lambda value: value in (False, 0), _released(path)) for path in sensors),
        )
    )


def _released(path: str) -> str:
    return f"{path.removeprefix('Vehicle.')} false or 0"


def locked(view: View, _: bool) -> Judged:
    """Unlocking is the first thing that an owner does."""
    if vss.DRIVER_LOCK not in view.declared or not view.settings.require_locked:
        return DOES_NOT_APPLY
    return judged(view, vss.DRIVER_LOCK, lambda value: value in (True, 1), "locked")


def parked(view: View, _: bool) -> Judged:
    """Gear in park, and standing."""
    return every(
        (
            judged(view, vss.GEAR, lambda value: value == vss.GEAR_PARK, f"gear {vss.GEAR_PARK} (park)"),
            judged(
                view,
                vss.SPEED,
                within(-STANDSTILL_KMH, STANDSTILL_KMH),
                f"|speed| <= {STANDSTILL_KMH:g} km/h",
            ),
        )
    )


def not_paused(view: View, _: bool) -> Judged:
    """The vehicle's operating system needs the computer for itself."""
    return Judged(not view.orders.paused, view.orders.paused, "not paused by the vehicle OS")


def consents(view: View, _: bool) -> Judged:
    """The owner's word; without any, `require_consent` decides."""
    given = view.orders.consent
    holds = given if given is not None else not view.settings.require_consent
    return Judged(holds, "not asked" if given is None else given, "the owner's consent")
