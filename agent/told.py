"""Times, spans and energies as people read them."""

import datetime as dt
from typing import Final

WH_J: Final = 3600.0


def span(seconds: float) -> str:
    """`41 s`, `12 min` or `3.5 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7_200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3_600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} days"


def age(then: dt.datetime, now: dt.datetime) -> str:
    """How long ago; a clock that was set back shows 0 s."""
    return span(max((now - then).total_seconds(), 0.0))


def ago(then: dt.datetime, now: dt.datetime) -> str:
    """`12 min ago`."""
    return f"{age(then, now)} ago"


def ahead(then: dt.datetime, now: dt.datetime) -> str:
    """`in 12 min`, or how long ago that was."""
    return f"in {age(now, then)}" if then > now else ago(then, now)


def joules(energy_j: float) -> str:
    """Joules as far as they can be grasped, then watt hours: `812 J`, `4.2 Wh`, `1.31 kWh`."""
    if energy_j < 1000:
        return f"{energy_j:.3g} J"
    if energy_j < 1000 * WH_J:
        return f"{energy_j / WH_J:.3g} Wh"
    return f"{energy_j / (1000 * WH_J):.3g} kWh"
