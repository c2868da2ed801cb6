"""A TFLite model in an interpreter: run, and what a run costs."""

import contextlib
from typing import TYPE_CHECKING, Any

from backends.datatypes import NUMPY_NAMES
from backends.declared import Declared, Dimension
from backends.kernel import (
    INFERENCE_FAILED,
    MODEL_INVALID,
    MODEL_UNSUPPORTED,
    OUT_OF_MEMORY,
    Cost,
    KernelError,
    Spent,
    Tensor,
)
from backends.measuring import SLOW_ROW_S, FirstRow, zeros
from backends.outputs import described_outputs, fill_output
from backends.resident import give_freed_memory_back, grown_bytes
from firmware_shims.clock import boottime_ns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from backends.kernel import Array

OIP_NAMES = {numpy_name: datatype for datatype, numpy_name in NUMPY_NAMES.items()}


class TfliteProgram:
    """A loaded model; `max_batch` is None where the file leaves the first dimension free and two rows run.

    Inputs that the file leaves free otherwise are bound to the task's shapes. A model with variables gets a
    fresh interpreter for each run: a row never sees what another one left.
    """

    def __init__(
        self,
        new: "Callable[[], Any]",
        interpreter: Any,
        keeps_state: bool,
        inputs: "Sequence[Tensor]",
        outputs: "Sequence[str]",
    ) -> None:
        self._new: Callable[[], Any] | None = new
        self._keeps_state = keeps_state
        self._interpreter = interpreter
        self._rows = 0
        known_inputs, known_outputs = details(self._interpreter)
        self._input_details = [known_inputs[tensor.name] for tensor in inputs]
        self._output_details = [known_outputs[name] for name in outputs]
        self._output_names = tuple(outputs)
        self.inputs = tuple(inputs)
        self.outputs: tuple[Tensor, ...] = ()
        self.max_batch: int | None = 1
        self.cost = Cost()

    def warm_up(
        self, rows_are_free: bool, before_bytes: int, file_bytes: int, known: Cost | None = None
    ) -> None:
        """Learn from runs of zeros what the outputs are and, without `known`, what runs cost and how many rows fit."""
        # the first row packs the weights: it takes 5 times as long
        first = FirstRow(self._timed, known, SLOW_ROW_S)
        declared = [declared_by(n, d) for n, d in zip(self._output_names, self._output_details, strict=True)]
        datatypes = [output.datatype for output in declared]
        self.outputs = described_outputs(self._output_names, datatypes, first.arrays)
        if known is None:
            run_s = first.seconds_by_batch(rows_are_free)
            known = Cost(run_s, bytes_resident=grown_bytes(before_bytes, file_bytes))
        self.cost, self.max_batch = known, None if known.batches else 1

    def run(self, inputs: "Mapping[str, Array]", outputs: "Mapping[str, Array]") -> Spent:  # noqa: D102
        begin_ns = boottime_ns()
        self._invoke(inputs)
        for name, known in zip(self._output_names, self._output_details, strict=True):
            fill_output(outputs[name], name, self._view(known))
        return Spent(begin_ns, boottime_ns())

    def cancel(self) -> None:
        """Do nothing: neither runtime can be interrupted from Python, so preemption is by signal."""

    def close(self) -> None:  # noqa: D102
        if self._interpreter is not None:
            self._interpreter = self._new = None
            give_freed_memory_back()

    def _timed(self, rows: int) -> "tuple[float, list[Array]]":
        feed = zeros(self.inputs, rows)
        begin_ns = boottime_ns()
        self._invoke(feed)
        took_s = (boottime_ns() - begin_ns) / 1e9
        return took_s, [self._view(known).copy() for known in self._output_details]

    def _invoke(self, inputs: "Mapping[str, Array]") -> None:
        with _failures(INFERENCE_FAILED):
            self._fit({name: array.shape for name, array in inputs.items()})
            for tensor, known in zip(self.inputs, self._input_details, strict=True):
                self._view(known)[...] = inputs[tensor.name]
            self._interpreter.invoke()

    def _fit(self, shapes: "Mapping[str, tuple[int, ...]]") -> None:
        """Bind the interpreter to these shapes, with its variables as the file has them."""
        rows = next(shapes[tensor.name][0] for tensor in self.inputs if not tensor.shared)
        if rows == self._rows and not self._keeps_state:
            self._interpreter.reset_all_variables()
            return
        if self._new is not None and self._rows and self._keeps_state:
            self._interpreter = self._new()
        self._rows = 0
        for tensor, known in zip(self.inputs, self._input_details, strict=True):
            # strict: tflite-runtime crashes over some models when a dimension that the file fixes is changed
            self._interpreter.resize_tensor_input(known["index"], shapes[tensor.name], strict=True)
        self._interpreter.allocate_tensors()
        self._rows = rows

    def _view(self, known: "Mapping[str, Any]") -> "Array":
        """The interpreter's own memory of a tensor. It refuses to run while anybody holds such a view."""
        return self._interpreter.tensor(known["index"])()  # type: ignore[no-any-return] # untyped


def details(interpreter: Any) -> "tuple[dict[str, Mapping[str, Any]], dict[str, Mapping[str, Any]]]":
    """The details of the inputs and of the outputs by name.

    Names are those of the model's signature where the file has exactly one, else those of its tensors.
    """
    signatures = list(interpreter.get_signature_list())
    if len(signatures) == 1:
        runner = interpreter.get_signature_runner(signatures[0])
        return runner.get_input_details(), runner.get_output_details()
    return (
        {known["name"]: known for known in interpreter.get_input_details()},
        {known["name"]: known for known in interpreter.get_output_details()},
    )


def declared_by(name: str, known: "Mapping[str, Any]") -> Declared:
    """A tensor as the file declares it. Quantised ones are what they are in the file: integers."""
    dtype = getattr(known["dtype"], "__name__", str(known["dtype"])).rstrip("_")
    if dtype not in OIP_NAMES:
        raise KernelError(
            MODEL_UNSUPPORTED, f"tensor {name!r} is {dtype}: only numbers and booleans run here"
        )
    signature = known["shape_signature"]
    sizes = signature if len(signature) == len(known["shape"]) else known["shape"]
    dimensions: list[Dimension] = [int(size) if size >= 0 else None for size in sizes]
    return Declared(name, OIP_NAMES[dtype], tuple(dimensions))


def opened(new: "Callable[[], Any]") -> Any:
    """An interpreter that has no memory yet, or `KernelError` 133 for a file that it cannot take."""
    with _failures(MODEL_INVALID):
        return new()


@contextlib.contextmanager
def _failures(code: int) -> "Iterator[None]":
    """Turn the runtimes' exceptions into `KernelError`; they have no classes of their own, only texts."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        text = str(error).strip()
        if any(
            words in text for words in ("custom op", "Select TensorFlow op", "Didn't find op", "unsupported")
        ):
            code = MODEL_UNSUPPORTED
        raise KernelError(code, f"the runtime refuses: {text}") from error
    except MemoryError as error:
        raise KernelError(OUT_OF_MEMORY, f"out of memory: {error}") from error
