"""What the running agent says of itself: the answer to `status` on the control socket, and its text for people."""

import datetime as dt
from collections.abc import Iterator
from typing import Final

import msgspec

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

LETTERS_SHOWN: Final = 5
HEAD_SHOWN: Final = 60


class TaskStatus(msgspec.Struct):
    """A task that the agent still owes."""

    id: Id
    attempt: Attempt
    state: TaskState
    rows_done: int
    rows_total: int


class LinkStatus(msgspec.Struct):
    """The connection to the broker; `since` is when it came up or went down."""

    up: bool
    since: Time
    last_error: str = ""


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
    """Everything that `parkwatt status` shows."""

    vehicle: Id
    region: Region
    version: str
    boot: int
    started_at: Time
    mode: Mode
    blockers: list[Blocker]
    budget_w: float
    backends: list[BackendState]
    tasks: list[TaskStatus]
    preemptions: PreemptionStatus
    link: LinkStatus
    store: StoreStatus
    dead_letters: DeadLettersStatus = msgspec.field(default_factory=DeadLettersStatus)
    orders: OrdersStatus = msgspec.field(default_factory=OrdersStatus)
    meter: MeterStatus = msgspec.field(default_factory=MeterStatus)
    expected_s: float | None = None
    """How long the car is expected to stay; None where nothing is known."""


def news(status: Status) -> tuple[object, ...]:
    """What of a status is worth telling again when it differs: not its ages, nor values and counts that drift."""
    return (
        status.mode,
        [(b.code, b.value if b.code is Reason.UNKNOWN_SIGNAL else None) for b in status.blockers],
        [(b.name, b.device, b.usable, b.why) for b in status.backends],
        [(task.id, task.attempt, task.state) for task in status.tasks],
        status.preemptions.count,
        (status.link.up, status.link.last_error),
        status.orders,
        (status.meter.source, status.meter.why),
    )


def described(status: Status, now: dt.datetime) -> Iterator[str]:
    """The lines of `parkwatt status`, ages counted to `now`."""
    yield (
        f"parkwatt {status.version}, vehicle {status.vehicle} in {status.region}, boot {status.boot},"
        f" started {_ago(status.started_at, now)}"
    )
    yield f"mode      {status.mode.value}"
    for blocker in status.blockers:
        yield f"  {blocker.code.value} {blocker.name}: {_seen(blocker)}, for {_age(blocker.since, now)}"
    if orders := _orders(status.orders, now):
        yield f"orders    {orders}"
    if status.expected_s is not None:
        yield f"stay      {_span(status.expected_s)} more expected"
    yield f"power     budget {status.budget_w:g} W, {_metered(status.meter)}"
    for backend in status.backends:
        yield f"backend   {_backend(backend)}"
    yield f"tasks     {len(status.tasks)} open"
    for task in status.tasks:
        yield (
            f"  {task.id} attempt {task.attempt}: {task.state.value},"
            f" {task.rows_done} of {task.rows_total} rows"
        )
    yield f"preempted {_preempted(status.preemptions)}"
    yield f"link      {_link(status.link, now)}"
    yield (
        f"store     {status.store.open_tasks} tasks, {status.store.unsettled_results} results not yet settled,"
        f" {status.store.bytes_used} of {status.store.bytes_max} bytes"
    )
    if status.store.waiting:
        yield f"  full: {status.store.waiting} changes wait in memory for room, no new tasks are taken"
    if status.store.salvage:
        yield f"  {status.store.salvage}"
    yield from _dead_letters(status.dead_letters)


def _dead_letters(dead: DeadLettersStatus) -> Iterator[str]:
    """A count for each reason, the last letters, and nothing where there are none."""
    if not dead.counts:
        return
    counts = sorted(dead.counts.items(), key=lambda count: -count[1])
    yield f"refused   {', '.join(f'{messages} {name}' for name, messages in counts)}"
    for letter in dead.newest[-LETTERS_SHOWN:]:
        yield (
            f"  {letter.at:%Y-%m-%dT%H:%M:%SZ} {letter.topic}: {letter.code.value} {letter.code.label}:"
            f" {letter.text} ({letter.size_bytes} bytes: {letter.head[:HEAD_SHOWN]})"
        )


def _metered(meter: MeterStatus) -> str:
    if meter.why:
        return f"meter has no figures: {meter.why}"
    if meter.source is EnergySource.NONE:
        return "no meter"
    idle = "" if meter.idle_w is None else f", {meter.idle_w:.3g} W at rest"
    return f"joules by {meter.source.value}{idle}"


def _seen(blocker: Blocker) -> str:
    if blocker.code is Reason.SETTLING:
        return f"{_shown(blocker.value)} s left, {_shown(blocker.limit)}"
    limit = "" if blocker.limit is None else f", limit {_shown(blocker.limit)}"
    return _shown(blocker.value) + limit


def _orders(orders: OrdersStatus, now: dt.datetime) -> str:
    """The orders that stand, empty for none."""
    consent = {None: "", True: "the owner consents", False: "the owner does not consent"}[orders.consent]
    departure = f"departure {_ahead(orders.departure, now)}" if orders.departure else ""
    draining = "drain by the fleet" if orders.draining else ""
    paused = "paused by the vehicle OS" if orders.paused else ""
    return ", ".join(filter(None, (paused, consent, departure, draining)))


def _backend(backend: BackendState) -> str:
    if not backend.usable:
        return f"{backend.name}: not usable: {backend.why}"
    bound = backend.cancel_bound_ms
    cancel = "stops by signal" if bound is None else f"stops within {bound:g} ms"
    formats = ", ".join(backend.formats)
    return f"{backend.name} on {backend.device}: {formats}, at most {backend.power_w:g} W, {cancel}"


def _preempted(preemptions: PreemptionStatus) -> str:
    if preemptions.last_silent_ms is None or preemptions.max_silent_ms is None:
        return "never since the start"
    return (
        f"{preemptions.count} times, last by {preemptions.last_reason}: worker gone"
        f" {preemptions.last_silent_ms:.1f} ms after the cue, {preemptions.max_silent_ms:.1f} ms at most"
    )


def _link(link: LinkStatus, now: dt.datetime) -> str:
    if link.up:
        return f"up for {_age(link.since, now)}"
    return f"down for {_age(link.since, now)}: {link.last_error or 'not connected yet'}"


def _shown(value: float | str | bool | None) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else f"{value:g}"


def _ahead(then: dt.datetime, now: dt.datetime) -> str:
    return f"in {_age(now, then)}" if then > now else _ago(then, now)


def _ago(then: dt.datetime, now: dt.datetime) -> str:
    return f"{_age(then, now)} ago"


def _age(then: dt.datetime, now: dt.datetime) -> str:
    """A clock that was set back shows 0 s."""
    return _span(max((now - then).total_seconds(), 0.0))


def _span(seconds: float) -> str:
    """`41 s`, `12 min` or `3.5 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7_200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3_600:.1f} h"
