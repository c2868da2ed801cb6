"""What a run in a worker process costs around the run itself: the backend is `null`, which copies its input."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from backends.kernel import Model, Tensor
from backends.process import WorkerProcess
from backends.slots import Slot
from benchmarks.micro.conftest import Turn

SIZES: Final = {"1 KB": (1024,), "602 KB": (3, 224, 224, 4)}
WARM: Final = 50
RUNS: Final = 2000


@contextmanager
def loaded(turn: Turn[Any], row_shape: tuple[int, ...]) -> Iterator[tuple[WorkerProcess, Slot]]:
    """A worker with a slot for one row of so many bytes."""
    model = Model(Path("/null/reads/no/file"), "0" * 64, "onnx", (Tensor("x", "UINT8", row_shape),))
    worker = turn(_started())
    try:
        with worker.slot(turn(worker.load(model)), 1) as slot:
            yield worker, slot
    finally:
        turn(worker.stop())


async def _started() -> WorkerProcess:
    return WorkerProcess.start("null", {})


@pytest.mark.parametrize("size", SIZES)
def bench_a_slot_round_trip(benchmark: BenchmarkFixture, turn: Turn[Any], size: str) -> None:
    """The input lies in the slot; until the output does and the loop has heard of it, a copy by the backend included."""
    with loaded(turn, SIZES[size]) as (worker, slot):
        benchmark.pedantic(lambda: turn(worker.run(slot)), rounds=RUNS, warmup_rounds=WARM)


@pytest.mark.parametrize("size", SIZES)
def bench_a_slot_written(benchmark: BenchmarkFixture, turn: Turn[Any], size: str) -> None:
    """The input's bytes into the shared memory: beside the round trip."""
    with loaded(turn, SIZES[size]) as (_, slot):
        row = bytes(len(slot.inputs[0]))

        def write() -> None:
            slot.inputs[0][:] = row

        benchmark(write)
