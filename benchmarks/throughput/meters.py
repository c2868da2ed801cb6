"""`--meter`: which meter is read, by a name and, where it has several sensors, their labels."""

import contextlib
from collections.abc import AsyncIterator, Collection
from typing import Final

from benchmarks.throughput.catalogue import UnknownNameError
from benchmarks.throughput.energy import GPU_BACKENDS, Metering, metering
from firmware_shims.clock import Clock
from firmware_shims.power.hwmon import hwmon_power
from firmware_shims.power.ina3221 import ina3221
from firmware_shims.power.meter import Meter, MeterFailed
from firmware_shims.power.nvml import NvmlMeter
from firmware_shims.power.rapl import RaplMeter

AUTO: Final = "auto"
NONE: Final = "none"
FORMS: Final = "auto, none, rapl, nvml[:UUID,...], hwmon:CHIP/LABEL,... or ina3221:RAIL,..."


def named(name: str, backends: Collection[str], clock: Clock) -> Meter | None:
    """The meter, which nothing has been read from; None for `none`. `auto` is NVML where every backend runs on GPUs.

    Raises `UnknownNameError` for a name that is none.
    """
    use, _, labels = name.partition(":")
    sensors = tuple(label for label in labels.split(",") if label)
    if use == AUTO and not sensors:
        use = "nvml" if set(backends) <= GPU_BACKENDS else "rapl"
    match use, bool(sensors):
        case "none", False:
            return None
        case "rapl", False:
            return RaplMeter(clock)
        case "nvml", _:
            return NvmlMeter(clock, sensors)
        case "hwmon", True:
            return hwmon_power([f"hwmon:{sensor}" for sensor in sensors], clock)
        case "ina3221", True:
            return ina3221(sensors, clock)
    raise UnknownNameError(f"--meter {name}: not known: take {FORMS}")


@contextlib.asynccontextmanager
async def owned(meter: Meter | None) -> AsyncIterator[tuple[Metering | None, MeterFailed | None]]:
    """The owner of a meter for as long as the block lasts, or why it does not answer; neither where none was asked for."""
    async with contextlib.AsyncExitStack() as stack:
        owner, failure = None, None
        if meter is not None:
            try:
                owner = await stack.enter_async_context(metering(meter))
            except MeterFailed as error:
                failure = error
        yield owner, failure


def why(failure: MeterFailed) -> str:
    """One line."""
    return f"{failure.why}; {failure.fix}" if failure.fix else failure.why
