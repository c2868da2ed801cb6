"""How load is made: one order of waiting and running for both sides, so that a comparison compares nothing else.

`steps` yields what is to be done next and takes the time in between; whoever drives it does it, at once or awaiting.
Runs follow one another, first come, first served: what is due meanwhile waits, and its latency counts from when it
was due.
"""

import math
from collections.abc import Callable, Generator
from typing import Annotated, NamedTuple

import msgspec

Clock = Callable[[], int]
"""Monotonic nanoseconds."""


class Closed(msgspec.Struct, frozen=True, tag="closed"):
    """One run after another, for so long and so many at least."""

    seconds: float = 0.0
    runs: int = 1
    batch: Annotated[int, msgspec.Meta(ge=1)] = 1
    sample: int = 0
    """With which of the samples it begins."""


class Open(msgspec.Struct, frozen=True, tag="open"):
    """Queries of one sample, due so many nanoseconds after the beginning; up to `batch` that wait run together."""

    due_ns: tuple[int, ...]
    batch: Annotated[int, msgspec.Meta(ge=1)] = 1
    sample: int = 0
    lasts_ns: int = 0
    """It ends no sooner, so that its rate is the one that was meant."""


Script = Closed | Open


class Run(NamedTuple):
    """Run so many samples from that one on."""

    sample: int
    rows: int


class Wait(NamedTuple):
    """Do nothing until then."""

    until_ns: int


class Played(msgspec.Struct, frozen=True):
    """What came of a script. A latency belongs to a run of `Closed`, and to a query of `Open`."""

    inferences: int
    seconds: float
    cpu_s: float
    """Of the process that ran the model."""
    latencies_ns: list[int]
    joules: float | None = None
    """As the device counted or predicted them itself, where it did so for every run."""
    joules_source: str = ""


Steps = Generator[Run | Wait, None, list[int]]


def steps(script: Script, clock: Clock) -> Steps:
    """What to do, one after the other; returns the latencies in nanoseconds."""
    return _closed(script, clock) if isinstance(script, Closed) else _open(script, clock)


def _closed(script: Closed, clock: Clock) -> Steps:
    latencies_ns: list[int] = []
    begun_ns = clock()
    end_ns = begun_ns + round(script.seconds * 1e9)
    sample = script.sample
    while len(latencies_ns) < script.runs or begun_ns < end_ns:
        yield Run(sample, script.batch)
        now_ns = clock()
        latencies_ns.append(now_ns - begun_ns)
        begun_ns = now_ns
        sample += script.batch
    return latencies_ns


def _open(script: Open, clock: Clock) -> Steps:
    latencies_ns: list[int] = []
    begun_ns, due_ns = clock(), script.due_ns
    while (first := len(latencies_ns)) < len(due_ns):
        if begun_ns + due_ns[first] > clock():
            yield Wait(begun_ns + due_ns[first])
        past_ns, last = clock() - begun_ns, first + 1
        while last < len(due_ns) and last - first < script.batch and due_ns[last] <= past_ns:
            last += 1
        yield Run(script.sample + first, last - first)
        done_ns = clock() - begun_ns
        latencies_ns += [done_ns - due for due in due_ns[first:last]]
    if clock() < begun_ns + script.lasts_ns:
        yield Wait(begun_ns + script.lasts_ns)
    return latencies_ns


class Tally:
    """Counts what a script's runs have given, while it is played."""

    def __init__(self) -> None:
        self.inferences = 0
        self._joules: float | None = 0.0
        self._sources: set[str] = set()

    def add(self, rows: int, joules: float | None, source: str) -> None:
        """A run is done. A device that counts less than nothing, or no number, has not counted."""
        self.inferences += rows
        if joules is None or self._joules is None or not math.isfinite(joules) or joules < 0:
            self._joules = None
            return
        self._joules += joules
        self._sources.add(source)

    def played(self, seconds: float, cpu_s: float, latencies_ns: list[int]) -> Played:
        """All of it. Joules from two sources are none."""
        counted = self._joules is not None and len(self._sources) == 1
        return Played(
            inferences=self.inferences,
            seconds=seconds,
            cpu_s=cpu_s,
            latencies_ns=latencies_ns,
            joules=self._joules if counted else None,
            joules_source=next(iter(self._sources)) if counted else "",
        )
