"""What runs cost in joules: by the device itself, by the computer's meter, or by a model, and never by a mixture."""

import contextlib
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from agent.guard import Guard
from agent.job import NS, Spending
from agent.meter_settings import MeterSettings
from agent.protocol.messages import EnergySource
from backends.kernel import Spent
from backends.process import RunDone
from firmware_shims.clock import Clock
from firmware_shims.power.baseline import Baseline
from firmware_shims.power.model import CpuModelMeter
from firmware_shims.power.owner import MeterOwner

if TYPE_CHECKING:
    from firmware_shims.power.split import Run


class Energy:
    """The agent's meter. What a device counts for a run wins over it, what a device predicts does not.

    `run` is for a thread of its own.
    """

    def __init__(self, settings: MeterSettings, guard: Guard, clock: Clock) -> None:
        self._settings = settings
        self._guard = guard
        self._meter = settings.meter(lambda: guard.snapshot, clock)
        self._owner = MeterOwner(self._meter, clock) if self._meter else None
        watts_per_core = settings.watts_per_core
        self._model = CpuModelMeter(watts_per_core) if watts_per_core else None

    @property
    def source(self) -> EnergySource:
        """Where the joules of a run come from now, unless its device counts them."""
        if self._owner is not None:
            return EnergySource.NONE if self._owner.why else EnergySource(self._owner.source.value)
        return EnergySource(self._model.source.value) if self._model else EnergySource.NONE

    @property
    def why(self) -> str:
        """Why the meter has no figures now; empty when it has, or when there is none."""
        return self._owner.why if self._owner else ""

    @property
    def baseline(self) -> Baseline | None:
        """Idle power, with its age and spread; None before it was measured."""
        return self._owner.baseline if self._owner else None

    def run(self) -> None:
        """Read the meter while there is something to measure, until `stop`."""
        if self._owner is not None:
            self._owner.run()

    def stop(self) -> None:
        """Let `run` return."""
        if self._owner is not None:
            self._owner.stop()

    def look(self) -> None:
        """Follow the verdict: idle power is measured while a worker may exist and nothing runs."""
        if self._owner is not None:
            self._owner.calibrate(self._guard.may_exist)

    @contextlib.contextmanager
    def metered(self, backend: str) -> Iterator["MeteredRun"]:
        """A run of a backend from when it is sent to when it is done, or given up."""
        run = MeteredRun(
            self._owner, self._model, backend, self._covers(backend), self._guard.verdict.on_pack
        )
        try:
            yield run
        finally:
            run.withdraw()

    def _covers(self, backend: str) -> bool:
        return self._meter is None or self._settings.covered(backend, self._meter.scope)


class MeteredRun:
    """A run under way. Where its energy comes from is what held when it began."""

    def __init__(
        self,
        owner: MeterOwner | None,
        model: CpuModelMeter | None,
        backend: str,
        covered: bool,
        on_pack: bool,
    ) -> None:
        self._owner = owner
        self._model = model
        self._on_pack = on_pack
        self._run: Run | None = owner.begin(backend) if owner and covered else None

    def spending(self, done: RunDone) -> Spending:
        """What it took, now that it is done."""
        own_j = _credible(done.spent.joules)
        if own_j is not None and done.spent.joules_source == "counter":
            self.withdraw()
            return self._spending(done.spent, EnergySource.COUNTER, own_j, None)
        if self._owner is not None and self._run is not None:
            run, self._run = self._run, None
            charge = self._owner.end(run, done.spent.begin_ns, done.spent.end_ns)
            if charge is not None:
                source = EnergySource(self._owner.source.value)
                return self._spending(done.spent, source, charge.active_j, charge.idle_j)
        if own_j is not None:  # predicted: believed where nothing has measured
            return self._spending(done.spent, EnergySource.MODEL, own_j, None)
        if self._model is not None:
            return self._spending(done.spent, EnergySource.MODEL, self._model.active_j(done.cpu_s), None)
        return self._spending(done.spent, EnergySource.NONE, None, None)

    def withdraw(self) -> None:
        """It gave nothing that could be charged for; a second time nothing happens."""
        if self._owner is not None and self._run is not None:
            run, self._run = self._run, None
            self._owner.withdraw(run)

    def _spending(
        self, spent: Spent, source: EnergySource, energy_j: float | None, idle_j: float | None
    ) -> Spending:
        device_s = max(0, spent.end_ns - spent.begin_ns) / NS
        pack_j = None if energy_j is None else energy_j if self._on_pack else 0.0
        return Spending(device_s, device_s, energy_j, source, idle_j, pack_j)


def _credible(joules: float | None) -> float | None:
    """A device that counts less than nothing, or no number, has not counted."""
    return joules if joules is not None and math.isfinite(joules) and joules >= 0 else None
