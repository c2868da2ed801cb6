"""`parkwatt status` for people: what the car does, why not more, since when, and until when where that is known."""

import datetime as dt
from collections.abc import Iterator
from typing import Final
from zoneinfo import ZoneInfo

from agent.history.report import Day
from agent.protocol.messages import EnergySource, Mode, TaskState
from agent.protocol.reasons import Reason
from agent.reason_text import seen
from agent.status import (
    UNTRIED,
    BackendStatus,
    BlockerStatus,
    DeadLettersStatus,
    LinkStatus,
    MeterStatus,
    OrdersStatus,
    PreemptionStatus,
    Status,
    StoreStatus,
)
from agent.told import age, ago, ahead, joules, span

LETTERS_SHOWN: Final = 5
HEAD_SHOWN: Final = 60
SECONDS_MATTER: Final = dt.timedelta(minutes=10)
A_DAY: Final = dt.timedelta(hours=20)

WORDS: Final = {
    Reason.UNKNOWN_SIGNAL: "a signal is not known",
    Reason.OWNER_PRESENT: "somebody is at the car",
    Reason.NOT_PARKED: "the car is not parked",
    Reason.NOT_GRID_POWERED: "grid power is not proven",
    Reason.CHARGE_LOW: "the traction battery is low",
    Reason.PACK_TEMPERATURE: "the traction battery is too cold or too warm",
    Reason.AMBIENT_TEMPERATURE: "the air outside is too cold or too warm",
    Reason.CHIP_TEMPERATURE: "this computer is too warm",
    Reason.LOW_VOLTAGE: "the low-voltage supply is weak",
    Reason.OWNER_SCHEDULE: "outside of the owner's schedule",
    Reason.DEPARTURE_SOON: "the owner leaves soon",
    Reason.GRID_LIMIT: "the grid leaves too little power",
    Reason.DRAINING: "the fleet wants no work from this car",
    Reason.SETTLING: "waiting",
    Reason.REGION_MISMATCH: "the car is outside of its region",
    Reason.PACK_BUDGET: "the traction battery may give no more",
    Reason.CONSENT: "the owner's consent is missing",
    Reason.PAUSED: "the vehicle OS needs the computer",
}


def described(status: Status, now: dt.datetime) -> Iterator[str]:
    """The lines of `parkwatt status`, ages counted to `now`."""
    yield (
        f"parkwatt {status.version}, vehicle {status.vehicle} in {status.region}, boot {status.boot},"
        f" started {ago(status.started_at, now)}"
    )
    since = "" if status.mode_since is None else f" for {age(status.mode_since, now)}"
    yield f"mode      {status.mode.value}{since}: {headline(status, now)}"
    for blocker in status.blockers:
        yield f"  {_blocker(blocker, now, status.time_zone)}"
    if orders := _orders(status.orders, now):
        yield f"orders    {orders}"
    if status.expected_s is not None:
        yield f"stay      {span(status.expected_s)} more expected"
    yield f"power     budget {status.budget_w:g} W, {_metered(status.meter)}"
    for backend in status.backends:
        yield f"backend   {_backend(backend, now)}"
    yield from _tasks(status)
    if status.today is not None:
        yield f"today     {_today(status.today)}"
    yield f"preempted {_preempted(status.preemptions)}"
    yield f"link      {_link(status.link, now)}"
    yield from _store(status.store)
    yield from _dead_letters(status.dead_letters)


def headline(status: Status, now: dt.datetime) -> str:
    """What it does now, or why not more, in a few words."""
    match status.mode:
        case Mode.WORKING:
            return f"{_count(_running(status), 'task runs', 'tasks run')}, {_waiting(status)}"
        case Mode.READY:
            return _idle(status, now)
        case Mode.SETTLING:
            until = [blocker.until for blocker in status.blockers if blocker.until is not None]
            when = f" {clock(max(until), now, status.time_zone)}" if until else ""
            return f"all conditions hold, ready{when} if they go on to"
    words = [WORDS[blocker.code] for blocker in status.blockers if blocker.code in WORDS]
    more = f", and {_count(len(words) - 1, 'more reason', 'more reasons')}" if len(words) > 1 else ""
    return f"{words[0]}{more}" if words else "work is being ended"


def clock(then: dt.datetime, now: dt.datetime, time_zone: str) -> str:
    """A time on the car's clocks and how far ahead it is: `at 22:00 CET (in 3.5 h)`."""
    left = then - now
    day = "%a " if left > A_DAY else ""
    seconds = ":%S" if left < SECONDS_MATTER else ""
    return f"at {then.astimezone(ZoneInfo(time_zone)):{day}%H:%M{seconds} %Z} ({ahead(then, now)})"


def _idle(status: Status, now: dt.datetime) -> str:
    """Why nothing runs though it may."""
    waiting = _count(len(status.tasks), "task waits", "tasks wait")
    if not status.tasks:
        return "no task to run" if status.link.up else "no task to run, and no link to the fleet"
    if status.store.waiting:
        return f"{waiting}, the store is full"
    paused = [
        backend for backend in status.backends if backend.resume_at is not None and backend.resume_at > now
    ]
    if paused:
        again = ahead(max(backend.resume_at for backend in paused if backend.resume_at), now)
        return f"{waiting}, {paused[0].name} has crashed and starts again {again}"
    if fetching := sum(task.doing == "fetching" for task in status.tasks):
        return f"models or inputs of {_count(fetching, 'task', 'tasks')} are being fetched"
    return waiting


def _running(status: Status) -> int:
    return sum(task.doing == "running" for task in status.tasks)


def _waiting(status: Status) -> str:
    return _count(len(status.tasks) - _running(status), "waits", "wait")


def _blocker(blocker: BlockerStatus, now: dt.datetime, time_zone: str) -> str:
    until = (
        "" if blocker.until is None else f", until {clock(blocker.until, now, time_zone).removeprefix('at ')}"
    )
    return (
        f"{blocker.code.value} {blocker.name}: {WORDS.get(blocker.code, '')}: {seen(blocker.code, blocker.value, blocker.limit)},"
        f" for {age(blocker.since, now)}{until}"
    )


def _tasks(status: Status) -> Iterator[str]:
    fetching = sum(task.doing == "fetching" for task in status.tasks)
    running, waiting = _running(status), len(status.tasks) - _running(status) - fetching
    shown = ((running, "running"), (fetching, "being fetched for"), (waiting, "waiting"))
    yield "tasks     " + (", ".join(f"{count} {what}" for count, what in shown if count) or "none")
    for task in status.tasks:
        doing = task.doing if task.state is TaskState.ACCEPTED else task.state.value
        yield f"  {task.id} attempt {task.attempt}: {doing}, {task.rows_done} of {task.rows_total} rows"


def _today(today: Day) -> str:
    energy = [
        f"{joules(each.energy_j)} by {each.source.value}"
        for each in today.energy
        if each.energy_j is not None
    ]
    return ", ".join(
        (
            f"ready or working {span(today.ready_s + today.working_s)} of {span(today.length_s)}",
            f"{_count(today.tasks.get(TaskState.DONE.value, 0), 'task', 'tasks')} done",
            _count(today.rows, "row", "rows"),
            *(energy or ["no joules"]),
        )
    )


def _store(store: StoreStatus) -> Iterator[str]:
    yield (
        f"store     {_count(store.open_tasks, 'task', 'tasks')}, {_count(store.unsettled_results, 'result', 'results')}"
        f" not yet settled, {store.bytes_used / 1e6:.1f} of {store.bytes_max / 1e6:g} MB"
    )
    if store.waiting:
        yield f"  full: {store.waiting} changes wait in memory for room, no new tasks are taken"
    if store.salvage:
        yield f"  {store.salvage}"


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


def _orders(orders: OrdersStatus, now: dt.datetime) -> str:
    """The orders that stand, empty for none."""
    consent = {None: "", True: "the owner consents", False: "the owner does not consent"}[orders.consent]
    departure = f"departure {ahead(orders.departure, now)}" if orders.departure else ""
    draining = "drain by the fleet" if orders.draining else ""
    paused = "paused by the vehicle OS" if orders.paused else ""
    return ", ".join(filter(None, (paused, consent, departure, draining)))


def _backend(backend: BackendStatus, now: dt.datetime) -> str:
    again = "" if backend.resume_at is None else f", crashed, starts again {ahead(backend.resume_at, now)}"
    if backend.why == UNTRIED:
        return f"{backend.name}: at most {backend.power_w:g} W, tried when its first worker starts{again}"
    if not backend.usable:
        return f"{backend.name}: not usable: {backend.why}{again}"
    bound = backend.cancel_bound_ms
    cancel = "stops by signal" if bound is None else f"stops within {bound:g} ms"
    formats = ", ".join(backend.formats)
    return f"{backend.name} on {backend.device}: {formats}, at most {backend.power_w:g} W, {cancel}{again}"


def _preempted(preemptions: PreemptionStatus) -> str:
    if preemptions.last_silent_ms is None or preemptions.max_silent_ms is None:
        return "never since the start"
    return (
        f"{_count(preemptions.count, 'time', 'times')}, last by {preemptions.last_reason}: worker gone"
        f" {preemptions.last_silent_ms:.1f} ms after the cue, {preemptions.max_silent_ms:.1f} ms at most"
    )


def _link(link: LinkStatus, now: dt.datetime) -> str:
    if link.up:
        return f"up for {age(link.since, now)}"
    again = "" if link.next_try is None else f", next try {ahead(link.next_try, now)}"
    return f"down for {age(link.since, now)}: {link.last_error or 'not connected yet'}{again}"


def _count(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"
