"""The area of a region as the user gives it: GeoJSON (RFC 7946), WGS 84 degrees, longitude first."""

from itertools import chain, pairwise
from pathlib import Path
from typing import Annotated, Final

import msgspec

from agent.policy.area import Area, Position

FILE_MAX_BYTES: Final = 2_000_000
POSITIONS_MAX: Final = 10_000
"""So many take a few ms to look at, while nothing else can."""

_Coordinates = Annotated[tuple[float, ...], msgspec.Meta(min_length=2, max_length=4)]
_Ring = Annotated[list[_Coordinates], msgspec.Meta(min_length=4)]
_Rings = Annotated[list[_Ring], msgspec.Meta(min_length=1)]


class _Polygon(msgspec.Struct, tag_field="type", tag="Polygon"):
    coordinates: _Rings

    @property
    def rings(self) -> list[_Ring]:
        return self.coordinates


class _MultiPolygon(msgspec.Struct, tag_field="type", tag="MultiPolygon"):
    coordinates: Annotated[list[_Rings], msgspec.Meta(min_length=1)]

    @property
    def rings(self) -> list[_Ring]:
        return list(chain.from_iterable(self.coordinates))


class _Feature(msgspec.Struct, tag_field="type", tag="Feature"):
    geometry: _Polygon | _MultiPolygon

    @property
    def rings(self) -> list[_Ring]:
        return self.geometry.rings


class _FeatureCollection(msgspec.Struct, tag_field="type", tag="FeatureCollection"):
    features: Annotated[list[_Feature], msgspec.Meta(min_length=1)]

    @property
    def rings(self) -> list[_Ring]:
        return list(chain.from_iterable(feature.rings for feature in self.features))


_GEOJSON = msgspec.json.Decoder(_Polygon | _MultiPolygon | _Feature | _FeatureCollection)


def load(path: Path) -> Area:
    """The area; ValueError in one line for a file that is none, or a larger one than a car can look at."""
    try:
        with path.open("rb") as file:
            body = file.read(FILE_MAX_BYTES + 1)
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror}): give the path of a readable file") from error
    if len(body) > FILE_MAX_BYTES:
        raise ValueError(f"has more than {FILE_MAX_BYTES} bytes: simplify the outline")
    try:
        rings = _GEOJSON.decode(body).rings
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(
            f"is no GeoJSON with polygons ({error}): give a Polygon, MultiPolygon, Feature or FeatureCollection"
        ) from error
    count = sum(map(len, rings))
    if count > POSITIONS_MAX:
        raise ValueError(f"has {count} positions, at most {POSITIONS_MAX} are taken: simplify the outline")
    return Area([_checked(ring) for ring in rings])


def _checked(ring: _Ring) -> list[Position]:
    """The ring as GeoJSON wants it: closed, on the globe, and cut where it would cross the antimeridian."""
    positions = [(coordinates[0], coordinates[1]) for coordinates in ring]
    if positions[0] != positions[-1]:
        raise ValueError(f"a ring begins at {list(positions[0])} and ends elsewhere: close it")
    for longitude, latitude in positions:
        if not (abs(longitude) <= 180 and abs(latitude) <= 90):
            raise ValueError(
                f"[{longitude:g}, {latitude:g}] is not on the globe: longitude -180..180 first, then latitude -90..90"
            )
    for (west, _), (east, _) in pairwise(positions):
        if 180 < abs(east - west) < 360:
            raise ValueError(
                f"an edge goes from longitude {west:g} to {east:g}: cut the polygon at the antimeridian"
                " (RFC 7946 section 3.1.9)"
            )
    return positions
