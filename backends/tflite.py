"""TFLite models on the processor, by tflite-runtime or by its successor ai-edge-litert."""

import importlib
from collections.abc import Sequence
from functools import partial
from importlib import metadata
from typing import Any, ClassVar, Final

from pydantic import BaseModel, ConfigDict, Field

from backends import tflite_file
from backends.declared import fit_inputs, rows_are_free, wanted_outputs
from backends.kernel import (
    BACKEND_UNUSABLE,
    MODEL_UNSUPPORTED,
    Device,
    KernelError,
    Model,
)
from backends.measuring import the_model_is_to_blame
from backends.resident import resident_bytes
from backends.tflite_program import TfliteProgram, declared_by, details, opened

DEVICE: Final = "cpu"
RUNTIMES: Final = {"tflite-runtime": "tflite_runtime", "ai-edge-litert": "ai_edge_litert"}
"""Distributions and their packages; the first one that works is taken."""


class TfliteOptions(BaseModel):
    """`[backends.options]` of the tflite backend."""

    model_config = ConfigDict(extra="forbid")

    threads: int = Field(
        default=1,
        ge=1,
        le=256,
        description="threads of one run; from 2 on, a busy neighbour on the same cores makes runs 20 times longer",
    )


class Tflite:
    """One device, `cpu`. Tensors travel as the file declares them: a quantised model takes and gives integers.

    Whoever sends a task quantises with the file's scale and zero point. A run cannot be cancelled. Custom
    operators and those of TensorFlow itself are refused, except the few that the runtime brings along.
    tflite-runtime does not verify a file: what is malformed inside may end the worker.
    """

    name: ClassVar[str] = "tflite"
    Options: ClassVar[type[BaseModel]] = TfliteOptions

    def __init__(self, options: TfliteOptions) -> None:
        self._options = options
        self.version = ""

    def probe(self) -> Sequence[Device]:  # noqa: D102
        try:
            self._interpreter()
        except KernelError as error:
            return [Device(DEVICE, ("tflite",), why=error.text)]
        return [Device(DEVICE, ("tflite",))]

    def load(self, model: Model, device: str) -> TfliteProgram:  # noqa: D102
        if device != DEVICE:
            raise KernelError(BACKEND_UNUSABLE, f"tflite has no device {device!r}, only {DEVICE!r}")
        if model.format != "tflite":
            raise KernelError(MODEL_UNSUPPORTED, f"tflite runs models of format tflite, not {model.format}")
        kind = self._interpreter()
        before_bytes = resident_bytes()
        data = tflite_file.read(model.path)
        keeps_state = tflite_file.keeps_state(data)
        new = partial(kind, model_content=data, num_threads=self._options.threads)
        interpreter = opened(new)
        known_inputs, known_outputs = details(interpreter)
        declared = [declared_by(*item) for item in known_inputs.items()]
        inputs = fit_inputs(declared, model)
        wanted = wanted_outputs(list(known_outputs), model)
        program = TfliteProgram(new, interpreter, keeps_state, inputs, wanted)
        with the_model_is_to_blame():
            program.warm_up(rows_are_free(declared, inputs), before_bytes, len(data), model.known)
        return program

    def _interpreter(self) -> Any:
        """The `Interpreter` class of the first runtime that works here, or `KernelError` with all reasons."""
        reasons: list[str] = []
        for distribution, package in RUNTIMES.items():
            try:
                version = metadata.version(distribution)
            except metadata.PackageNotFoundError:
                continue
            try:
                self._refuse_numpy_of_another_age(package)
                module = importlib.import_module(f"{package}.interpreter")
            except ImportError as error:
                reasons.append(f"{distribution} {version}: {error}")
                continue
            self.version = f"{distribution} {version}"
            return module.Interpreter
        why = "; ".join(reasons) or "neither tflite-runtime nor ai-edge-litert is installed"
        raise KernelError(BACKEND_UNUSABLE, f"{why}; pip install 'parkwatt[tflite]'")

    def _refuse_numpy_of_another_age(self, package: str) -> None:
        """tflite-runtime imports beside numpy 2, and then fails or crashes in the constructor."""
        import numpy as np  # noqa: PLC0415 - only in the worker

        if package == "tflite_runtime" and int(np.__version__.partition(".")[0]) >= 2:
            raise ImportError(f"needs numpy<2, numpy {np.__version__} is installed")
