"""ONNX models on the processor, by onnxruntime."""

import os
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, model_validator

from backends import onnx_arena
from backends.kernel import BACKEND_UNUSABLE, Device, KernelError, Model
from backends.measuring import the_model_is_to_blame
from backends.onnx_hint import hinted_sizes
from backends.onnx_int8 import saturates
from backends.onnx_program import OnnxProgram
from backends.onnx_runs import FATAL
from backends.onnx_session import (
    OWN_BYTES_ONLY,
    fitted,
    model_bytes,
    opened,
    runtime_imported,
)
from backends.resident import resident_bytes

DEVICE: Final = "cpu"
PROVIDER: Final = "CPUExecutionProvider"


class CpuOptions(BaseModel):
    """`[backends.options]` of the cpu backend."""

    model_config = ConfigDict(extra="forbid")

    threads: int = Field(default=1, ge=1, le=256, description="threads of one run")
    spinning: bool = Field(
        default=False,
        description="idle threads spin: up to 10 % faster back to back, 9 times the energy at rest",
    )
    cores: tuple[NonNegativeInt, ...] = Field(
        default=(),
        description="processors that runs stay on, numbered as in /proc/cpuinfo; empty for all of the agent's",
    )
    arena_bytes: int = Field(
        default=1 << 30,
        ge=onnx_arena.MIB,
        description="what a program keeps at most for intermediate results; a run that needs more is code 1023",
    )
    optimisation: Literal["disabled", "basic", "extended", "all"] = Field(
        default="all", description="graph optimisations; quantised models give other numbers below extended"
    )

    @model_validator(mode="after")
    def _a_core_for_each_thread(self) -> Self:
        if self.cores and self.threads > len({*self.cores}):
            raise ValueError(
                f"threads = {self.threads} would wait for one another on {len({*self.cores})} of `cores`: "
                "name a core for each thread, or none"
            )
        return self


class Cpu:
    """One device, `cpu`. External data is refused: a model is the bytes whose hash was checked, no more."""

    name: ClassVar[str] = "cpu"
    Options: ClassVar[type[BaseModel]] = CpuOptions

    def __init__(self, options: CpuOptions) -> None:
        self._options = options
        self.version = ""

    def probe(self) -> Sequence[Device]:  # noqa: D102
        try:
            self._import()
        except ImportError as error:
            return [Device(DEVICE, ("onnx",), why=f"{error}; pip install 'parkwatt[cpu]'")]
        return [Device(DEVICE, ("onnx",), why=self._cores_trouble())]

    def load(self, model: Model, device: str) -> OnnxProgram:  # noqa: D102
        if device != DEVICE:
            raise KernelError(BACKEND_UNUSABLE, f"cpu has no device {device!r}, only {DEVICE!r}")
        if why := self._cores_trouble():
            raise KernelError(BACKEND_UNUSABLE, why)
        runtime = self._import()
        if self._options.cores:  # of this thread, and of those that onnxruntime starts
            os.sched_setaffinity(0, self._options.cores)
        before_bytes = resident_bytes()  # the session keeps the file's bytes
        data = model_bytes(model, self.name)
        with tempfile.TemporaryDirectory(prefix="parkwatt-cpu-") as scratch:
            return self._program(runtime, data, model, scratch, before_bytes)

    def _cores_trouble(self) -> str:
        """Why the cores of the options cannot be had; empty if they can."""
        here = os.sched_getaffinity(0)
        if lacking := sorted({*self._options.cores} - here):
            return f"cores = {lacking} are not among those that the agent may use, {sorted(here)}"
        return ""

    def _import(self) -> Any:
        runtime = runtime_imported()
        self.version = runtime.__version__
        return runtime

    def _program(
        self, runtime: Any, data: bytes, model: Model, scratch: str, before_bytes: int
    ) -> OnnxProgram:
        sizes = hinted_sizes(data, model)
        session = self._bound(runtime, data, model, scratch, sizes)
        fit = fitted(session, model)
        if fit.sizes:  # that the hint has missed: what the session says counts
            del session
            session = self._bound(runtime, data, model, scratch, {**sizes, **fit.sizes})
        program = OnnxProgram(runtime, session, fit.inputs, fit.wanted)
        with the_model_is_to_blame():
            program.warm_up(fit.rows_are_free, before_bytes, len(data), model.known)
        return program

    def _bound(self, runtime: Any, data: bytes, model: Model, scratch: str, sizes: Mapping[str, int]) -> Any:
        """The session that will run, its named dimensions bound to these sizes."""
        options = self._session_options(runtime, self._options.optimisation)
        for name, size in sizes.items():
            options.add_free_dimension_override_by_name(name, size)
        if saturates(runtime):
            options.add_session_config_entry("session.x64quantprecision", "1")
        options.enable_profiling = model.known is None
        options.profile_file_prefix = f"{scratch}/profile"
        return self._session(runtime, data, options)

    def _session(self, runtime: Any, data: bytes, options: Any) -> Any:
        onnx_arena.register(runtime, self._options.arena_bytes)
        session = opened(runtime, data, options, PROVIDER)
        if session.get_providers()[0] != PROVIDER:
            raise KernelError(
                BACKEND_UNUSABLE, f"the session runs on {session.get_providers()[0]}, not on {PROVIDER}"
            )
        return session

    def _session_options(self, runtime: Any, optimisation: str) -> Any:
        levels = runtime.GraphOptimizationLevel
        options = runtime.SessionOptions()
        options.intra_op_num_threads = self._options.threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = {
            "disabled": levels.ORT_DISABLE_ALL,
            "basic": levels.ORT_ENABLE_BASIC,
            "extended": levels.ORT_ENABLE_EXTENDED,
            "all": levels.ORT_ENABLE_ALL,
        }[optimisation]
        options.log_severity_level = FATAL
        for key, value in {
            **onnx_arena.SESSION_ENTRIES,
            **OWN_BYTES_ONLY,
            "session.intra_op.allow_spinning": "1" if self._options.spinning else "0",
        }.items():
            options.add_session_config_entry(key, value)
        return options
