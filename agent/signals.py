"""Fusion of what the sources deliver into one snapshot, with the age of every reading.

Not thread-safe: the guard calls it under its lock.
"""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from agent.policy.condition import within
from agent.policy.owner import STANDSTILL_KMH
from firmware_shims import vss
from firmware_shims.reading import Quality, Reading, Snapshot, Source

NS = 1_000_000_000
LARGEST = sys.float_info.max
REST: Final[Mapping[str, float]] = {vss.SPEED: STANDSTILL_KMH, vss.BRAKE: 0.0}
"""Quantities of which the policy asks only whether they rest: within so much of 0."""
SOURCE_SILENT_NS = NS
"""A source that has not said `heard` for so long has died or hangs: nothing of it is trusted."""
UNWATCHED_NS = 5 * NS
"""A gap so long between two looks means that this computer slept (or was stopped): everything is forgotten."""


class Signals:
    """The latest reading of every signal by source. The order of the sources is their precedence."""

    def __init__(self, sources: Sequence[Source]) -> None:
        names = [source.name for source in sources]
        if len(set(names)) != len(names):
            raise ValueError(f"two signal sources have the same name: {sorted(names)}")
        self._stale_ns = {
            source.name: {path: int(age_s * NS) for path, age_s in source.stale_after_s.items()}
            for source in sources
        }
        self._latest: dict[str, dict[str, Reading]] = {name: {} for name in names}
        self._heard_ns: dict[str, int] = {}
        self._looked_ns: int | None = None
        self.declared = frozenset(path for ages in self._stale_ns.values() for path in ages)

    def update(self, readings: Iterable[Reading]) -> int | None:
        """Take readings in; returns the stamp of the last one that may change a verdict, None when none may."""
        changed_ns = None
        for reading in readings:
            self._heard_ns.setdefault(reading.source, reading.stamp_ns)
            latest = self._latest[reading.source]
            before = latest.get(reading.path)
            fresh = _sound(reading)
            latest[reading.path] = fresh
            if before is None or before.quality is not fresh.quality or _differ(before, fresh):
                changed_ns = fresh.stamp_ns
        return changed_ns

    def heard(self, source: str, now_ns: int) -> bool:
        """Judge ages: everything sent up to `now_ns` has been delivered. True when a reading went stale."""
        self._heard_ns[source] = now_ns
        ages = self._stale_ns[source]
        return self._expire(source, lambda reading: now_ns - reading.stamp_ns > ages[reading.path])

    def look(self, now_ns: int) -> bool:
        """Notice dead sources and a computer that slept. True when a reading changed."""
        unwatched = self._looked_ns is not None and now_ns - self._looked_ns > UNWATCHED_NS
        self._looked_ns = now_ns
        if unwatched:
            forgotten = any(self._latest.values())
            self._latest = {name: {} for name in self._latest}
            self._heard_ns = {}
            return forgotten
        silent = [name for name, heard_ns in self._heard_ns.items() if now_ns - heard_ns > SOURCE_SILENT_NS]
        gone = [self._expire(name, lambda _: True) for name in silent]
        return any(gone)

    def snapshot(self, now_ns: int) -> Snapshot:
        """Fuse: the first source with a good reading speaks for a signal, else the first with any.

        Good readings that contradict each other are none: who says "closed" while another says "open" is not believed.
        """
        offered: dict[str, list[Reading]] = {}
        for latest in self._latest.values():
            for path, reading in latest.items():
                offered.setdefault(path, []).append(reading)
        return Snapshot(now_ns, {path: _fused(readings) for path, readings in offered.items()})

    def _expire(self, source: str, stale: Callable[[Reading], bool]) -> bool:
        latest = self._latest[source]
        gone = [r for r in latest.values() if r.quality is Quality.GOOD and stale(r)]
        for reading in gone:
            latest[reading.path] = replace(reading, quality=Quality.STALE)
        return bool(gone)


def _fused(readings: Sequence[Reading]) -> Reading:
    good = [reading for reading in readings if reading.quality is Quality.GOOD]
    if not good:
        return readings[0]
    first = good[0]
    if any(_contradicts(first, other) for other in good[1:]):
        witnesses = " against ".join(reading.source for reading in good)
        return replace(first, value=None, quality=Quality.INVALID, source=witnesses)
    return first


def _contradicts(one: Reading, other: Reading) -> bool:
    """Whether two good readings cannot both be true. Measured quantities differ a little; states do not."""
    is_state = one.path == vss.GEAR or any(isinstance(reading.value, bool | str) for reading in (one, other))
    if is_state:
        return one.value != other.value
    return one.path in REST and _rests(one) is not _rests(other)


def _differ(one: Reading, other: Reading) -> bool:
    """Whether two readings of one quality can lead to different verdicts: how fast a moving car moves cannot."""
    if one.value == other.value:
        return False
    is_state = any(isinstance(reading.value, bool | str) for reading in (one, other))
    if is_state or one.path not in REST or one.quality is not Quality.GOOD:
        return True
    return _rests(one) is not _rests(other)


def _rests(reading: Reading) -> bool:
    return within(-REST[reading.path], REST[reading.path])(reading.value or 0)


def _sound(reading: Reading) -> Reading:
    """A good reading without a usable value is invalid, whatever its source says of it."""
    value = reading.value
    if reading.quality is not Quality.GOOD or isinstance(value, bool | str):
        return reading
    if value is None or not -LARGEST <= value <= LARGEST:  # NaN is on neither side
        return replace(reading, value=None, quality=Quality.INVALID)
    return reading
