"""Jobs that are owed and have found no room: in what order and when they are tried again."""

import asyncio
from collections.abc import Callable, Hashable
from typing import Any, Final, NamedTuple, TypeVar

from agent.store.ledger import Ledger
from firmware_shims.clock import Clock

T = TypeVar("T")
Job = Callable[[Ledger], T]
FIRST_PAUSE_S: Final = 0.25
LONGEST_PAUSE_S: Final = 10.0
NS: Final = 1_000_000_000


class Entry(NamedTuple):
    """A job and who waits for it. One with a `lane` is owed: it is done once there is room, in the lane's order."""

    job: Job[Any]
    future: asyncio.Future[Any]
    lane: Hashable | None


class Waiting:
    """The entries that wait, oldest first. Belongs to the writer's thread; only `len` is for others."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._entries: list[Entry] = []
        self._pause_s = FIRST_PAUSE_S
        self._due_ns = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def lanes(self) -> set[Hashable]:
        """Lanes in which somebody waits: who comes later waits behind."""
        return {entry.lane for entry in self._entries}

    @property
    def wait_s(self) -> float | None:
        """Seconds until they are due, 0 from then on; None when nobody waits."""
        return max(0.0, (self._due_ns - self._clock()) / NS) if self._entries else None

    def add(self, entry: Entry) -> None:
        """Put an entry behind the others."""
        if not self._entries:
            self._due_ns = self._clock() + int(self._pause_s * NS)
        self._entries.append(entry)

    def hurry(self) -> None:
        """Something that was owed has been committed, and may have left room."""
        self._due_ns = self._clock()

    def take(self) -> list[Entry]:
        """All of them, to be tried now; those that still find no room are put back by `add`."""
        taken, self._entries = self._entries, []
        return taken

    def tried(self, taken: int) -> None:
        """After an attempt with `taken` entries: pause longer where none of them found room."""
        stuck = len(self._entries) == taken
        self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S) if stuck else FIRST_PAUSE_S
        self._due_ns = self._clock() + int(self._pause_s * NS)
