"""What a simulated car shows of itself: readings that fail, fall silent while it sleeps, and come in steps."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from firmware_shims import vss
from firmware_shims.reading import Quality, Reading, Value

ON_THE_COMPUTER: Final = frozenset({vss.CHIP_TEMPERATURE, vss.COMPUTE_RAIL, vss.GRID_LIMIT})
"""Read here and not from the car's bus: known while the car sleeps."""
SOURCE: Final = "simulated"


class Sensors:
    """The readings of every declared signal. `changed`: one of them did, in a way that may matter.

    `marks` holds the values of a measured signal between which nothing can depend on it, so that a charge that rises
    for hours is looked at a few times; a look always sees the present value.
    """

    def __init__(self, declared: Iterable[str], marks: Mapping[str, Sequence[float]]) -> None:
        self.readings: dict[str, Reading] = {}
        self.changed = True
        self._declared = frozenset(declared)
        self._marks = {path: (sorted(values), -1) for path, values in marks.items()}
        self._values: dict[str, Value] = {}
        self._faults: dict[str, Quality] = {}
        self._silent = False

    def show(self, path: str, value: Value, now_ns: int) -> None:
        """The signal has this value from now on."""
        if path not in self._declared or self._values.get(path) == value:
            return
        self._values[path] = value
        if path in self._faults or (self._silent and path not in ON_THE_COMPUTER):
            return
        self.readings[path] = Reading(path, value, SOURCE, now_ns)
        marks = self._marks.get(path)
        if marks is None or isinstance(value, bool | str):
            self.changed = True
        elif (place := _place(marks[0], value)) != marks[1]:
            self._marks[path] = (marks[0], place)
            self.changed = True

    def value(self, path: str) -> Value | None:
        """What it would read, failed or not; None: this car has no such signal."""
        return self._values.get(path)

    def fail(self, path: str, quality: Quality | None, now_ns: int) -> None:
        """The sensor fails so; None: it is well again."""
        if quality is None:
            self._faults.pop(path, None)
        else:
            self._faults[path] = quality
        self._renew(path, now_ns)

    def silence(self, silent: bool, now_ns: int) -> None:
        """The car's bus falls silent, or speaks again."""
        self._silent = silent
        for path in self._values:
            self._renew(path, now_ns)

    @property
    def failed(self) -> bool:
        """Whether any of them has failed."""
        return bool(self._faults)

    def _renew(self, path: str, now_ns: int) -> None:
        self.changed = True
        if self._silent and path not in ON_THE_COMPUTER:
            self.readings.pop(path, None)
            return
        value, fault = self._values.get(path), self._faults.get(path)
        if fault is not None:
            value = value if fault is Quality.STALE else None
        if path in self._values:
            self.readings[path] = Reading(path, value, SOURCE, now_ns, fault or Quality.GOOD)


def _place(marks: Sequence[float], value: float) -> int:
    """Between which marks a value lies; on one of them is a place of its own, since limits may include it or not."""
    return bisect_left(marks, value) + bisect_right(marks, value)


def stepped(step: float) -> Callable[[float], float]:
    """How a value reads that comes in steps: the step below it."""
    per_unit = round(1 / step) if step <= 1 else 1 / step
    return lambda value: int(value * per_unit + 1e-6) / per_unit if value >= 0 else value
