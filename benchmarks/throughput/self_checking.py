"""The measuring behind the self-check: a worker that does real work, and whatever counts joules here."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Mapping
from dataclasses import dataclass
from typing import Final

from benchmarks.throughput import self_check
from benchmarks.throughput.catalogue import Subject
from benchmarks.throughput.energy import Metering, Span, metering
from benchmarks.throughput.joules import Metered, account
from benchmarks.throughput.known_meter import KnownMeter
from benchmarks.throughput.play import Closed, Played, Script
from benchmarks.throughput.self_check import Check, LinearRound, ZeroRound
from benchmarks.throughput.turns import Pair
from benchmarks.throughput.worker_side import BackendChoice, WorkerSide, worker_side
from firmware_shims.clock import boottime_ns
from firmware_shims.power.meter import MeterFailed

TIMES: Final = (1, 2, 4)
TURNS_OF_A_RUN: Final = 3
KNOWN_TURNS: Final = 3
KNOWN_TURN_S: Final = 1.0
KNOWN_INFERENCES: Final = 100
WARM_UP: Final = Closed(runs=3)
PROBE: Final = Closed(seconds=0.2, runs=3)


@dataclass(frozen=True, slots=True)
class Length:
    """How much is measured: the work once takes `turn_s`."""

    rounds: int = 8
    runs: int = 5
    turn_s: float = 0.5


QUICK: Final = Length(rounds=3, runs=3, turn_s=0.2)


@dataclass(frozen=True, slots=True)
class Took:
    """A turn before the idle power is known. `counted` is None where no meter is."""

    inferences: int
    seconds: float
    cpu_s: float
    counted: Span | None


@dataclass(frozen=True, slots=True)
class Gauge:
    """What counts joules: the machine's meter, or else a model of so many watts for a busy core."""

    metering: Metering | None
    watts_per_core: float

    def __str__(self) -> str:
        """For people; a model is never told as a measurement."""
        if self.metering is None:
            return f"MODEL, {self.watts_per_core:g} W x CPU seconds: the account is checked, no meter is"
        used = self.metering.used
        return f"{used.name} ({used.source}), {used.scope}"

    def turn_s(self, wanted_s: float) -> float:
        """How long a turn is: at least what the meter needs."""
        return wanted_s if self.metering is None else max(wanted_s, self.metering.turn_s)

    async def idle_w(self) -> float:
        """Power while nothing runs; of a model 0. Raises MeterFailed."""
        return 0.0 if self.metering is None else (await self.metering.idle()).watts

    async def turn(self, side: WorkerSide, work: Awaitable[Played]) -> Took:
        """Wait for `work`, or for nothing, and count meanwhile. Raises MeterFailed."""
        begun_cpu_s = side.cpu_s()
        if self.metering is None:
            played, counted = await work, None
        else:
            played, counted = await self.metering.during(work)
        return Took(played.inferences, played.seconds, side.cpu_s() - begun_cpu_s, counted)

    def active_j(self, took: Took, idle_w: float) -> float:
        """Above idle."""
        if took.counted is None:
            return self.watts_per_core * took.cpu_s
        return took.counted.active_j(idle_w)


async def checks(
    subject: Subject, choice: BackendChoice, gauge: Gauge, length: Length
) -> AsyncIterator[Check]:
    """Those that need work to be done, each as soon as it is known. Raises what a worker raises, and MeterFailed."""
    for check in await _of_the_meter(subject, choice, gauge, length):
        yield check
    for check in await _run_to_run(subject, choice, gauge, length):
        yield check


async def known_answer() -> Check:
    """Rows of results from a meter of known wattage, through the same account as every other row."""
    meter = KnownMeter(boottime_ns)
    async with metering(meter) as owner:
        pair = Pair(_KnownLoad(meter), None, owner)
        before = await pair.idle()
        for _ in range(KNOWN_TURNS):
            await pair.round(Closed(KNOWN_TURN_S))
        settled = account(pair.rounds, Metered("", owner, before, await pair.idle(), None))
    measured = settled.energy.joules_per_inference
    if measured is None:
        raise MeterFailed(f"a meter that always answers gave no joules: {pair.meter_failure}")
    return self_check.known_answer(measured.value, meter.worked_j / (KNOWN_TURNS * KNOWN_INFERENCES))


class _KnownLoad:
    """A side that does nothing but draw power."""

    def __init__(self, meter: KnownMeter) -> None:
        self.pid = os.getpid()
        self._meter = meter

    async def play(self, script: Script) -> Played:
        seconds = script.seconds if isinstance(script, Closed) else script.lasts_ns / 1e9
        with self._meter.working():
            await asyncio.sleep(seconds)
        return Played(KNOWN_INFERENCES, seconds, 0.0, [round(seconds * 1e9)])


async def _of_the_meter(subject: Subject, choice: BackendChoice, gauge: Gauge, length: Length) -> list[Check]:
    """Linearity and zero work: of each the rounds take turns, so that what else changes falls on all alike."""
    turn_s = gauge.turn_s(length.turn_s)
    raw: list[tuple[Mapping[int, Took], Took]] = []
    async with worker_side(subject.model, subject.samples.arrays, choice) as side:
        runs = await _runs_in(side, turn_s)
        before_w = await gauge.idle_w()
        for number in range(length.rounds):
            first = number % len(TIMES)
            order = TIMES[first:] + TIMES[:first]
            took = {times: await gauge.turn(side, side.play(Closed(runs=runs * times))) for times in order}
            raw.append((took, await gauge.turn(side, _nothing(turn_s))))
        idle_w = (before_w + await gauge.idle_w()) / 2
    joules = [{times: gauge.active_j(each, idle_w) for times, each in took.items()} for took, _ in raw]
    linear = [
        self_check.linearity([LinearRound(times, each[1], each[times]) for each in joules])
        for times in TIMES
        if times > 1
    ]
    zero = [
        ZeroRound(gauge.active_j(nothing, idle_w) / nothing.seconds, each[1] / took[1].seconds)
        for (took, nothing), each in zip(raw, joules, strict=True)
    ]
    return [*linear, self_check.zero_work(zero)]


async def _run_to_run(subject: Subject, choice: BackendChoice, gauge: Gauge, length: Length) -> list[Check]:
    turn_s = gauge.turn_s(length.turn_s)
    per_s: list[list[float]] = []
    per_j: list[list[float]] = []
    for _ in range(length.runs):
        async with worker_side(subject.model, subject.samples.arrays, choice) as side:
            runs = await _runs_in(side, turn_s)
            idle_w = await gauge.idle_w()
            turns = [await gauge.turn(side, side.play(Closed(runs=runs))) for _ in range(TURNS_OF_A_RUN)]
        per_s.append([turn.inferences / turn.seconds for turn in turns])
        per_j.append([turn.inferences / gauge.active_j(turn, idle_w) for turn in turns])
    name = "inferences/J" if gauge.metering else "inferences/J (MODEL)"
    return [self_check.run_to_run("inferences/s", per_s), self_check.run_to_run(name, per_j)]


async def _runs_in(side: WorkerSide, seconds: float) -> int:
    """How many runs take so long, of a model that is warm."""
    await side.play(WARM_UP)
    played = await side.play(PROBE)
    return max(1, round(seconds * played.inferences / played.seconds))


async def _nothing(seconds: float) -> Played:
    await asyncio.sleep(seconds)
    return Played(0, seconds, 0.0, [])
