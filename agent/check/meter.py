"""Whether the power meter counts."""

import asyncio
from collections.abc import Collection, Sequence
from typing import Final

from agent.check.finding import Finding, broken, works
from agent.meter_settings import MeterSettings
from agent.settings import Settings
from firmware_shims.clock import boottime_ns
from firmware_shims.power.meter import JouleSource, Meter, MeterFailed
from firmware_shims.power.pack import NEEDED
from firmware_shims.power.sampled import PERIOD_S
from firmware_shims.reading import Snapshot, Source

METER_S: Final = 1.0


async def meter(settings: Settings, sources: Sequence[Source]) -> Finding:
    """Read the power meter for a moment."""
    section = settings.meter
    names = {backend.use for backend in settings.backends}
    if unknown := sorted(set(section.covers) - names):
        fix = f"correct meter.covers: {', '.join(sorted(names))}"
        return broken("meter", section.use, f"covers {unknown[0]}, which is no backend here", fix)
    if section.use == "none":
        return works("meter", "none", "no joules are reported, and tasks that limit them are refused")
    if section.use == "pack":
        return _pack_meter(sources)
    found = section.meter(lambda: Snapshot(0, {}), boottime_ns)
    if found is not None:
        return await _measuring(found, section, names)
    text = f"CPU seconds x {section.watts_per_core:g} W per core: an estimate, reported as a model"
    return works("meter", section.use, text)


async def _measuring(found: Meter, section: MeterSettings, backends: Collection[str]) -> Finding:
    try:
        watts = await _shown_w(found)
    except MeterFailed as failed:
        return broken("meter", section.use, failed.why, failed.fix)
    finally:
        found.close()
    covered = sorted(name for name in backends if section.covered(name, found.scope))
    if not covered:
        fix = "take another meter, or name in meter.covers what it measures"
        return broken("meter", found.name, f"measures {found.scope.value} and covers no backend here", fix)
    kind = "counted" if found.source is JouleSource.COUNTER else "integrated"
    text = f"{watts:.1f} W now, {kind}, of {found.scope.value}; covers {', '.join(covered)}"
    return works("meter", found.name, text)


async def _shown_w(found: Meter) -> float:
    """The mean power over a moment; raises MeterFailed."""
    readings = [await asyncio.to_thread(found.read)]
    for _ in range(round(METER_S / PERIOD_S)):
        await asyncio.sleep(PERIOD_S)
        readings.append(await asyncio.to_thread(found.read))
    first, last = readings[0], readings[-1]
    joules = last.joules - first.joules
    if last.since_ns > first.at_ns or joules <= 0:
        raise MeterFailed(
            f"it has not counted on for {METER_S:g} s", "see whether the sensor works, or take another meter"
        )
    return joules / (last.at_ns - first.at_ns) * 1e9


def _pack_meter(sources: Sequence[Source]) -> Finding:
    offered = {path for source in sources for path in source.stale_after_s}
    if missing := [path for path in NEEDED if path not in offered]:
        fix = "add a signal source that does, or take a meter of the computer itself"
        return broken("meter", "pack", f"no source offers {', '.join(missing)}", fix)
    text = "integrated from the car's signals while the agent runs and the pack gives; minutes at least"
    return works("meter", "pack", text)
