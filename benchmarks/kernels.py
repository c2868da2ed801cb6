"""The worker beside the bare runtime: the same models and rows, in turn, one thread each, from a caller that waits.

The row lies in place on both sides: in the slot, and in the array that the bare script hands over again and again.
"""

import contextlib
import statistics
import struct
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from backends.datatypes import ITEM_BYTES
from backends.kernel import Model, Tensor
from backends.limits import Limits
from backends.process import WorkerProcess
from benchmarks.bare_runtime import Subject
from benchmarks.packaged_models import MEASURED, Packaged
from benchmarks.throughput.bare_side import bare_side
from benchmarks.throughput.play import Closed
from benchmarks.wheels import WheelMissingError

TURN_S: Final = 0.25
"""How long one side runs before the other has its turn: what else the machine does falls on both."""
LONG_RUN_MS: Final = 3.0
SHORTEST_RUN_MS: Final = 0.4
GOAL_LONG, GOAL_SHORT = 0.97, 0.90

Turn = Callable[[int], Awaitable[list[int]]]
"""Runs so many times; nanoseconds that each run took, for whoever waits for it."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The worker's share of the bare runtime by round: of its throughput, and of its median latency."""

    name: str
    run_ms: float
    throughput: Sequence[float]
    latency: Sequence[float]

    def __str__(self) -> str:
        return (
            f"{self.name:<46} {self.run_ms:>7.3f} ms   throughput {_spread(self.throughput)}"
            f"   p50 latency {_spread(self.latency)}   n = {len(self.throughput)}{self._verdict()}"
        )

    def _verdict(self) -> str:
        if self.run_ms < SHORTEST_RUN_MS:
            return ""
        goal = GOAL_LONG if self.run_ms >= LONG_RUN_MS else GOAL_SHORT
        reached = "met" if statistics.median(self.throughput) >= goal else "MISSED"
        return f"   goal >= {goal:.2f}: {reached}"


def _spread(values: Sequence[float]) -> str:
    first, median, third = statistics.quantiles(values, n=4, method="inclusive")
    return f"{median:.3f} ({first:.3f} .. {third:.3f})"


async def measure(rounds: int) -> list[str]:
    """Compare every model over `rounds` rounds; print-ready lines."""
    lines = ["worker beside bare runtime, one row a run: median over rounds (first .. third quartile)"]
    for packaged in MEASURED:
        with tempfile.TemporaryDirectory() as folder:
            try:
                model = packaged.stored(Path(folder))
            except WheelMissingError as error:
                lines.append(f"{packaged.name}: not measured: {error}")
                continue
            lines.append(str(await _compare(packaged, model, rounds)))
    return lines


async def _compare(packaged: Packaged, model: Model, rounds: int) -> Comparison:
    async with bare_runtime(model) as bare, _worker(packaged.use, model) as worker:
        await worker(5)
        run_ns = statistics.median(await bare(5))
        runs = max(3, round(TURN_S * 1e9 / run_ns))
        throughput, latency, bare_ns = [], [], []
        for number in range(rounds):
            first_is_bare = number % 2 == 0
            first = await (bare if first_is_bare else worker)(runs)
            second = await (worker if first_is_bare else bare)(runs)
            ours, theirs = (second, first) if first_is_bare else (first, second)
            throughput.append(sum(theirs) / sum(ours))
            latency.append(statistics.median(ours) / statistics.median(theirs))
            bare_ns.append(statistics.median(theirs))
    name = f"{packaged.use}: {packaged.name}"
    return Comparison(name, statistics.median(bare_ns) / 1e6, throughput, latency)


@contextlib.asynccontextmanager
async def bare_runtime(model: Model) -> AsyncIterator[Turn]:
    """The model in a process of its own, in its bare runtime, fed with ones."""
    async with bare_side(Subject(str(model.path), model.format, model.inputs)) as side:

        async def turn(runs: int) -> list[int]:
            return (await side.play(Closed(runs=runs))).latencies_ns

        yield turn


@contextlib.asynccontextmanager
async def _worker(use: str, model: Model) -> AsyncIterator[Turn]:
    worker = WorkerProcess.start(use, {}, limits=Limits(model_folders=(str(model.path.parent),)))
    try:
        program = await worker.load(model)
        with worker.slot(program, 1) as slot:
            for view, tensor in zip(slot.inputs, program.inputs, strict=True):
                view[:] = ones(tensor)

            async def turn(runs: int) -> list[int]:
                took_ns = []
                for _ in range(runs):
                    begun_ns = time.perf_counter_ns()
                    await worker.run(slot)
                    took_ns.append(time.perf_counter_ns() - begun_ns)
                return took_ns

            yield turn
    finally:
        await worker.stop()


def ones(tensor: Tensor) -> bytes:
    """One row of ones."""
    one = {"FP32": struct.pack("<f", 1.0)}.get(
        tensor.datatype, (1).to_bytes(ITEM_BYTES[tensor.datatype], "little")
    )
    size = 1
    for dimension in tensor.row_shape:
        size *= dimension
    return one * size
