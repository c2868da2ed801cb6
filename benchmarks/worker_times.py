"""What a worker adds around a run, and how long it takes from its start, or a model's load, to the first row."""

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Final

from backends.kernel import Cost, Model, Tensor
from backends.limits import Limits
from backends.process import WorkerProcess
from backends.slots import LoadedProgram, Slot
from benchmarks.kernels import ones
from benchmarks.packaged_models import DETECTOR
from benchmarks.report import Figure, Tail
from benchmarks.wheels import WheelMissingError

IMAGE: Final = Tensor("image", "FP32", (3, 224, 224))
"""602 KB."""
ECHO: Final = Model(Path("/null/reads/no/file"), "0" * 64, "onnx", (IMAGE,))
WARM_RUNS: Final = 50


async def measure(runs: int, rounds: int) -> list[object]:
    """Time `runs` round trips, and `rounds` loads and starts; print-ready lines."""
    return [*await _round_trips(runs), *await _first_rows(rounds)]


async def _round_trips(runs: int) -> list[Tail]:
    """With the null backend, which copies its input to its output: the copy is the run."""
    above_us: list[float] = []
    write_us: list[float] = []
    worker = WorkerProcess.start("null", {})
    try:
        with worker.slot(await worker.load(ECHO), 1) as slot:
            row = ones(IMAGE)
            for _ in range(WARM_RUNS + runs):
                begun_ns = time.perf_counter_ns()
                slot.inputs[0][:] = row
                written_ns = time.perf_counter_ns()
                spent = (await worker.run(slot)).spent
                run_ns = spent.end_ns - spent.begin_ns
                above_us.append((time.perf_counter_ns() - written_ns - run_ns) / 1e3)
                write_us.append((written_ns - begun_ns) / 1e3)
    finally:
        await worker.stop()
    return [
        Tail("602 KB input round trip, above the run itself", "us", above_us[WARM_RUNS:], "p50 <= 30 us"),
        Tail("602 KB written into the slot, beside it", "us", write_us[WARM_RUNS:]),
    ]


async def _first_rows(rounds: int) -> list[object]:
    with tempfile.TemporaryDirectory() as folder:
        try:
            model = DETECTOR.stored(Path(folder))
        except WheelMissingError as error:
            return [f"first row: not measured: {error}"]
        loaded_ms = await _load_to_first_row_ms(model, rounds)
        known = replace(model, known=await _cost(model))
        started_ms: list[float] = []
        known_ms: list[float] = []
        for _ in range(rounds):
            started_ms.append(await _start_to_first_row_ms(model))
            known_ms.append(await _start_to_first_row_ms(known))
    size = f"{DETECTOR.name}, 10 MB"
    return [
        Figure(f"load to first row in a running worker, {size}", "ms", loaded_ms, "<= 120 ms"),
        Figure(f"worker start to first row, {size}", "ms", started_ms, "<= 250 ms"),
        Figure("  its cost measured before, as from the second time on", "ms", known_ms),
    ]


async def _load_to_first_row_ms(model: Model, rounds: int) -> list[float]:
    took_ms: list[float] = []
    worker = _start(model)
    try:
        await worker.probe()
        for _ in range(1 + rounds):
            begun_s = time.perf_counter()
            program = await _first_row(worker, model)
            took_ms.append((time.perf_counter() - begun_s) * 1e3)
            await worker.unload(program)
    finally:
        await worker.stop()
    return took_ms[1:]  # the first one reads the file into the page cache


async def _cost(model: Model) -> Cost:
    worker = _start(model)
    try:
        return (await worker.load(model)).cost
    finally:
        await worker.stop()


async def _start_to_first_row_ms(model: Model) -> float:
    begun_s = time.perf_counter()
    worker = _start(model)
    try:
        await _first_row(worker, model)
        return (time.perf_counter() - begun_s) * 1e3
    finally:
        await worker.stop()


def _start(model: Model) -> WorkerProcess:
    return WorkerProcess.start(DETECTOR.use, {}, limits=Limits(model_folders=(str(model.path.parent),)))


async def _first_row(worker: WorkerProcess, model: Model) -> LoadedProgram:
    program = await worker.load(model)
    slot: Slot
    with worker.slot(program, 1) as slot:
        await worker.run(slot)
    return program
