"""What is to be measured in one row, and with what."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from backends import registry
from benchmarks.throughput import scenarios
from benchmarks.throughput.catalogue import Entry, used
from benchmarks.throughput.energy import Metering
from benchmarks.throughput.results import (
    BackendUsed,
    Figures,
    Loadgen,
    Row,
    ScenarioName,
    ScenarioUsed,
)
from benchmarks.throughput.scenarios import CONSTANT_PER_S, Length
from benchmarks.throughput.worker_side import BackendChoice, WorkerSide
from firmware_shims.power.model import CpuModelMeter

OPEN: Final = frozenset({"server", "constant"})
"""Scenarios in which queries come when they come."""

Progress = Callable[[float], None]
"""Is told which share of a row is done."""
MoreLoad = Callable[[WorkerSide, ScenarioUsed, Figures], Awaitable[Loadgen]]
"""The same scenario once more, while the worker is still there: see benchmarks.throughput.loadgen."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One row. Without a batch it is 1, and of offline the one that was quickest by the row when it was loaded.

    Without a rate it is searched for server, and `scenarios.CONSTANT_PER_S` for constant.
    """

    entry: Entry
    choice: BackendChoice
    scenario: ScenarioName
    length: Length
    batch: int | None = None
    rate_per_s: float | None = None
    latency_bound_ms: float | None = None
    seed: int = 1

    @property
    def bound_ms(self) -> float:
        """The model's own, unless another one was given."""
        return self.latency_bound_ms or self.entry.latency_bound_ms

    @property
    def used(self) -> ScenarioUsed:
        """The scenario as far as it is known before the model is loaded."""
        rate = self.rate_per_s or (CONSTANT_PER_S if self.scenario == "constant" else None)
        rate = rate if self.scenario in OPEN else None
        return scenarios.used(self.scenario, self.length, self.batch or 1, self.bound_ms, rate)


@dataclass(frozen=True, slots=True)
class Meters:
    """What says something about joules."""

    metering: Metering | None = None
    model: CpuModelMeter | None = None
    """Where no meter covers the backend."""

    def covering(self, use: str) -> Metering | None:
        """The meter, where it measures what a backend does."""
        return self.metering if self.metering is not None and self.metering.covers(use) else None


@dataclass(frozen=True, slots=True)
class Means:
    """What a row is measured with."""

    meters: Meters = field(default_factory=Meters)
    progress: Progress = lambda _: None
    more_load: MoreLoad | None = None


class NotMeasuredError(Exception):
    """There are no figures; one line with why."""


def not_measured(asked: Asked, why: str) -> Row:
    """The row without anything that only a measurement tells."""
    return Row(
        model=used(asked.entry),
        backend=BackendUsed(asked.choice.use, "", asked.choice.device, all_options(asked.choice)),
        scenario=asked.used,
        quick=asked.length.quick,
        failed=why,
    )


def all_options(choice: BackendChoice) -> dict[str, object]:
    """A backend's options, defaults included."""
    return registry.validate_options(choice.use, choice.options).model_dump(mode="json")
