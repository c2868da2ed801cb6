"""What a power meter is: a counter of joules that says what it measures, how finely, and since when."""

import enum
from dataclasses import dataclass
from typing import Protocol


class JouleSource(enum.Enum):
    """Where joules come from. A model is never a measurement."""

    COUNTER = "counter"
    INTEGRATED = "integrated"
    MODEL = "model"


class Scope(enum.Enum):
    """What a meter measures, in words for people."""

    COMPUTER = "the whole computer"
    PACKAGE = "the processor packages, without memory"
    RAILS = "what hangs on its sensors"
    GPU = "the GPUs"
    VEHICLE = "everything that draws on the traction battery"


@dataclass(frozen=True, slots=True)
class MeterReading:
    """Joules counted up to `at_ns` without a break since `since_ns`, both CLOCK_BOOTTIME.

    A window that began before `since_ns` is unknown: the counter was reset, or nobody looked for too long.
    """

    joules: float
    at_ns: int
    since_ns: int


class MeterFailed(Exception):  # noqa: N818 - what happened
    """The meter has no figure now: why, and what to do about it. It may have one again later."""

    def __init__(self, why: str, fix: str = "") -> None:
        super().__init__(why)
        self.why = why
        self.fix = fix


class Meter(Protocol):
    """One thing that counts joules, for one thread.

    It touches nothing before its first `read`, and may be read again after `close` and after a failure.
    """

    name: str

    @property
    def source(self) -> JouleSource:
        """Where its joules come from."""

    @property
    def scope(self) -> Scope:
        """What it measures."""

    @property
    def resolution_j(self) -> float:
        """The smallest step of its figure."""

    @property
    def resolution_s(self) -> float:
        """How long it takes until its figure is a new one."""

    def read(self) -> MeterReading:
        """What it shows now; within one unbroken stretch `joules` never falls. Raises MeterFailed."""

    def close(self) -> None:
        """Let go of whatever reading holds open."""
