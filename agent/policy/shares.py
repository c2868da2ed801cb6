"""How backends share a power budget that is smaller than what they need together."""

from collections.abc import Sequence

ROUNDING = 1e-9


def shares(needs_w: Sequence[float], budget_w: float) -> list[float]:
    """The part of the time that each backend may run, 0 to 1; the first of the configuration goes first.

    A backend runs the whole time if it fits beside those before it, else not at all: so the budget holds at every
    moment. Where not even the smallest fits, it alone runs, with rests: so the budget holds on average.
    """
    left_w, given = budget_w * (1 + ROUNDING), []
    for need_w in needs_w:
        fits = need_w <= left_w
        left_w -= need_w if fits else 0.0
        given.append(1.0 if fits else 0.0)
    if not any(given):
        smallest = min(range(len(needs_w)), key=needs_w.__getitem__)
        given[smallest] = budget_w / needs_w[smallest]
    return given
