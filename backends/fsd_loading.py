"""From a model's file to a loaded program: quantised where it is in floats, cut, and each part put where it runs."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from onnx import ModelProto

from backends import onnx_arena
from backends.declared import Declared, fit_inputs, wanted_outputs
from backends.fsd_calibration import Calibration
from backends.fsd_failures import as_kernel_errors
from backends.fsd_graph import check_products, check_sizes, described, fixed, in_opset, parsed
from backends.fsd_npu_part import NpuPart
from backends.fsd_partition import Cutting, Part, Place
from backends.fsd_parts import HostPart, RunningPart
from backends.fsd_program import FsdProgram
from backends.fsd_quantising import is_quantised, needs_quantising, quantised
from backends.kernel import MODEL_NOT_FOUND, MODEL_UNSUPPORTED, KernelError, Model, Tensor
from backends.measuring import the_model_is_to_blame
from backends.onnx_int8 import saturates
from backends.onnx_runs import FATAL
from backends.onnx_session import OWN_BYTES_ONLY, opened, runtime_imported
from backends.resident import resident_bytes
from firmware_shims.fsd.interface import NpuDevice
from firmware_shims.fsd.reading import Reading, read_model

PROVIDER: Final = "CPUExecutionProvider"


@dataclass(frozen=True, slots=True)
class Taken:
    """A model's file with the sizes of a task, for one row."""

    model: ModelProto
    inputs: tuple[Tensor, ...]
    wanted: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Cut:
    """A quantised model in parts."""

    model: ModelProto
    inputs: tuple[Tensor, ...]
    wanted: tuple[str, ...]
    cutting: Cutting
    parts: Sequence[Part]
    reasons: Mapping[str, str]
    """Why nodes are not on the NPU, by name."""


def taken(data: bytes, asked: Model) -> Taken:
    """Read a file; raises `KernelError` 132 or 133."""
    model = parsed(data)
    inputs, wanted = fixed(model, asked)
    return Taken(model, inputs, wanted)


def cut(given: Taken, data: Calibration | None, operators: frozenset[str], arena_bytes: int) -> Cut:
    """Quantise a model that needs it, and cut it; raises `KernelError` with the node and what to change."""
    model = described(given.model)
    check_sizes(model, arena_bytes)
    if needs_quantising(model):
        model = quantised(given.model, given.inputs, data, operators)
    if is_quantised(model):
        model = described(in_opset(model))
        check_products(model)
        with as_kernel_errors(MODEL_UNSUPPORTED):
            reading = read_model(model)
    else:
        reading = Reading([], [])
    cutting = Cutting(model, reading.layers, given.wanted)
    reasons = {refusal.node: refusal.why for refusal in reading.refused} | dict(cutting.refused)
    return Cut(model, given.inputs, given.wanted, cutting, cutting.parts(), reasons)


class Loading:
    """Loads models on a device, which `owner` closes at its end. Threads and arena are those of the host's parts."""

    def __init__(self, device: NpuDevice, owner: object, threads: int, arena_bytes: int, pace: bool) -> None:
        self._device = device
        self._owner = owner
        self._threads = threads
        self._arena_bytes = arena_bytes
        self._pace = pace
        self._runtime = runtime_imported()

    def of_model(self, model: Model, calibration: Calibration | None) -> FsdProgram:
        """Load an ONNX model; raises `KernelError`."""
        before_bytes = resident_bytes()
        with contextlib.ExitStack() as undo:
            program, part_bytes = self._in_parts(self._cut(model, calibration), undo)
            with the_model_is_to_blame():
                program.warm_up(before_bytes, part_bytes, model.known)
            undo.pop_all()
        return program

    def of_program(self, model: Model) -> FsdProgram:
        """Load a program in the driver's own format, as it is; raises `KernelError`."""
        before_bytes = resident_bytes()
        data = _bytes_of(model, self._device.capabilities.program_format)
        with as_kernel_errors(), contextlib.ExitStack() as undo:
            part = NpuPart.loaded(self._device, data, self._pace)
            undo.callback(part.close)
            declared = [Declared(each.name, each.datatype, (None, *each.row_shape)) for each in part.inputs]
            inputs = fit_inputs(declared, model)
            if any(tensor.shared for tensor in inputs):
                raise KernelError(MODEL_UNSUPPORTED, "a program's inputs all have rows: none can be shared")
            program = self._program(
                inputs, wanted_outputs([each.name for each in part.outputs], model), [part]
            )
            with the_model_is_to_blame():
                program.warm_up(before_bytes, len(data), model.known)
            undo.pop_all()
        return program

    def _cut(self, model: Model, calibration: Calibration | None) -> Cut:
        given = taken(_bytes_of(model, "onnx"), model)
        return cut(given, calibration, self._device.capabilities.operators, self._arena_bytes)

    def _in_parts(self, found: Cut, undo: contextlib.ExitStack) -> tuple[FsdProgram, int]:
        """Each part where it runs, and the bytes of all. What was read of the file is let go with `found`."""
        parts: list[RunningPart] = []
        part_bytes = 0
        for part in found.parts:
            content = found.cutting.model_of(part).SerializeToString()
            parts.append(self._placed(part.place, content))
            undo.callback(parts[-1].close)
            part_bytes += len(content)
        return self._program(found.inputs, found.wanted, parts), part_bytes

    def _program(
        self, inputs: tuple[Tensor, ...], wanted: Sequence[str], parts: Sequence[RunningPart]
    ) -> FsdProgram:
        source = self._device.capabilities.energy_source
        return FsdProgram(self._runtime, inputs, wanted, parts, energy_source=source, owner=self._owner)

    def _placed(self, place: Place, part: bytes) -> RunningPart:
        if place is Place.NPU:
            with as_kernel_errors():
                return NpuPart.loaded(self._device, part, self._pace)
        onnx_arena.register(self._runtime, self._arena_bytes)
        return HostPart(self._runtime, opened(self._runtime, part, self._session_options(), PROVIDER))

    def _session_options(self) -> Any:
        options = self._runtime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.log_severity_level = FATAL
        for key, value in {
            **onnx_arena.SESSION_ENTRIES,
            **OWN_BYTES_ONLY,
            "session.intra_op.allow_spinning": "0",
            "session.x64quantprecision": "1" if saturates(self._runtime) else "0",
        }.items():
            options.add_session_config_entry(key, value)
        return options


def _bytes_of(model: Model, file_format: str) -> bytes:
    if model.format != file_format:
        text = f"this device runs models of format {file_format}, not {model.format}"
        raise KernelError(MODEL_UNSUPPORTED, text)
    try:
        return model.path.read_bytes()
    except OSError as error:
        raise KernelError(MODEL_NOT_FOUND, f"the model's file cannot be read: {error}") from error
