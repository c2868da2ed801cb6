"""The tasks of a dispatcher that have not ended, and in which order those without a vehicle get one."""

import datetime as dt
import heapq
from collections.abc import Collection
from dataclasses import dataclass, field

from fleet.offer import Offer
from fleet.placement import Needs
from fleet.queue_ledger import utc
from fleet.queue_records import OpenTask

Turn = tuple[int, int]


@dataclass(slots=True, eq=False)
class Errand:
    """A task that has not ended. `order` grows as tasks are added."""

    id: str
    order: int
    priority: int
    needs: Needs
    rows: int
    """Those that were missing when it was taken up."""
    expires_at: dt.datetime
    crashes: int = 0
    """Attempts at which a vehicle's backend crashed, hung or ran out of memory."""
    refusals: int = 0
    """Attempts in a row that were given back for a reason that may be the task's."""
    given_back_by: set[str] = field(default_factory=set)
    last_word: str = "no vehicle has had it"
    placed: bool = False
    """Whether a vehicle has it, or is about to."""
    offer: Offer | None = None
    offered_ns: int = 0

    @classmethod
    def of(cls, task: OpenTask) -> "Errand":
        """The errand of a task as the queue knows it."""
        return cls(
            task.task.id,
            task.order,
            task.task.priority,
            Needs.of(task.task),
            task.rows_missing,
            utc(task.expires_at),
            task.crashes,
        )

    @property
    def turn(self) -> Turn:
        """Smaller is sooner: the larger priority, then the older task."""
        return -self.priority, self.order


class Line:
    """Errands that wait for a vehicle, in lines of equal needs: what nobody can do now holds up no other needs."""

    def __init__(self) -> None:
        self._waiting: set[Errand] = set()
        # Heaps, in which errands that do not wait any more are left until they come up
        self._lines: dict[Needs, list[tuple[Turn, Errand]]] = {}
        self._held: list[tuple[int, Turn, Errand]] = []
        self._expiries: list[tuple[dt.datetime, Turn, Errand]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, errand: Errand, not_before_ns: int = 0) -> None:
        """Wait from `not_before_ns` on."""
        self._waiting.add(errand)
        heapq.heappush(self._held, (not_before_ns, errand.turn, errand))
        heapq.heappush(self._expiries, (errand.expires_at, errand.turn, errand))

    def remove(self, errand: Errand) -> None:
        """Wait no more: it has ended, or it is the `first` and gets a vehicle."""
        self._waiting.discard(errand)
        line = self._lines.get(errand.needs, [])
        if line and line[0][1] is errand:  # it may be added again
            heapq.heappop(line)

    def first(self, now_ns: int, without: Collection[Needs] = ()) -> Errand | None:
        """The errand whose turn it is, leaving out these needs; it stays in the line."""
        while self._held and self._held[0][0] <= now_ns:
            _, turn, errand = heapq.heappop(self._held)
            heapq.heappush(self._lines.setdefault(errand.needs, []), (turn, errand))
        heads = [head for needs in list(self._lines) if needs not in without for head in self._head(needs)]
        return min(heads, key=lambda head: head[0])[1] if heads else None

    def expired(self, now: dt.datetime) -> list[Errand]:
        """Those whose time was over at `now`, once each; they stay in the line."""
        over = []
        while self._expiries and self._expiries[0][0] <= now:
            _, _, errand = heapq.heappop(self._expiries)
            if errand in self._waiting:
                over.append(errand)
        return over

    @property
    def next_ns(self) -> int | None:
        """When the next errand that is held back joins its line."""
        return self._held[0][0] if self._held else None

    @property
    def next_expiry(self) -> dt.datetime | None:
        """Not later than the next time at which one expires."""
        return self._expiries[0][0] if self._expiries else None

    def _head(self, needs: Needs) -> list[tuple[Turn, Errand]]:
        line = self._lines[needs]
        while line and line[0][1] not in self._waiting:
            heapq.heappop(line)
        if not line:
            del self._lines[needs]
        return line[:1]
