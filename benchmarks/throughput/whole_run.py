"""A run from its plan to its last row: the meter is opened, the machine looked at, the folder filled."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from benchmarks.throughput import meters, provenance
from benchmarks.throughput.asked import Meters
from benchmarks.throughput.catalogue import Entry, UnknownNameError
from benchmarks.throughput.energy import Metering
from benchmarks.throughput.plan import planned
from benchmarks.throughput.processes import Busy, others_share
from benchmarks.throughput.progress import Progress
from benchmarks.throughput.results import Row, ScenarioName
from benchmarks.throughput.sweep import Sweep, Terms
from benchmarks.throughput.worker_side import BackendChoice
from firmware_shims.clock import boottime_ns
from firmware_shims.power.meter import MeterFailed
from firmware_shims.power.model import CpuModelMeter

LOOK_S = 1.0
"""For so long others are watched before the first row."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What is to be measured, each with each."""

    entries: Sequence[Entry]
    choices: Sequence[BackendChoice]
    scenarios: Sequence[ScenarioName]
    batches: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Power:
    """What may say something about energy: a meter by its name, and without one watts per core."""

    meter: str = meters.AUTO
    watts_per_core: float | None = None


async def whole_run(
    selection: Selection, folder: Path, terms: Terms, power: Power, *, command: Sequence[str], out: TextIO
) -> list[Row]:
    """Measure everything into an empty folder. Raises `UnknownNameError` before anything is written."""
    plan = await planned(selection.entries, selection.choices, selection.scenarios, selection.batches)
    found = meters.named(power.meter, [choice.use for choice in selection.choices], boottime_ns)
    async with meters.owned(found) as (meter, failure):
        if failure is not None and power.meter != meters.AUTO:
            raise UnknownNameError(f"--meter {power.meter}: {meters.why(failure)}") from failure
        why_none = _why_none(meter, failure)
        before = Busy.now()
        await asyncio.sleep(LOOK_S)
        others = others_share(before, Busy.now())
        for line in (*plan.left_out, f"no meter: {why_none}" if why_none else ""):
            if line:
                print(line, file=out)
        model = CpuModelMeter(power.watts_per_core) if power.watts_per_core and meter is None else None
        sweep = Sweep(
            folder,
            provenance.taken(command, meter.used if meter else None, why_none, others),
            terms,
            Meters(meter, model),
            Progress(len(plan.rows), out),
        )
        await sweep.run(plan.rows)
        return sweep.rows


def _why_none(meter: Metering | None, failure: MeterFailed | None) -> str:
    """Empty where there is a meter."""
    if failure is not None:
        return meters.why(failure)
    return "" if meter is not None else "none was asked for"
