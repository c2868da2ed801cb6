"""From an ONNX file to an onnxruntime session that fits a task: what is the same on every provider."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from backends.declared import fit_inputs, rows_are_free, wanted_outputs
from backends.kernel import (
    MODEL_INVALID,
    MODEL_NOT_FOUND,
    MODEL_UNSUPPORTED,
    KernelError,
    Model,
    Tensor,
)
from backends.onnx_runs import failures_of
from backends.onnx_signature import declared_by, free_dimensions
from firmware_shims.telemetry import NO_TELEMETRY

OWN_BYTES_ONLY: Final = {
    # where external data would be looked for: nothing can lie below this
    "session.model_external_initializers_file_folder_path": os.devnull,
}
"""Session entries with which a model is the bytes whose hash was checked, and no other file."""

ONLY_ON_CPU: Final = "assigned to the default CPU EP"
"""How a session with session.disable_cpu_ep_fallback says that its provider has not got all the nodes."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """What a task asks of a model, once it is known to fit."""

    inputs: tuple[Tensor, ...]
    wanted: tuple[str, ...]
    rows_are_free: bool
    sizes: Mapping[str, int]
    """Of the named free dimensions, the rows' own left out."""

    def bind(self, options: Any) -> None:
        """Have a session that is made with these options take the task's sizes."""
        for symbol, size in self.sizes.items():
            options.add_free_dimension_override_by_name(symbol, size)


def runtime_imported() -> Any:
    """The onnxruntime module; raises ImportError."""
    os.environ.update(NO_TELEMETRY)  # whoever uses a backend outside of a worker is spared, too
    import onnxruntime  # noqa: PLC0415 - the supervisor imports the backends and must stay small

    return onnxruntime


def model_bytes(model: Model, backend: str) -> bytes:
    """The file's content; raises `KernelError` 132 for another format than onnx, 130 where it cannot be read."""
    if model.format != "onnx":
        raise KernelError(MODEL_UNSUPPORTED, f"{backend} runs models of format onnx, not {model.format}")
    try:
        return model.path.read_bytes()
    except OSError as error:
        raise KernelError(MODEL_NOT_FOUND, f"the model's file cannot be read: {error}") from error


def opened(
    runtime: Any, data: bytes, options: Any, provider: str, settings: Mapping[str, str] | None = None
) -> Any:
    """A session of one provider; raises `KernelError` 132 or 133 where onnxruntime refuses the model.

    It may have come without the provider: see `get_providers`. onnxruntime's own second try on other
    providers is off.
    """
    try:
        return runtime.InferenceSession(
            data, options, providers=[(provider, dict(settings or {}))], enable_fallback=0
        )
    except failures_of(runtime) as error:
        no_such_node = isinstance(error, runtime.capi.onnxruntime_pybind11_state.NotImplemented)
        not_here = no_such_node or ONLY_ON_CPU in str(error)
        raise KernelError(
            MODEL_UNSUPPORTED if not_here else MODEL_INVALID, f"onnxruntime refuses the model: {error}"
        ) from error


def fitted(signature: Any, model: Model) -> Fitted:
    """What `model` asks of the file that the session `signature` has opened; raises `KernelError` 132."""
    declared = declared_by(signature.get_inputs())
    inputs = fit_inputs(declared, model)
    return Fitted(
        inputs,
        wanted_outputs([output.name for output in signature.get_outputs()], model),
        rows_are_free(declared, inputs),
        free_dimensions(declared, inputs),
    )
