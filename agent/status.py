"""What the running agent says of itself: the answer to `status` on the control socket."""

from typing import Final, Literal

import msgspec

from agent.history.report import Day
from agent.protocol.messages import (
    Attempt,
    BackendState,
    Blocker,
    EnergySource,
    Id,
    Mode,
    Region,
    TaskState,
    Time,
)
from agent.protocol.reasons import Reason

UNTRIED: Final = "not probed yet"
"""`why` of a backend that cannot be used: no worker of it has started, and nobody has looked."""


class BlockerStatus(Blocker):
    """Why no work is allowed; `until`: when time alone may end that, None where it is not known."""

    until: Time | None = None


class BackendStatus(BackendState):
    """A backend; `resume_at`: when its worker may be started again after it died by itself."""

    resume_at: Time | None = None


Doing = Literal["waiting", "fetching", "running"]


class TaskStatus(msgspec.Struct):
    """A task that the agent still owes; `fetching`: its model or its inputs are on their way."""

    id: Id
    attempt: Attempt
    state: TaskState
    rows_done: int
    rows_total: int
    doing: Doing = "waiting"


class LinkStatus(msgspec.Struct):
    """The connection to the broker; `since` is when it came up or went down, `next_try` when it is tried again."""

    up: bool
    since: Time
    last_error: str = ""
    next_try: Time | None = None


class StoreStatus(msgspec.Struct):
    """What lies on the disk for the fleet.

    `waiting`: what is done and waits for room there. `salvage`: what became of a store that was broken.
    """

    open_tasks: int
    unsettled_results: int
    bytes_used: int
    bytes_max: int
    waiting: int = 0
    salvage: str = ""


class DeadLetterStatus(msgspec.Struct):
    """A message that could not be taken; `head` is its beginning, printable, and `sha256` that of all of it."""

    at: Time
    topic: str
    code: Reason
    text: str
    size_bytes: int
    sha256: str
    head: str


class DeadLettersStatus(msgspec.Struct):
    """Messages by the name of their reason since the store was made, and the newest of them, oldest first."""

    counts: dict[str, int] = msgspec.field(default_factory=dict)
    newest: list[DeadLetterStatus] = msgspec.field(default_factory=list)


class PreemptionStatus(msgspec.Struct):
    """The preemptions since the start: milliseconds from the cue, of the last one and of the slowest.

    The time-line is signal sent, worker gone with its memory, and, where a task was interrupted, event out.

    `last_seen_ns` is when the last cue was received, on CLOCK_BOOTTIME.
    """

    count: int
    last_reason: str = ""
    last_kill_ms: float | None = None
    last_silent_ms: float | None = None
    max_silent_ms: float | None = None
    last_seen_ns: int | None = None
    last_said_ms: float | None = None


class OrdersStatus(msgspec.Struct):
    """What the fleet (`draining`), the vehicle's operating system and the owner have ordered."""

    draining: bool = False
    paused: bool = False
    consent: bool | None = None
    departure: Time | None = None


class MeterStatus(msgspec.Struct):
    """Where joules come from now; `why` there are none, and the idle power that is taken off."""

    source: EnergySource = EnergySource.NONE
    why: str = ""
    idle_w: float | None = None


class Status(msgspec.Struct):
    """Everything that `parkwatt status` shows. What has a default an older agent may not say."""

    vehicle: Id
    region: Region
    version: str
    boot: int
    started_at: Time
    mode: Mode
    blockers: list[BlockerStatus]
    budget_w: float
    backends: list[BackendStatus]
    tasks: list[TaskStatus]
    preemptions: PreemptionStatus
    link: LinkStatus
    store: StoreStatus
    dead_letters: DeadLettersStatus = msgspec.field(default_factory=DeadLettersStatus)
    orders: OrdersStatus = msgspec.field(default_factory=OrdersStatus)
    meter: MeterStatus = msgspec.field(default_factory=MeterStatus)
    expected_s: float | None = None
    """How long the car is expected to stay; None where nothing is known."""
    mode_since: Time | None = None
    today: Day | None = None
    """The day so far, by the clocks of `time_zone`; None while the car does not know the date."""
    time_zone: str = "UTC"


def news(status: Status) -> tuple[object, ...]:
    """What of a status is worth telling again when it differs: not its ages, nor values and counts that drift."""
    return (
        status.mode,
        [(b.code, b.value if b.code is Reason.UNKNOWN_SIGNAL else None) for b in status.blockers],
        [(b.name, b.device, b.usable, b.why, b.resume_at is None) for b in status.backends],
        [(task.id, task.attempt, task.state, task.doing) for task in status.tasks],
        status.preemptions.count,
        (status.link.up, status.link.last_error),
        status.orders,
        (status.meter.source, status.meter.why),
    )
