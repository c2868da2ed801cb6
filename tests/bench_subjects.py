"""Models of a few bytes for the benchmark's rows, and a folder that they are measured into."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from backends.kernel import Tensor
from backends.tiny_onnx import chain
from benchmarks.throughput import provenance
from benchmarks.throughput.asked import Meters
from benchmarks.throughput.catalogue import Entry
from benchmarks.throughput.inputs import seeded
from benchmarks.throughput.plan import planned
from benchmarks.throughput.progress import Progress
from benchmarks.throughput.results import ScenarioName
from benchmarks.throughput.scenarios import Length
from benchmarks.throughput.sweep import Sweep, Terms
from benchmarks.throughput.worker_side import BackendChoice

SHORT = Length(quick=True, duration_s=0.5)
WIDTH = 1024


def tiny(
    name: str = "tiny",
    content: Callable[[], bytes] = lambda: chain("Relu", 8, "FP32", ("n", WIDTH)),
    model_format: Literal["onnx", "tflite"] = "onnx",
    latency_bound_ms: float = 100,
) -> Entry:
    return Entry(
        id=name,
        kind="classifier",
        precision="float32",
        format=model_format,
        licence="Apache-2.0",
        source="the tests",
        content=content,
        inputs=(Tensor("x", "FP32", (WIDTH,)),),
        samples=seeded,
        latency_bound_ms=latency_bound_ms,
    )


def choice(use: str, **options: Any) -> BackendChoice:
    return BackendChoice(use, options)


@dataclass
class Bench:
    """A folder, and what is measured into it."""

    folder: Path
    terms: Terms = field(default_factory=lambda: Terms(SHORT))
    meters: Meters = field(default_factory=Meters)
    said: io.StringIO = field(default_factory=io.StringIO)

    async def measure(
        self,
        entries: Sequence[Entry],
        choices: Sequence[BackendChoice],
        scenarios: Sequence[ScenarioName] = ("single",),
        batches: Sequence[int] = (),
    ) -> Sweep:
        plan = await planned(entries, choices, scenarios, batches)
        sweep = Sweep(
            self.folder,
            provenance.taken(["run"], None, "a test", 0.0),
            self.terms,
            self.meters,
            Progress(len(plan.rows), self.said),
        )
        await sweep.run(plan.rows)
        return sweep
