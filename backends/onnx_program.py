"""An ONNX model in an onnxruntime session: run, cancel, and what both cost."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from backends.datatypes import NUMPY_NAMES
from backends.kernel import (
    INFERENCE_FAILED,
    MODEL_UNSUPPORTED,
    OUT_OF_MEMORY,
    Cancelled,
    Cost,
    KernelError,
    Spent,
    Tensor,
)
from backends.onnx_signature import datatype_of
from backends.slots import shape
from firmware_shims.clock import boottime_ns

if TYPE_CHECKING:
    from collections.abc import Mapping

    from backends.kernel import Array

MEASURE_S: Final = 0.01
"""What measuring one batch size may take, give or take a run."""
MEASURED_RUNS: Final = 5
LARGEST_MEASURED_BATCH: Final = 64
SLOW_ROW_S: Final = 0.5
"""From here on rows run one by one: a batch would gain little, and its warm-up would delay the first row."""
FATAL: Final = 4  # onnxruntime's log level: what fails comes back as an exception


class OnnxProgram:
    """A loaded session. `max_batch` is None once a run of two rows has been seen to work, else 1.

    An output whose first dimension is not the number of rows belongs, with its whole shape, to the one
    row of its run. Values are passed on as they are, NaN too.
    """

    def __init__(
        self, runtime: Any, session: Any, inputs: tuple[Tensor, ...], wanted: tuple[str, ...]
    ) -> None:
        self._runtime = runtime
        self._session = session
        self._failures = failures_of(runtime)
        self._wanted = list(wanted)
        self._under_way: Any = None
        self._given_up: Any = None
        self.inputs = inputs
        self.outputs: tuple[Tensor, ...] = ()
        self.max_batch: int | None = 1
        self.cost = Cost()

    def warm_up(self, rows_are_free: bool) -> None:
        """Learn from runs of zeros what the outputs are, whether rows can be batched, and what it all costs.

        The session comes with profiling on and leaves with it off (it costs some 10 %). Its longest node
        bounds a cancel, because onnxruntime looks at `terminate` between nodes.
        """
        cold_s, arrays = self._timed(rows=1)
        if cold_s < SLOW_ROW_S:
            self._timed(rows=1)
        cancel_bound_s = longest_node_s(Path(self._session.end_profiling()))
        self._describe_outputs(arrays)
        run_s = {1: self._measured_s(1, cold_s)}
        if rows_are_free and all(array.shape[:1] == (1,) for array in arrays):
            self._try_batches(run_s)
        self.cost = Cost(run_s=run_s, cancel_bound_s=cancel_bound_s)

    def run(self, inputs: "Mapping[str, Array]", outputs: "Mapping[str, Array]") -> Spent:  # noqa: D102
        begin_ns = boottime_ns()
        arrays = self._execute(inputs)
        for name, array in zip(self._wanted, arrays, strict=True):
            given = outputs[name]
            if array.shape not in {given.shape, given.shape[1:]}:
                raise KernelError(
                    INFERENCE_FAILED,
                    f"output {name!r} came with shape {list(array.shape)}, expected {list(given.shape)}",
                )
            given.reshape(array.shape)[...] = array
        return Spent(begin_ns, boottime_ns())

    def cancel(self) -> None:  # noqa: D102
        options = self._under_way
        if options is not None:
            self._given_up = options
            options.terminate = True

    def close(self) -> None:  # noqa: D102
        self._session = None

    def _execute(self, inputs: "Mapping[str, Array]") -> "list[Array]":
        options = self._runtime.RunOptions()  # new each time: `terminate` is sticky
        options.log_severity_level = FATAL
        self._under_way = options
        try:
            return self._session.run(self._wanted, dict(inputs), options)  # type: ignore[no-any-return] # untyped
        except self._failures as error:
            if self._given_up is options:  # the exception itself does not tell
                raise Cancelled from error
            raise KernelError(_code_of(error), f"onnxruntime: {error}") from error
        finally:
            self._under_way = None

    def _timed(self, rows: int) -> "tuple[float, list[Array]]":
        import numpy as np  # noqa: PLC0415 - only in the worker

        zeros = {
            tensor.name: np.zeros(shape(tensor, rows), NUMPY_NAMES[tensor.datatype]) for tensor in self.inputs
        }
        begin_ns = boottime_ns()
        arrays = self._execute(zeros)
        return (boottime_ns() - begin_ns) / 1e9, arrays

    def _measured_s(self, rows: int, first_s: float) -> float:
        """The median of a few runs; the first one when it has already taken long."""
        seconds: list[float] = []
        while first_s < SLOW_ROW_S and len(seconds) < MEASURED_RUNS and sum(seconds) < MEASURE_S:
            seconds.append(self._timed(rows)[0])
        return sorted(seconds or [first_s])[len(seconds) // 2]

    def _describe_outputs(self, arrays: "list[Array]") -> None:
        datatypes = {argument.name: argument for argument in self._session.get_outputs()}
        self.outputs = tuple(
            Tensor(
                name,
                datatype_of(datatypes[name]),
                array.shape[1:] if array.shape[:1] == (1,) else array.shape,
            )
            for name, array in zip(self._wanted, arrays, strict=True)
        )
        for tensor in self.outputs:
            if 0 in tensor.row_shape:
                raise KernelError(
                    MODEL_UNSUPPORTED,
                    f"output {tensor.name!r} is empty for an input of zeros: its shape depends on the data",
                )

    def _try_batches(self, run_s: dict[int, float]) -> None:
        """Lift `max_batch` if two rows run and each output has two; time larger batches while that is cheap."""
        if run_s[1] >= SLOW_ROW_S:
            return
        try:
            first_s, arrays = self._timed(rows=2)
        except KernelError:
            return
        if any(array.shape != (2, *t.row_shape) for t, array in zip(self.outputs, arrays, strict=True)):
            return
        self.max_batch = None
        run_s[2] = self._measured_s(2, first_s)
        rows = 4
        while rows <= LARGEST_MEASURED_BATCH and 2 * run_s[rows // 2] < MEASURE_S:
            run_s[rows] = self._measured_s(rows, self._timed(rows)[0])
            rows *= 2


class _ProfiledEvent(msgspec.Struct):
    """One event of onnxruntime's profile (Chrome's trace format): category and microseconds."""

    cat: str = ""
    dur: float = 0.0


def longest_node_s(profile: Path) -> float | None:
    """Seconds of the longest graph node in a profile; None where it names none or cannot be read."""
    try:
        events = msgspec.json.decode(profile.read_bytes(), type=list[_ProfiledEvent])
    except (msgspec.DecodeError, UnicodeDecodeError):  # node names are copied from the model's file
        return None
    return max((event.dur / 1e6 for event in events if event.cat == "Node"), default=None)


def failures_of(runtime: Any) -> tuple[type[Exception], ...]:
    """Every exception class of onnxruntime; they have no base of their own."""
    state = runtime.capi.onnxruntime_pybind11_state
    return tuple(
        kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception)
    )


def _code_of(error: Exception) -> int:
    """The allocator's failures have no class of their own either."""
    memory = any(
        words in str(error) for words in ("Failed to allocate memory", "bad_alloc", "bad allocation")
    )
    return OUT_OF_MEMORY if memory else INFERENCE_FAILED
