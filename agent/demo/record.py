"""What the car did, four times a second, and what was said of it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from typing import Final

from agent.protocol.messages import Mode
from firmware_shims.clock import Clock

TICK_S: Final = 0.25


@dataclass(frozen=True, slots=True)
class Tick:
    """One look at the car. `rows` were done since the look before; `worker_mib` None without a worker."""

    at_s: float
    mode: Mode
    door_open: bool
    blockers: tuple[str, ...]
    budget_w: float
    rows: int
    worker_mib: float | None


@dataclass(frozen=True, slots=True)
class Second:
    """One second of the car: what it was in, in order, the rows it did, and how things stood at its end."""

    at_s: int
    modes: tuple[Mode, ...]
    door_open: bool
    blockers: tuple[str, ...]
    budget_w: float
    rows: int
    worker_mib: float | None


@dataclass(slots=True)
class Record:
    """Grows while the demo runs. Seconds count from its making."""

    clock: Clock
    ticks: list[Tick] = field(default_factory=list)
    said: list[tuple[float, str]] = field(default_factory=list)
    _began_ns: int = 0

    def __post_init__(self) -> None:
        self._began_ns = self.clock()

    @property
    def now_s(self) -> float:
        """Seconds since the beginning."""
        return (self.clock() - self._began_ns) / 1e9


def seconds_of(ticks: Sequence[Tick]) -> Iterator[Second]:
    """The ticks second by second."""
    for at_s, group in groupby(ticks, key=lambda tick: int(tick.at_s)):
        within = list(group)
        last = within[-1]
        yield Second(
            at_s=at_s,
            modes=tuple(mode for mode, _ in groupby(tick.mode for tick in within)),
            door_open=any(tick.door_open for tick in within),
            blockers=tuple(dict.fromkeys(name for tick in within for name in tick.blockers)),
            budget_w=last.budget_w,
            rows=sum(tick.rows for tick in within),
            worker_mib=last.worker_mib,
        )


def working_s(ticks: Sequence[Tick]) -> float:
    """Seconds in which the car worked, to the tick."""
    pairs = zip(_spans_s(ticks), ticks, strict=True)
    return sum(span_s for span_s, tick in pairs if tick.rows or tick.mode is Mode.WORKING)


def rates(ticks: Sequence[Tick]) -> list[float]:
    """Rows a second, tick by tick."""
    return [tick.rows / max(span_s, 1e-3) for span_s, tick in zip(_spans_s(ticks), ticks, strict=True)]


def _spans_s(ticks: Sequence[Tick]) -> list[float]:
    """How long each tick looks back; the first has nothing before it but the beginning."""
    times_s = [tick.at_s for tick in ticks]
    return [at_s - before_s for before_s, at_s in pairwise([0.0, *times_s])]
