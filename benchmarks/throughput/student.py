"""Quantiles of Student's t for any confidence: who compares many figures at once needs far ones."""

import math
from functools import lru_cache
from typing import Final

PIECES: Final = 200
HALVINGS: Final = 60


@lru_cache(maxsize=4096)
def two_sided(confidence: float, freedom: int) -> float:
    """The t between whose negative and itself `confidence` of the distribution lies; ValueError for what is no such.

    With t = sqrt(n) tan(a) the density becomes a power of cos(a), smooth on a bounded interval.
    """
    if not 0 < confidence < 1 or freedom < 1:
        raise ValueError(
            f"confidence {confidence:g} with {freedom} degrees of freedom: (0, 1) and 1 at least"
        )
    low, high = 0.0, 1 / math.sqrt(freedom)
    while high < math.pi / 2 and _within(high, freedom) < confidence:
        low, high = high, 2 * high
    high = min(high, math.pi / 2)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < confidence else (low, middle)
    return math.sqrt(freedom) * math.tan(low)


def _within(angle: float, freedom: int) -> float:
    """The share of the distribution from -angle to angle, by Simpson's rule."""
    step = angle / PIECES
    total = 1 + math.cos(angle) ** (freedom - 1)
    for piece in range(1, PIECES):
        total += (4 if piece % 2 else 2) * math.cos(piece * step) ** (freedom - 1)
    log_scale = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)
    return 2 * math.exp(log_scale) / math.sqrt(math.pi) * total * step / 3
