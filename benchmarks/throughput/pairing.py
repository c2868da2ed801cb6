"""Which row of one file is which row of another."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.throughput.results import Row


@dataclass(frozen=True, slots=True)
class Paired:
    """Rows of `a` and `b` that are the same measurement, and those that have no other side."""

    pairs: Sequence[tuple[Row, Row]]
    only_a: Sequence[Row]
    only_b: Sequence[Row]


KEYS: Final[Sequence[Callable[[Row], Hashable]]] = (
    lambda row: row.key,
    lambda row: (row.model.id, row.backend.use, row.backend.device, row.scenario.name),
    lambda row: (row.model.id, row.scenario.name, row.scenario.batch),
    lambda row: (row.model.id, row.scenario.name),
)
"""In this order: all that makes a row; another batch, which `run` chooses for itself; another backend; both."""


def paired(a: Iterable[Row], b: Iterable[Row]) -> Paired:
    """By the strictest of `KEYS` that leaves no choice on either side."""
    found = Paired([], list(a), list(b))
    for key in KEYS:
        more = _matched(found.only_a, found.only_b, key)
        found = Paired([*found.pairs, *more.pairs], more.only_a, more.only_b)
    return found


def _matched(a: Sequence[Row], b: Sequence[Row], key: Callable[[Row], Hashable]) -> Paired:
    of_a, of_b = _by(a, key), _by(b, key)
    shared = [each for each in of_a if len(of_a[each]) == 1 == len(of_b.get(each, ()))]
    return Paired(
        [(of_a[each][0], of_b[each][0]) for each in shared],
        [row for row in a if key(row) not in shared],
        [row for row in b if key(row) not in shared],
    )


def _by(rows: Sequence[Row], key: Callable[[Row], Hashable]) -> dict[Hashable, list[Row]]:
    found: defaultdict[Hashable, list[Row]] = defaultdict(list)
    for row in rows:
        found[key(row)].append(row)
    return dict(found)
