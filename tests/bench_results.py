"""Results files whose truth is known: a machine that needs just so long and so many joules, give or take a little."""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from benchmarks.throughput import figures, histogram, intervals
from benchmarks.throughput.results import (
    SCHEMA,
    BackendUsed,
    Bare,
    Energy,
    Figures,
    JouleSource,
    Memory,
    MeterUsed,
    ModelUsed,
    Provenance,
    Results,
    Round,
    Row,
    ScenarioName,
    ScenarioUsed,
    Shape,
    Turn,
)
from firmware_shims.power.meter import Scope

NS = 1e9
RAPL = MeterUsed("rapl package-0", Scope.PACKAGE.value, "counter", 2**-14, 0.001)
MODEL_METER = "7 W x CPU seconds"


@dataclass(frozen=True)
class Machine:
    """What one inference takes there, and by how much a round is off (standard deviation of the logarithm)."""

    latency_ms: float = 4.0
    cpu_share: float = 1.0
    watts: float = 15.0
    spread: float = 0.02
    source: JouleSource = "counter"
    meter: str = RAPL.name
    rounds: int = 10
    queries: int = 200
    tail: float = 0.1
    """Spread of the latencies within a round."""
    overhead: float = 1.05
    """Of the worker, beside the bare runtime."""
    fails: str = ""
    marks: tuple[str, ...] = ()


@dataclass
class Workshop:
    """Makes rows; the same seed makes the same rows."""

    seed: int = 1
    rng: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)  # noqa: S311 - no secret

    def row(
        self,
        machine: Machine,
        model: str = "file-types",
        use: str = "cpu",
        scenario: ScenarioName = "single",
        batch: int = 1,
        **scenario_used: Any,
    ) -> Row:
        rounds = () if machine.fails else tuple(self._round(machine, batch) for _ in range(machine.rounds))
        return Row(
            model=model_used(model),
            backend=BackendUsed(use, "1.31.1", use, {"threads": 1}),
            scenario=ScenarioUsed(scenario, batch, 10.0, 64, **scenario_used),
            quick=False,
            figures=None if machine.fails else figures_of(rounds, machine),
            failed=machine.fails,
            marks=machine.marks,
            rounds=rounds,
        )

    def _round(self, machine: Machine, batch: int) -> Round:
        ours = self._turn(machine, batch, machine.overhead)
        return Round(ours, self._turn(machine, batch, 1.0), 0.01)

    def _turn(self, machine: Machine, batch: int, overhead: float) -> Turn:
        off = math.exp(self.rng.gauss(0, machine.spread))
        median_ms = machine.latency_ms * overhead * batch**0.8 * off
        latencies_ns = [
            int(median_ms * 1e6 * math.exp(self.rng.gauss(0, machine.tail))) for _ in range(machine.queries)
        ]
        seconds = sum(latencies_ns) / NS
        cpu_s = seconds * machine.cpu_share
        joules = None if machine.source == "none" else machine.watts * seconds
        return Turn(batch * machine.queries, seconds, cpu_s, histogram.collected(latencies_ns), joules)


def figures_of(rounds: Sequence[Round], machine: Machine) -> Figures:
    turns = [each.ours for each in rounds]
    return Figures(
        inferences=sum(turn.inferences for turn in turns),
        seconds=sum(turn.seconds for turn in turns),
        throughput_per_s=intervals.interval(rounds, figures.throughput_per_s),
        latency=figures.latency(rounds),
        cpu_s_per_inference=intervals.interval(rounds, figures.cpu_s_per_inference),
        driver_cpu_s_per_inference=1e-5,
        energy=energy_of(rounds, machine),
        memory=Memory(120_000_000, 0.2, 0.004),
        bare=bare_of(rounds),
    )


def energy_of(rounds: Sequence[Round], machine: Machine) -> Energy:
    if machine.source == "none":
        return Energy("none", "")
    joules = intervals.signed_interval(rounds, figures.joules_per_inference)
    return Energy(machine.source, machine.meter, joules, intervals.reciprocal(joules))


def bare_of(rounds: Sequence[Round]) -> Bare:
    def ratio(of: Callable[..., float]) -> Callable[[Sequence[Round]], float]:
        return lambda some: figures.ratio(some, of)

    def alone(of: Callable[..., float]) -> Callable[[Sequence[Round]], float]:
        return lambda some: of(some, figures.bare)

    return Bare(
        "onnxruntime 1.31.1",
        intervals.interval(rounds, alone(figures.throughput_per_s)),
        intervals.interval(rounds, alone(figures.cpu_s_per_inference)),
        figures.latency(rounds, figures.bare),
        intervals.interval(rounds, ratio(figures.throughput_per_s)),
        intervals.interval(rounds, ratio(figures.cpu_s_per_inference)),
    )


def model_used(name: str) -> ModelUsed:
    return ModelUsed(
        id=name,
        kind="classifier",
        precision="float32",
        format="onnx",
        sha256=f"{sum(name.encode()):064x}",
        licence="Apache-2.0",
        source="magika==1.0.3",
        inputs=(Shape("bytes", "INT32", (2048,)),),
        inputs_are="seeded",
        inputs_from="uniform, seed 7",
    )


PROVENANCE = Provenance(
    cpu_model="Intel Xeon Platinum 8481C",
    cores=2,
    memory_bytes=16 << 30,
    architecture="x86_64",
    hypervisor=True,
    kernel="6.1.0",
    governor="",
    clock_source="tsc",
    python="3.11.7",
    versions={"onnxruntime": "1.31.1", "parkwatt": "0.1.0"},
    git_commit="0123456789abcdef0123456789abcdef01234567",
    git_dirty=False,
    load_before=0.1,
    others_before=0.01,
    meter=RAPL,
    why_no_meter="",
    began_at="2026-11-22T01:00:00Z",
    command=("run", "--quick"),
)


def results(*rows: Row, quick: bool = False, partial: bool = False, **provenance: Any) -> Results:
    known = replace(PROVENANCE, **provenance)
    return Results(SCHEMA, known, quick, partial, "2026-11-22T01:10:00Z", tuple(rows))
