"""Where the car may compute: its position against the region that the configuration says it is in.

No position leaves this file: what is said of it is "inside" or "outside".
"""

import math
from dataclasses import dataclass
from typing import Final

import msgspec

from agent.policy.area import METRES_A_DEGREE, Area
from agent.policy.condition import DOES_NOT_APPLY, Judged, View
from firmware_shims import vss

POSITION: Final = (vss.LATITUDE, vss.LONGITUDE)
FAR_M: Final = 10_000.0
"""A car so far from the border is looked at anew after half of it: distances further away are not exact."""


@dataclass(frozen=True, slots=True)
class Region:
    """`code` is ISO 3166-1 or 3166-2. A position up to `margin_m` outside of the area counts as inside."""

    code: str
    area: Area
    margin_m: float


class Whereabouts(msgspec.Struct, frozen=True):
    """What is remembered of the car's position.

    `outside`: it was seen outside, and not inside since. Nothing changes within `free_m` of where it was last measured.
    """

    outside: bool = False
    longitude: float = math.nan
    latitude: float = math.nan
    free_m: float = 0.0

    def followed(self, region: Region, longitude: float, latitude: float) -> "Whereabouts":
        """Take a look at the position, good and in degrees."""
        if self._moved_m(longitude, latitude) <= self.free_m:
            return self
        inside_m = region.area.inside_m(longitude, latitude) + region.margin_m
        return Whereabouts(inside_m < 0, longitude, latitude, min(abs(inside_m), FAR_M) / 2)

    def _moved_m(self, longitude: float, latitude: float) -> float:
        """NaN, which is no distance, before the first position."""
        east = math.remainder(longitude - self.longitude, 360) * math.cos(math.radians(latitude))
        return math.hypot(east, latitude - self.latitude) * METRES_A_DEGREE


UNSEEN: Final = Whereabouts()


def position(longitude: float | None, latitude: float | None) -> tuple[float, float] | None:
    """The two as a position; None for what is none, such as the 0, 0 of a receiver that has not found itself."""
    if longitude is None or latitude is None or longitude == latitude == 0:
        return None
    return (longitude, latitude) if abs(longitude) <= 180 and abs(latitude) <= 90 else None


def in_region(view: View, _: bool) -> Judged:
    """A car without a position is where it was last seen; one that was never seen is where it is said to be."""
    if view.region is None or not view.declared.issuperset(POSITION):
        return DOES_NOT_APPLY
    return Judged(not view.outside, "outside" if view.outside else "inside", f"inside {view.region}")
