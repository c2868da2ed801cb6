"""The first look at each set of options: whether it loads, and which batches keep the bounds."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from backends.kernel import KernelError
from backends.process import WorkerDied
from benchmarks.throughput.play import Closed
from benchmarks.throughput.tune_search import Trial
from benchmarks.throughput.tune_sides import Sides
from benchmarks.throughput.tune_space import Setting, batches
from benchmarks.throughput.tune_turns import warm_up
from benchmarks.throughput.worker_side import DeviceMissingError, WorkerSide

FAILURES: Final = (KernelError, WorkerDied, DeviceMissingError)
"""What keeps a setting from running, with its reason."""
LARGEST_BATCH: Final = 64
LOOK_S: Final = 0.2
LOOK_RUNS: Final = 3
NS_PER_MS: Final = 1e6
MS: Final = 1e3


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a setting must keep: the 99th percentile at the rate, and how long a cancel or another task may wait."""

    latency_ms: float
    preemption_ms: float


@dataclass(frozen=True, slots=True)
class Look:
    """A set of options: milliseconds of a run by batch, up to the first that is too long, and of a cancel.

    `cancel_ms` is at batch 1; where a run cannot be cancelled, it is the run's. `trouble` says why it does not run.
    """

    options: Mapping[str, Any]
    run_ms: Mapping[int, float]
    cancel_ms: float
    trouble: str = ""

    def broken_bound(self, batch: int, bounds: Bounds, rate_per_s: float | None) -> str:
        """Which bound a batch cannot keep, at full load or, waiting for its rows, at a rate; empty for none."""
        run_ms = self.run_ms[batch]
        longest_ms, what = (self.cancel_ms, "a cancel") if batch == 1 else (run_ms, "a run of the batch")
        if longest_ms > bounds.preemption_ms:
            return f"{what} takes {longest_ms:.3g} ms, the preemption bound is {bounds.preemption_ms:g} ms"
        if rate_per_s is None:
            return ""
        late_ms = (batch - 1) / rate_per_s * MS + run_ms
        if late_ms <= bounds.latency_ms:
            return ""
        return f"its first row waits {late_ms:.3g} ms in all, the latency bound is {bounds.latency_ms:g} ms"


async def looks(sides: Sides, sets: Sequence[Mapping[str, Any]], bounds: Bounds) -> list[Look]:
    """One each; raises the last one's failure, one of `FAILURES`, where none of them runs."""
    found = []
    for options in sets:
        try:
            async with sides.ours(options) as side:
                found.append(await _look(side, options, bounds))
        except FAILURES as error:
            found.append(Look(options, {}, 0.0, str(error)))
            last = error
    if all(look.trouble for look in found):
        raise last
    return found


def split(
    found: Sequence[Look], bounds: Bounds, rate_per_s: float | None
) -> tuple[list[Setting], list[Trial]]:
    """The settings that may keep the bounds, small batches first, and those that cannot, with the reason."""
    refused = [
        Trial(Setting(look.options), out=f"does not run: {look.trouble}") for look in found if look.trouble
    ]
    allowed = []
    for look in found:
        for batch in look.run_ms:
            setting = Setting(look.options, batch)
            if why := look.broken_bound(batch, bounds, rate_per_s):
                refused.append(Trial(setting, out=f"{why}; larger batches take longer"))
                break
            allowed.append(setting)
    return sorted(allowed, key=lambda setting: setting.batch), refused


async def _look(side: WorkerSide, options: Mapping[str, Any], bounds: Bounds) -> Look:
    program = side.program
    run_ms: dict[int, float] = {}
    for batch in batches(program.max_batch, LARGEST_BATCH):
        await warm_up(side, batch)
        played = await side.play(Closed(seconds=LOOK_S, runs=LOOK_RUNS, batch=batch))
        run_ms[batch] = statistics.median(played.latencies_ns) / NS_PER_MS
        if run_ms[batch] > bounds.preemption_ms:
            break
    cancel_s = program.cost.cancel_bound_s
    return Look(options, run_ms, run_ms[1] if cancel_s is None else cancel_s * MS)
