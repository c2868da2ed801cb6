"""ONNX models on the processor, by onnxruntime."""

import os
import tempfile
from collections.abc import Sequence
from typing import Any, ClassVar, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from backends import onnx_arena
from backends.declared import Declared, fit_inputs, rows_are_free, wanted_outputs
from backends.kernel import (
    BACKEND_UNUSABLE,
    INFERENCE_FAILED,
    MODEL_INVALID,
    MODEL_NOT_FOUND,
    MODEL_UNSUPPORTED,
    Device,
    KernelError,
    Model,
)
from backends.onnx_program import FATAL, OnnxProgram, failures_of
from backends.onnx_signature import declared_by, free_dimensions
from backends.resident import resident_bytes
from backends.telemetry import NO_TELEMETRY

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
    arena_bytes: int = Field(
        default=1 << 30,
        ge=onnx_arena.MIB,
        description="what a program keeps at most for intermediate results; a run that needs more is code 1023",
    )
    optimisation: Literal["disabled", "basic", "extended", "all"] = Field(
        default="all", description="graph optimisations; quantised models give other numbers below extended"
    )


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
        return [Device(DEVICE, ("onnx",))]

    def load(self, model: Model, device: str) -> OnnxProgram:  # noqa: D102
        if device != DEVICE:
            raise KernelError(BACKEND_UNUSABLE, f"cpu has no device {device!r}, only {DEVICE!r}")
        if model.format != "onnx":
            raise KernelError(MODEL_UNSUPPORTED, f"cpu runs models of format onnx, not {model.format}")
        runtime = self._import()
        before_bytes = resident_bytes()
        try:
            data = model.path.read_bytes()
        except OSError as error:
            raise KernelError(MODEL_NOT_FOUND, f"the model's file cannot be read: {error}") from error
        with tempfile.TemporaryDirectory(prefix="parkwatt-cpu-") as scratch:
            return self._program(runtime, data, model, scratch, before_bytes)

    def _import(self) -> Any:
        os.environ.update(NO_TELEMETRY)  # whoever uses this class outside of a worker is spared, too
        import onnxruntime  # noqa: PLC0415 - the supervisor imports this module and must stay small

        self.version = onnxruntime.__version__
        return onnxruntime

    def _program(
        self, runtime: Any, data: bytes, model: Model, scratch: str, before_bytes: int
    ) -> OnnxProgram:
        declared, outputs = self._signature(runtime, data)
        inputs = fit_inputs(declared, model)
        wanted = wanted_outputs(outputs, model)
        options = self._session_options(runtime, self._options.optimisation)
        for symbol, size in free_dimensions(declared, inputs).items():
            options.add_free_dimension_override_by_name(symbol, size)
        options.enable_profiling = True
        options.profile_file_prefix = f"{scratch}/profile"
        session = self._session(runtime, data, options)
        program = OnnxProgram(runtime, session, inputs, wanted)
        try:
            program.warm_up(rows_are_free(declared, inputs), before_bytes, len(data))
        except KernelError as error:
            if error.code != INFERENCE_FAILED:
                raise
            raise KernelError(
                MODEL_UNSUPPORTED, f"the model does not run with these shapes: {error.text}"
            ) from error
        return program

    def _signature(self, runtime: Any, data: bytes) -> tuple[tuple[Declared, ...], list[str]]:
        """The inputs and the outputs' names, by a session that is not optimised: a tenth of the time of one that is.

        Free shapes are bound to the task's when a session is made, and nothing else tells what is free.
        """
        session = self._session(runtime, data, self._session_options(runtime, "disabled"))
        return declared_by(session.get_inputs()), [output.name for output in session.get_outputs()]

    def _session(self, runtime: Any, data: bytes, options: Any) -> Any:
        onnx_arena.register(runtime, self._options.arena_bytes)
        try:
            session = runtime.InferenceSession(data, options, providers=[PROVIDER])
        except failures_of(runtime) as error:
            not_here = isinstance(error, runtime.capi.onnxruntime_pybind11_state.NotImplemented)
            raise KernelError(
                MODEL_UNSUPPORTED if not_here else MODEL_INVALID, f"onnxruntime refuses the model: {error}"
            ) from error
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
            # without VNNI, x86 saturates sums of pairs of int8 products: slower there, but right everywhere
            "session.x64quantprecision": "1",
            "session.intra_op.allow_spinning": "1" if self._options.spinning else "0",
            # where external data would be looked for: nothing can lie below this
            "session.model_external_initializers_file_folder_path": os.devnull,
        }.items():
            options.add_session_config_entry(key, value)
        return options
