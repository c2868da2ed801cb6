"""What a computer draws while nothing runs on it, measured by its own meter."""

from collections import deque
from dataclasses import dataclass
from typing import Final

NS: Final = 1_000_000_000
ENOUGH: Final = 3
"""From so many windows on there is a figure."""
WINDOWS: Final = 10
"""So many are kept; a baseline has become old once it has not so many that are fresh."""
FRESH_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class Baseline:
    """Idle power. `spread_w`: from the lower to the upper quartile of the windows; `at_ns`: the end of the newest."""

    watts: float
    spread_w: float
    at_ns: int
    windows: int


class IdleBaseline:
    """The lower quartile of the last idle windows: what disturbs an idle computer only ever adds to its power."""

    def __init__(self) -> None:
        self._windows: deque[tuple[float, int]] = deque(maxlen=WINDOWS)
        self._now: Baseline | None = None

    @property
    def now(self) -> Baseline | None:
        """The figure; None before enough idle windows were seen."""
        return self._now

    def add(self, watts: float, at_ns: int) -> None:
        """Take a window's mean power, and when it ended."""
        self._windows.append((watts, at_ns))
        count = len(self._windows)
        if count >= ENOUGH:
            powers_w = sorted(watts for watts, _ in self._windows)
            low_w, high_w = powers_w[count // 4], powers_w[count * 3 // 4]
            self._now = Baseline(low_w, high_w - low_w, at_ns, count)

    def old_in_s(self, now_ns: int) -> float:
        """After how many seconds idle windows should be measured again; 0 when they should be now."""
        if len(self._windows) < WINDOWS:
            return 0.0
        return max(0.0, FRESH_S - (now_ns - self._windows[0][1]) / NS)
