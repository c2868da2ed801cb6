"""Both sides in turn: rounds of one turn each, metered, in alternating order."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from benchmarks.throughput.energy import Idle, Metering, Span, span
from benchmarks.throughput.meters import why
from benchmarks.throughput.play import Closed, Played, Script
from benchmarks.throughput.processes import Busy, others_share
from firmware_shims.power.meter import MeterFailed, MeterReading

WARM_UP: Closed = Closed(seconds=0.2, runs=3)


class Side(Protocol):
    """One of the two."""

    pid: int

    async def play(self, script: Script) -> Played:
        """Play a script; raises what its process ended of."""


@dataclass(frozen=True, slots=True)
class RawTurn:
    """What a side did, and what the meter counted meanwhile; None where it was not metered."""

    played: Played
    counted: Span | None
    driver_cpu_s: float


@dataclass(frozen=True, slots=True)
class RawRound:
    """Before the idle power is known."""

    ours: RawTurn
    bare: RawTurn | None
    others_share: float


@dataclass
class Pair:
    """The worker's side and, where there is one, the bare one. `meter_failure`: why there were no joules."""

    ours: Side
    bare: Side | None
    metering: Metering | None
    meter_failure: str = ""
    rounds: list[RawRound] = field(default_factory=list)

    async def warm_up(self, batch: int) -> None:
        """The first runs of a model are slower than any other."""
        for side in self._sides():
            await side.play(Closed(WARM_UP.seconds, WARM_UP.runs, batch))

    async def idle(self) -> Idle | None:
        """What the machine takes while both are loaded and nothing runs; None where it is not metered."""
        if self.metering is None:
            return None
        try:
            return await self.metering.idle()
        except MeterFailed as failure:
            self.meter_failure = why(failure)
            return None

    async def round(self, script: Script) -> None:
        """A turn of each, on the same script."""
        pids = [side.pid for side in self._sides()]
        before = Busy.now(pids)
        turns = {}
        sides = self._sides()
        for side in sides if len(self.rounds) % 2 else reversed(sides):
            turns[side] = await self._turn(side, script)
        bare = turns[self.bare] if self.bare is not None else None
        self.rounds.append(RawRound(turns[self.ours], bare, others_share(before, Busy.now(pids))))

    def _sides(self) -> Sequence[Side]:
        return [self.ours] if self.bare is None else [self.ours, self.bare]

    async def _turn(self, side: Side, script: Script) -> RawTurn:
        before = await self._reading()
        begun_cpu_s = time.process_time()
        played = await side.play(script)
        driver_cpu_s = time.process_time() - begun_cpu_s
        return RawTurn(played, self._between(before, await self._reading()), driver_cpu_s)

    async def _reading(self) -> MeterReading | None:
        if self.metering is None:
            return None
        try:
            return await self.metering.reading()
        except MeterFailed as failure:
            self.meter_failure = why(failure)
            return None

    def _between(self, before: MeterReading | None, after: MeterReading | None) -> Span | None:
        if before is None or after is None:
            return None
        try:
            return span(before, after)
        except MeterFailed as failure:
            self.meter_failure = why(failure)
            return None
