"""Bars of block characters: a chart of numbers in a few lines of text."""

from collections.abc import Sequence
from typing import Final

EIGHTHS: Final = " ▁▂▃▄▅▆▇█"


def bars(columns: Sequence[float], height: int) -> list[str]:
    """`height` lines, top first, one character a column; the largest column fills them."""
    top = max(columns, default=0.0)
    scale = 8 * height / top if top > 0 else 0.0
    eighths = [round(column * scale) for column in columns]
    return [
        "".join(EIGHTHS[max(0, min(8, each - 8 * level))] for each in eighths)
        for level in reversed(range(height))
    ]
