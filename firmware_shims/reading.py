"""What a source tells about the car, and the contract between a source and whoever listens to it."""

import enum
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

Value = bool | float | str


class Quality(enum.Enum):
    """How far a value can be trusted. Only `GOOD` ever allows anything."""

    GOOD = "good"
    STALE = "stale"
    INVALID = "invalid"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Reading:
    """One value of one signal as one source received it.

    `path` is a VSS path (or one of `vss.OVERLAY`), `stamp_ns` the boot-time clock at reception,
    `value` None exactly when the quality is not GOOD or STALE.
    """

    path: str
    value: Value | None
    source: str
    stamp_ns: int
    quality: Quality = Quality.GOOD


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The fused view of every signal at one instant; a path that nobody ever sent reads NEVER."""

    at_ns: int
    readings: Mapping[str, Reading]

    def __getitem__(self, path: str) -> Reading:
        """The reading for `path`; never raises."""
        return self.readings.get(path) or Reading(path, None, "", self.at_ns, Quality.NEVER)

    def good(self, path: str) -> Value | None:
        """The value if it can be trusted, else None."""
        reading = self[path]
        return reading.value if reading.quality is Quality.GOOD else None


class Sink(Protocol):
    """Where a source delivers. Both calls are synchronous, thread-safe and return in well under 1 ms.

    They may kill a worker process before they return: call them from the thread that read the frame.
    """

    @property
    def urgent(self) -> bool:
        """Whether work may be under way. Else a source may gather what comes for up to 20 ms, and wake up less often."""

    def update(self, readings: Sequence[Reading]) -> None:
        """Deliver fresh readings, newest last."""

    def heard(self, source: str, now_ns: int) -> None:
        """Say that everything sent to `source` up to `now_ns` has been read and delivered.

        Ages are judged against this stamp, so a hiccup of our own is never taken for silence of the car.
        A source calls it at least every 200 ms while its interface is up, and not while it is down.
        """


class Source(Protocol):
    """A listener on the car. It only listens: no source has a way to transmit."""

    name: str
    """Unique within one agent."""

    stale_after_s: Mapping[str, float]
    """Every path that this source may deliver, with the age at which a reading of it goes stale."""

    def run(self, sink: Sink, stop: threading.Event) -> None:
        """Deliver readings until `stop` is set; called in a thread of its own.

        An interface that is missing or goes away is retried for ever in here, with back-off;
        an exception that leaves `run` ends the agent.
        """
