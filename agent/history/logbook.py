"""Keeps the account of the days while the service runs: hours by mode and by blocker, tasks, rows, joules, preemptions.

It goes to the disk a few seconds after rows are done, a time of many commits; when work was allowed and is no longer,
which the policy bounds to a few times an hour; every few minutes besides, and at the end. So a crash costs seconds of
what was done and its joules, minutes of a time without work, and nobody wakes a disk for it. While the computer is
suspended the boot-time clock counts and the monotonic one stands still: that time is `asleep`, whatever the car showed
before.
"""

import asyncio
import datetime as dt
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, NoReturn
from zoneinfo import ZoneInfo

from agent.history import names
from agent.history.days import day_at, parts
from agent.job import Chunk, Ending
from agent.preemption import Preemption
from agent.protocol.messages import EnergySource, Mode
from agent.protocol.reasons import Reason
from agent.store import Store, StoreClosed
from agent.store.history import UNDATED, DaySum
from firmware_shims.clock import Clock

NS: Final = 1_000_000_000
LOOK_S: Final = 10.0
"""Nobody tells when a mode ends by itself; and what a look is late by goes to the mode before."""
WRITE_EVERY_NS: Final = 300 * NS
"""Where only time passes: flash wears."""
WRITE_DONE_NS: Final = 5 * NS
"""Where something was done."""
ALLOWED: Final = frozenset({Mode.READY, Mode.WORKING})

Name = tuple[str, str]
"""What is summed, and of which kind: see `agent.history.names`."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What stands at a moment: the mode, and why no work is allowed, the first reason in front."""

    mode: Mode
    reasons: Sequence[Reason]

    @property
    def names(self) -> list[Name]:
        """The sums to which the time goes for which it stands."""
        blamed = [(names.FIRST, str(reason.value)) for reason in self.reasons[:1]]
        every = [(names.ANY, str(reason.value)) for reason in dict.fromkeys(self.reasons)]
        return [(names.MODE, self.mode.value), *blamed, *every]


@dataclass(slots=True, eq=False)
class Logbook:
    """Everything runs on the event loop. `present` tells what stands now.

    `clock` counts suspend and `awake` does not; `wall` is unix time, None while it cannot be trusted. What happens
    then is put to the first day that is known within minutes, else it stays without a date.
    """

    present: Callable[[], Sight]
    store: Store
    zone: ZoneInfo
    clock: Clock
    wall: Callable[[], float | None]
    on_store_error: Callable[[BaseException], None]
    awake: Clock = time.monotonic_ns
    mode_since_ns: int = field(init=False)
    """Since when the present mode stands, by `clock`."""
    _sight: Sight | None = None
    _looked_ns: int = field(init=False)
    _awake_ns: int = field(init=False)
    _written_ns: int = field(init=False)
    _unwritten: dict[tuple[str, str, str], float] = field(default_factory=lambda: defaultdict(float))
    _done: bool = False
    """Whether more than time is not written yet."""
    _under_way: Sequence[DaySum] = ()

    def __post_init__(self) -> None:
        self._looked_ns = self._written_ns = self.mode_since_ns = self.clock()
        self._awake_ns = self.awake()

    @property
    def today(self) -> dt.date | None:
        """The date here; None while it is not known."""
        now_s = self.wall()
        return None if now_s is None else day_at(now_s, self.zone)

    def look(self) -> None:
        """Put the time since the last look to what stood then, and see what stands now."""
        self._put_span()
        before, self._sight = self._sight, self.present()
        if before is None or before.mode is not self._sight.mode:
            self.mode_since_ns = self._looked_ns
        ended = before is not None and before.mode in ALLOWED and self._sight.mode not in ALLOWED
        due_ns = WRITE_DONE_NS if self._done else WRITE_EVERY_NS
        if ended or self._looked_ns - self._written_ns >= due_ns:
            self.write()

    async def watch(self) -> NoReturn:
        """Look again and again until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            self.look()

    def rows(self, chunk: Chunk) -> None:
        """Count rows that are done, and what they took, by the source of their joules."""
        took, day = chunk.spending, _shown(self.today)
        source, self._done = took.source.value, True
        self._unwritten[day, names.ROWS, source] += chunk.end - chunk.begin
        if took.source is EnergySource.NONE:
            return
        for what, joules in (
            (names.ENERGY, took.energy_j),
            (names.IDLE, took.idle_j),
            (names.PACK, took.pack_j),
        ):
            if joules:
                self._unwritten[day, what, source] += joules

    def ended(self, ending: Ending) -> None:
        """Count a task that has ended."""
        self._done = True
        self._unwritten[_shown(self.today), names.TASKS, ending.state.value] += 1

    def preempted(self, preemption: Preemption) -> None:
        """Count a preemption."""
        self._done = True
        self._unwritten[_shown(self.today), names.PREEMPTED, str(preemption.reason.value)] += 1

    def write(self) -> None:
        """Bring to the disk what is not there, unless an earlier write still waits for room on it."""
        if self._under_way or not self._unwritten:
            return
        self._written_ns, self._done = self._looked_ns, False
        sums = self._under_way = self._dated()
        self._unwritten.clear()
        writing = self.store.owe(lambda ledger: ledger.history.add(sums), lane=self)
        writing.add_done_callback(self._written)

    async def sums_since(self, day: str) -> list[DaySum]:
        """Every sum from `day` on, with what is not on disk yet: a sum may stand there twice, in two parts."""
        on_disk = await self.store.run(lambda ledger: ledger.history.since(day))
        return [*on_disk, *self._under_way, *self._dated()]

    def _put_span(self) -> None:
        now_ns, awake_ns, now_s = self.clock(), self.awake(), self.wall()
        span_ns = max(0, now_ns - self._looked_ns)
        asleep_ns = min(span_ns, max(0, span_ns - (awake_ns - self._awake_ns)))
        self._looked_ns, self._awake_ns = now_ns, awake_ns
        asleep_s, awake_s = asleep_ns / NS, (span_ns - asleep_ns) / NS
        if self._sight is not None:
            self._put_time(None if now_s is None else now_s - asleep_s, awake_s, self._sight.names)
        self._put_time(now_s, asleep_s, [(names.MODE, names.ASLEEP)])

    def _put_time(self, end_s: float | None, length_s: float, places: Sequence[Name]) -> None:
        dated = [(None, length_s)] if end_s is None else parts(end_s - length_s, end_s, self.zone)
        for day, seconds in dated:
            for what, name in places:
                self._unwritten[_shown(day), what, name] += seconds

    def _dated(self) -> list[DaySum]:
        """What is not written yet; where the date has become known meanwhile, with that."""
        today = _shown(self.today)
        return [
            DaySum(today if day == UNDATED else day, what, name, amount)
            for (day, what, name), amount in self._unwritten.items()
            if amount
        ]

    def _written(self, done: asyncio.Future[None]) -> None:
        self._under_way = ()
        if done.cancelled() or isinstance(error := done.exception(), StoreClosed):
            return
        if error is not None:
            self.on_store_error(error)


def _shown(day: dt.date | None) -> str:
    return UNDATED if day is None else day.isoformat()
