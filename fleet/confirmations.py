from collections.abc import Iterator
from typing import Final

Settlement = tuple[str, int, int, int]
"""(id, attempt, from, to) of a result."""

MOST: Final = 10_000
"""Results in one `settled` (the wire contract's limit)."""
ENVELOPE_BYTES: Final = 256
"""Everything in a `settled` but its results."""
NUMBERS_BYTES: Final = 48
"""The numbers and the punctuation of one result at their longest."""


class Confirmations:
    """Results that were taken and that the vehicle has not been told of, in as few messages as possible."""

    def __init__(self, limit_bytes: int) -> None:
        self._room_bytes = limit_bytes - ENVELOPE_BYTES
        self._results: list[Settlement] = []

    def __len__(self) -> int:
        return len(self._results)

    def add(self, result: Settlement) -> None:
        """Owe a confirmation."""
        self._results.append(result)

    def take(self) -> Iterator[list[Settlement]]:
        """What is owed, in lists that fit a message each; it counts as said."""
        results, self._results = self._results, []
        batch: list[Settlement] = []
        batch_bytes = 0
        for result in results:
            size = len(result[0]) + NUMBERS_BYTES
            if batch and (len(batch) == MOST or batch_bytes + size > self._room_bytes):
                yield batch
                batch, batch_bytes = [], 0
            batch.append(result)
            batch_bytes += size
        if batch:
            yield batch
