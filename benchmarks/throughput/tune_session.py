"""From what was asked for to a tuning under way: the model's files, the meter with its idle power, the other precision."""

import contextlib
import tempfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from benchmarks.throughput.catalogue import CATALOGUE, Entry, prepared
from benchmarks.throughput.energy import GPU_BACKENDS, Metering
from benchmarks.throughput.meters import owned, why
from benchmarks.throughput.play import Closed
from benchmarks.throughput.tune import Effort, Say, Tuned, Tuning
from benchmarks.throughput.tune_cost import Costing
from benchmarks.throughput.tune_looks import Bounds
from benchmarks.throughput.tune_sides import Sides
from firmware_shims.power.meter import Meter
from firmware_shims.power.model import CpuModelMeter

INT8: Final = "-int8"
"""The id of a model's int8 version is the model's with this behind it."""


class CannotTuneError(Exception):
    """One line with why and what to do."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What to tune, and what for. A meter that is not `wanted` may be missing."""

    use: str
    device: str
    entry: Entry
    rate_per_s: float
    bounds: Bounds
    effort: Effort
    held: Mapping[str, Any]
    meter: Meter | None
    meter_is_wanted: bool
    model: CpuModelMeter | None


async def tuned(asked: Asked, say: Say) -> tuple[Tuning, Tuned]:
    """Tune; raises `CannotTuneError`, `WheelMissingError`, MeterFailed, and what sides raise."""
    with tempfile.TemporaryDirectory(prefix="parkwatt-tune-") as name:
        folder = Path(name)
        sides = _sides(asked, asked.entry, folder)
        other = _other_precision(asked.entry)
        async with _costing(asked, await _device_joules(sides), say) as costing:
            tuning = Tuning(
                sides=sides,
                rate_per_s=asked.rate_per_s,
                bounds=asked.bounds,
                effort=_long_enough(asked.effort, costing.metering),
                costing=costing,
                say=say,
                other=_sides(asked, other, folder) if other else None,
            )
            return tuning, await tuning.run()


def _sides(asked: Asked, entry: Entry, folder: Path) -> Sides:
    return Sides(prepared(entry, folder), asked.use, folder, asked.device, asked.held)


def _other_precision(entry: Entry) -> Entry | None:
    return CATALOGUE.get(entry.id.removesuffix(INT8) if entry.id.endswith(INT8) else f"{entry.id}{INT8}")


def _long_enough(effort: Effort, owner: Metering | None) -> Effort:
    least_s = owner.turn_s if owner else 0.0
    return replace(effort, turn_s=max(least_s, effort.turn_s), full_s=max(least_s, effort.full_s))


async def _device_joules(sides: Sides) -> str:
    """Which kind of joules the device gives of its own runs; empty for none. Raises what a side raises."""
    async with sides.ours(sides.held) as side:
        source = (await side.play(Closed())).joules_source
        return f"{source}: {sides.use} {side.device}" if source else ""


@contextlib.asynccontextmanager
async def _costing(asked: Asked, device_joules: str, say: Say) -> AsyncIterator[Costing]:
    if device_joules:
        yield Costing(device=device_joules)
        return
    async with owned(asked.meter) as (found, failure):
        if failure is not None and asked.meter_is_wanted:
            raise CannotTuneError(f"--meter: {why(failure)}") from failure
        if failure is not None:
            say(f"no meter: {why(failure)}")
        owner = found if found is not None and found.covers(asked.use) else None
        if found is not None and owner is None:
            say(f"{found.used.name} does not measure what {asked.use} takes: not used")
        if owner is not None:
            say("idle power: a few seconds in which nothing runs")
            yield Costing(metering=owner, idle_w=(await owner.idle()).watts)
            return
        if asked.use in GPU_BACKENDS:
            raise CannotTuneError(
                f"{asked.use}: processor seconds say nothing of what a GPU takes: a meter is needed, --meter nvml"
            )
        yield Costing(model=asked.model)
