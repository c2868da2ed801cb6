"""What has happened since the start, in plain numbers: counted where it happens, always; shown by the metrics."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from agent.histogram import Histogram
from agent.job import Chunk, Ending, Job
from agent.preemption import Preemption
from agent.protocol.messages import EnergySource, TaskState
from agent.protocol.reasons import Reason

Joules = dict[tuple[str, EnergySource], float]
"""By backend and source: sources are never mixed."""

TO_KILL_S: Final = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05)
TO_REAPED_S: Final = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0)


@dataclass(slots=True)
class Tally:
    """Of this life of the process only; belongs to the event loop."""

    tasks: Counter[tuple[TaskState, Reason | None]] = field(default_factory=Counter)
    """How accepted tasks ended."""
    rows: Counter[str] = field(default_factory=Counter)
    """Finished rows by backend; `device_s`, `active_j` and `idle_j` are what these took."""
    device_s: dict[str, float] = field(default_factory=dict)
    active_j: Joules = field(default_factory=dict)
    idle_j: Joules = field(default_factory=dict)
    preemptions: Counter[Reason] = field(default_factory=Counter)
    to_kill: Histogram = field(default_factory=lambda: Histogram(TO_KILL_S))
    """From the cue to the signal."""
    to_reaped: Histogram = field(default_factory=lambda: Histogram(TO_REAPED_S))
    """From the cue to the worker gone, with its memory."""
    worker_ends: Counter[tuple[str, bool]] = field(default_factory=Counter)
    """By backend, and whether the worker ended by itself."""

    def ended(self, ending: Ending) -> None:
        """A task has ended."""
        self.tasks[ending.state, ending.code] += 1

    def computed(self, job: Job, chunk: Chunk) -> None:
        """Rows are done."""
        if job.origin is None:
            raise ValueError("rows without an origin")
        backend, took = job.origin.backend, chunk.spending
        self.rows[backend] += chunk.end - chunk.begin
        self.device_s[backend] = self.device_s.get(backend, 0.0) + took.device_s
        _add(self.active_j, (backend, took.source), took.energy_j)
        _add(self.idle_j, (backend, took.source), took.idle_j)

    def preempted(self, preemption: Preemption) -> None:
        """A preemption has run to its end."""
        self.preemptions[preemption.reason] += 1
        self.to_kill.observe(preemption.kill_ms / 1000)
        self.to_reaped.observe(preemption.silent_ms / 1000)

    def worker_ended(self, backend: str, *, by_itself: bool) -> None:
        """A worker is gone."""
        self.worker_ends[backend, by_itself] += 1


def _add(joules: Joules, account: tuple[str, EnergySource], more_j: float | None) -> None:
    if more_j is not None:
        joules[account] = joules.get(account, 0.0) + more_j
