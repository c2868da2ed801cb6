"""The agent's numbers as Prometheus has them: names, units and labels by its conventions (prometheus.io/docs/practices).

No label holds what others choose: no task, no model, no vehicle.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)

from agent.histogram import Histogram
from agent.metrics.subjects import Subjects
from agent.portrait import Portrait
from agent.protocol.messages import OPEN_STATES, Mode, TaskState
from agent.protocol.reasons import Reason
from agent.store import Counts
from agent.tally import Joules, Tally

NS: Final = 1_000_000_000
CONDITIONS: Final = tuple(reason for reason in Reason if Reason.UNKNOWN_SIGNAL <= reason <= Reason.PAUSED)
"""What the policy may have against work."""
Labels = tuple[str, ...]
Values = Iterable[tuple[Labels, float]]
"""The values of a family by those of its labels."""


def families(subjects: Subjects, counts: Counts | None, lag: Histogram) -> Iterator[Metric]:
    """Every family of metrics, read now. Without `counts` the store has not answered, and what it would say is absent."""
    yield InfoMetricFamily("parkwatt_build", "What runs.", {"version": subjects.portrait.version})
    yield from _now(subjects.portrait)
    yield from _tasks(subjects)
    yield from _work(subjects)
    yield from _preemptions(subjects.tally)
    yield from _link(subjects)
    yield from _store(subjects.portrait, counts)
    yield _histogram(
        "parkwatt_loop_lag_seconds", "How late the event loop was, looked at once a second.", lag
    )


def _now(portrait: Portrait) -> Iterator[Metric]:
    mode, verdict, energy = portrait.mode, portrait.guard.verdict, portrait.energy
    modes = (((each.value,), each is mode) for each in Mode)
    yield _gauges("parkwatt_mode", "1 for the present mode.", ("mode",), modes)
    against = {blocker.reason for blocker in verdict.blockers}
    reasons = (((each.label,), each in against) for each in CONDITIONS)
    yield _gauges("parkwatt_blocked", "1 for each reason that work is not allowed now.", ("reason",), reasons)
    yield _gauge("parkwatt_power_budget_watts", "What work may draw now.", verdict.budget_w)
    baseline = energy.baseline
    idle = [((energy.source.value,), baseline.watts)] if baseline is not None else []
    yield _gauges("parkwatt_idle_power_watts", "Of the meter, while nothing runs.", ("source",), idle)
    states = [station.state() for station in portrait.stations]
    usable = (((state.name,), state.usable) for state in states)
    yield _gauges("parkwatt_backend_usable", "1 when it has found a device.", ("backend",), usable)
    most_w = (((state.name,), state.power_w) for state in states)
    yield _gauges("parkwatt_backend_power_limit_watts", "What it may draw at most.", ("backend",), most_w)


def _tasks(subjects: Subjects) -> Iterator[Metric]:
    executor, tally = subjects.portrait.executor, subjects.tally
    held = [job.state for job in executor.jobs.values()]
    by_state = (((state.value,), held.count(state)) for state in sorted(OPEN_STATES, key=lambda s: s.value))
    yield _gauges("parkwatt_open_tasks", "Tasks that wait or are under way.", ("state",), by_state)
    yield _gauge("parkwatt_queued_seconds", "What the open tasks are expected to take.", executor.queued_s)
    ended = {(TaskState.DONE.value, ""): 0}
    for (state, code), tasks in tally.tasks.items():
        ended[state.value, code.label if code else ""] = tasks
    for code, tasks in subjects.intake.rejected.items():
        ended[TaskState.REJECTED.value, code.label] = tasks
    yield _counters(
        "parkwatt_tasks", "Tasks that ended or were rejected.", ("outcome", "reason"), ended.items()
    )


def _work(subjects: Subjects) -> Iterator[Metric]:
    """A counter that is not there until it counts hides its first step from whoever watches how it grows."""
    tally, backends = subjects.tally, [station.name for station in subjects.portrait.stations]
    rows = (((backend,), tally.rows[backend]) for backend in backends)
    yield _counters("parkwatt_rows", "Rows that were computed and kept.", ("backend",), rows)
    device_s = (((backend,), tally.device_s.get(backend, 0.0)) for backend in backends)
    yield _counters("parkwatt_device_seconds", "What these rows took of a device.", ("backend",), device_s)
    yield _joules("parkwatt_energy_joules", "Active energy of these rows, where it is known.", tally.active_j)
    yield _joules("parkwatt_idle_energy_joules", "Idle energy meanwhile, where it is known.", tally.idle_j)
    ends = (
        ((backend, "itself" if by_itself else "agent"), tally.worker_ends[backend, by_itself])
        for backend in backends
        for by_itself in (False, True)
    )
    yield _counters(
        "parkwatt_worker_ends", "Workers that are gone, and who ended them.", ("backend", "by"), ends
    )


def _preemptions(tally: Tally) -> Iterator[Metric]:
    by_reason = (((reason.label,), tally.preemptions[reason]) for reason in CONDITIONS)
    yield _counters("parkwatt_preemptions", "Times that workers were killed at once.", ("reason",), by_reason)
    to_kill = "From the cue, as it was received, to the signal that kills the worker."
    yield _histogram("parkwatt_preemption_kill_seconds", to_kill, tally.to_kill)
    to_reaped = "From the cue, as it was received, to the worker gone with its memory."
    yield _histogram("parkwatt_preemption_reaped_seconds", to_reaped, tally.to_reaped)


def _link(subjects: Subjects) -> Iterator[Metric]:
    link = subjects.portrait.link
    yield _gauge("parkwatt_link_up", "1 while the broker is connected.", link.up)
    yield _counter(
        "parkwatt_link_reconnects", "Connections after the first.", max(0, link.status.connects - 1)
    )
    yield _gauge(
        "parkwatt_link_outgoing_messages", "Messages that the broker has not taken yet.", link.outgoing
    )
    refused = (((name,), messages) for name, messages in subjects.intake.refused.items())
    yield _counters("parkwatt_refused_messages", "Messages that were not followed.", ("reason",), refused)


def _store(portrait: Portrait, counts: Counts | None) -> Iterator[Metric]:
    writer, busy_since_ns = portrait.store.writer, portrait.store.writer.busy_since_ns
    yield _gauge("parkwatt_store_answers", "0 while its disk hangs.", counts is not None)
    yield _counter("parkwatt_store_commits", "Transactions that are on disk.", writer.commits)
    yield _gauge("parkwatt_store_queued_jobs", "Changes that wait for the disk.", writer.queued)
    yield _gauge("parkwatt_store_stuck_jobs", "Changes that wait for room on the disk.", writer.waiting)
    busy_s = 0.0 if busy_since_ns is None else max(0, portrait.clock() - busy_since_ns) / NS
    yield _gauge("parkwatt_store_busy_seconds", "How long the present transaction has taken.", busy_s)
    if counts is not None:
        free_bytes = portrait.store_max_bytes - counts.used_bytes
        yield _gauge("parkwatt_store_inbox_tasks", "Open tasks on disk.", counts.open_tasks)
        yield _gauge("parkwatt_store_outbox_results", "Results not yet settled.", counts.unsettled_results)
        yield _gauge("parkwatt_store_outbox_bytes", "What these results hold.", counts.unsettled_bytes)
        yield _gauge("parkwatt_store_used_bytes", "What the store holds.", counts.used_bytes)
        yield _gauge("parkwatt_store_free_bytes", "What it may hold beside that.", free_bytes)


def _gauge(name: str, documentation: str, value: float) -> Metric:
    return GaugeMetricFamily(name, documentation, float(value))


def _counter(name: str, documentation: str, value: float) -> Metric:
    return CounterMetricFamily(name, documentation, float(value))


def _gauges(name: str, documentation: str, labels: Labels, values: Values) -> Metric:
    return _filled(GaugeMetricFamily(name, documentation, labels=labels), values)


def _counters(name: str, documentation: str, labels: Labels, values: Values) -> Metric:
    return _filled(CounterMetricFamily(name, documentation, labels=labels), values)


def _joules(name: str, documentation: str, joules: Joules) -> Metric:
    values = (((backend, source.value), number) for (backend, source), number in joules.items())
    return _counters(name, documentation, ("backend", "source"), values)


def _filled(family: GaugeMetricFamily | CounterMetricFamily, values: Values) -> Metric:
    for labels, value in values:
        family.add_metric(labels, float(value))
    return family


def _histogram(name: str, documentation: str, durations: Histogram) -> Metric:
    bounds = ((f"{bound_s:g}", number) for bound_s, number in durations.cumulative())
    buckets = [("+Inf" if bound == "inf" else bound, float(number)) for bound, number in bounds]
    return HistogramMetricFamily(name, documentation, buckets, durations.sum_s)
