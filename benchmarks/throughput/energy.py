"""The joules of a turn. The machine's meter has one owner, which reads it on a thread of its own, for both sides alike.

Turns do not overlap, so nothing has to be split: a turn's joules are the difference of two readings, one before it
and one after it, and its active joules are what lies above the idle baseline. While nobody asks, the owner looks as
often as a power sensor needs it to be integrated.
"""

import asyncio
import contextlib
import statistics
from collections.abc import AsyncIterator, Awaitable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, TypeVar

from benchmarks.throughput.results import MeterUsed
from firmware_shims.power.meter import Meter, MeterFailed, MeterReading, Scope
from firmware_shims.power.sampled import PERIOD_S

T = TypeVar("T")
NS: Final = 1_000_000_000
IDLE_WINDOWS: Final = 5
IDLE_WINDOW_S: Final = 0.5
WINDOW_STEPS: Final = 5
"""An idle window holds at least so many new figures of the meter."""
TURN_STEPS: Final = 20
"""A turn holds so many: what stood in the counter at its ends is then a twentieth of it at most, and not one-sided."""
GPU_BACKENDS: Final = frozenset({"nvidia"})
"""What a meter of GPUs measures, and one of processors does not."""


@dataclass(frozen=True, slots=True)
class Span:
    """What the meter counted between two readings."""

    joules: float
    seconds: float

    @property
    def watts(self) -> float:
        """The mean power."""
        return self.joules / self.seconds

    def active_j(self, idle_w: float) -> float:
        """What lies above the idle power; below 0 where noise was larger than the work."""
        return self.joules - idle_w * self.seconds


@dataclass(frozen=True, slots=True)
class Idle:
    """Power while nothing runs: the median of some windows, and how far apart their quartiles lie."""

    watts: float
    spread_w: float


class Metering:
    """The owner of a meter; to be made by `metering`."""

    def __init__(self, meter: Meter, thread: ThreadPoolExecutor) -> None:
        self._meter = meter
        self._thread = thread

    @property
    def used(self) -> MeterUsed:
        """As the results have it."""
        meter = self._meter
        return MeterUsed(
            meter.name, meter.scope.value, meter.source.value, meter.resolution_j, meter.resolution_s
        )

    @property
    def turn_s(self) -> float:
        """How long a turn should be at least."""
        return TURN_STEPS * self._meter.resolution_s

    def covers(self, use: str) -> bool:
        """Whether it measures what a backend does."""
        match self._meter.scope:
            case Scope.GPU:
                return use in GPU_BACKENDS
            case Scope.PACKAGE:
                return use not in GPU_BACKENDS
        return True

    async def reading(self) -> MeterReading:
        """What it shows now; raises MeterFailed."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._meter.read)

    async def during(self, work: Awaitable[T]) -> tuple[T, Span]:
        """Wait for `work`; its result and what was counted meanwhile. Raises MeterFailed where that is not known."""
        try:
            before = await self.reading()
        except MeterFailed:
            if asyncio.iscoroutine(work):
                work.close()  # it is not begun
            raise
        result = await work
        return result, span(before, await self.reading())

    async def idle(self) -> Idle:
        """Measure while the caller lets nothing run; raises MeterFailed."""
        window_s = max(IDLE_WINDOW_S, WINDOW_STEPS * self._meter.resolution_s)
        watts = []
        for _ in range(IDLE_WINDOWS):
            _, window = await self.during(asyncio.sleep(window_s))
            watts.append(window.watts)
        low_w, middle_w, high_w = statistics.quantiles(watts, n=4, method="inclusive")
        return Idle(middle_w, high_w - low_w)


def span(before: MeterReading, after: MeterReading) -> Span:
    """Between two readings; raises MeterFailed where the counting was interrupted."""
    if after.since_ns > before.at_ns or after.at_ns <= before.at_ns:
        raise MeterFailed(
            "the meter was interrupted in the middle of a turn", "see whether its driver was reloaded"
        )
    return Span(after.joules - before.joules, (after.at_ns - before.at_ns) / NS)


@contextlib.asynccontextmanager
async def metering(meter: Meter) -> AsyncIterator[Metering]:
    """Own the meter for as long as the block lasts. Raises MeterFailed when it does not answer at all."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="meter") as thread:
        owner = Metering(meter, thread)
        await owner.reading()
        watching = asyncio.create_task(_watch(owner), name="meter")
        try:
            yield owner
        finally:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching
            thread.submit(meter.close).result()


async def _watch(owner: Metering) -> None:
    """Keep a sampled power integrated; a failure is the next asker's, who sees the gap."""
    while True:
        await asyncio.sleep(PERIOD_S)
        with contextlib.suppress(MeterFailed):
            await owner.reading()
