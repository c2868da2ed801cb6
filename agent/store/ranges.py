"""Half-open row ranges."""

from collections.abc import Iterable

Range = tuple[int, int]


def merged(ranges: Iterable[Range]) -> list[Range]:
    """The same rows in the fewest ranges, in order."""
    whole: list[Range] = []
    for begin, end in sorted(ranges):
        if whole and begin <= whole[-1][1]:
            whole[-1] = (whole[-1][0], max(end, whole[-1][1]))
        else:
            whole.append((begin, end))
    return whole


def gaps(done: Iterable[Range], begin: int, end: int) -> list[Range]:
    """What `done`, merged and inside `[begin, end)`, leaves of `[begin, end)`."""
    left: list[Range] = []
    for done_from, done_to in done:
        if begin < done_from:
            left.append((begin, done_from))
        begin = done_to
    if begin < end:
        left.append((begin, end))
    return left
