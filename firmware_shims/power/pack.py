"""The traction battery as a meter: voltage times current, for want of a better one and for long windows.

It sees the whole vehicle, and only while the pack gives: a pack that is being charged says nothing about what
the computer draws.
"""

from collections.abc import Callable
from typing import Final

from firmware_shims import vss
from firmware_shims.clock import Clock
from firmware_shims.power.meter import MeterFailed, Scope
from firmware_shims.power.sampled import SampledMeter
from firmware_shims.reading import Snapshot

STEP_W: Final = 40.0
"""One step of 0.1 A at 400 V."""
RESOLUTION_S: Final = 10.0
"""A computer of 40 W moves the current by a single step: only minutes tell something."""
NEEDED: Final = (vss.PACK_VOLTAGE, vss.PACK_CURRENT)


def pack(snapshot: Callable[[], Snapshot], clock: Clock) -> SampledMeter:
    """A meter over what the car says of its pack."""
    return SampledMeter(
        "pack",
        Scope.VEHICLE,
        lambda: _watts(snapshot()),
        clock,
        resolution_w=STEP_W,
        resolution_s=RESOLUTION_S,
    )


def _watts(seen: Snapshot) -> float:
    values = {path: seen.good(path) for path in NEEDED}
    for path, value in values.items():
        if isinstance(value, bool) or not isinstance(value, float | int):
            raise MeterFailed(
                f"{path} is unknown", "add a signal source that offers it, or take another meter"
            )
    volts, amperes = (float(value or 0.0) for value in values.values())
    if amperes > 0:
        raise MeterFailed(
            f"the pack is being charged with {amperes:g} A", "take a meter of the computer itself"
        )
    return volts * -amperes
