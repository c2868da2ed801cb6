"""How much a store may still hold, and what of it is kept back for the results of what was accepted.

New tasks end where the reserve begins, rows that wait to be sent where half of it is left. The rest is for results
alone: so there is always one that can leave, be settled and make room for the next, and a full store empties itself.
"""

import sqlite3
from typing import Final

from agent.store.errors import StoreFull

RESERVED_SHARE: Final = 0.1
RESERVED_BYTES: Final = 4 * 1024**2
"""At least this much, or half of a store that is smaller than twice as much."""


def reserve_of(max_bytes: int) -> int:
    """Bytes that a store of this size keeps back."""
    return max(int(max_bytes * RESERVED_SHARE), min(RESERVED_BYTES, max_bytes // 2))


class Room:
    """Counts pages over one connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.execute
        self._page_bytes = self._number("page_size")
        self.max_bytes = self._number("max_page_count") * self._page_bytes
        self.reserve_bytes = reserve_of(self.max_bytes)
        self.shut = ""
        """Why no new task is taken at present, however much room there is."""
        self._free_bytes = 0

    def look_again(self) -> None:
        """Trust no count of before: a transaction begins."""
        self._free_bytes = 0

    @property
    def used_bytes(self) -> int:
        """Bytes of pages that hold something."""
        return (self._number("page_count") - self._number("freelist_count")) * self._page_bytes

    @property
    def is_short(self) -> bool:
        """Whether not much is left above the reserve."""
        return self.max_bytes - self.used_bytes < 1.5 * self.reserve_bytes

    def claim_for_task(self, size_bytes: int) -> None:
        """Raise `StoreFull` unless a task of this size leaves the reserve free, and nothing else stands against it."""
        if self.shut:
            raise StoreFull(self.shut)
        self._claim(size_bytes, self.reserve_bytes)

    def claim_for_rows(self, size_bytes: int) -> None:
        """Raise `StoreFull` unless rows of this size leave half of the reserve free."""
        self._claim(size_bytes, self.reserve_bytes // 2)

    def took(self, size_bytes: int) -> None:
        """Something of this size was put in without a claim."""
        self._free_bytes -= size_bytes

    def _claim(self, size_bytes: int, kept_bytes: int) -> None:
        """Counts the pages only where those that the last count has left may not be enough."""
        claim_bytes = size_bytes + self._page_bytes
        if claim_bytes > self._free_bytes - kept_bytes:
            self._free_bytes = self.max_bytes - self.used_bytes
        if claim_bytes > self._free_bytes - kept_bytes:
            raise StoreFull(
                f"store.max_bytes is {self.max_bytes}: {max(self._free_bytes - kept_bytes, 0)} bytes are left"
                f" for this, {kept_bytes} more for results"
            )
        self._free_bytes -= claim_bytes

    def _number(self, pragma: str) -> int:
        (number,) = self._execute(f"PRAGMA {pragma}").fetchone()
        return int(number)
