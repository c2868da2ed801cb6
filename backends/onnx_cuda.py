"""An ONNX model in an onnxruntime session on a GPU: run, cancel, and what both cost."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from backends.kernel import Cost, Spent, Tensor
from backends.measuring import MEASURED_RUNS, SLOW_ROW_S, FirstRow
from backends.onnx_runs import OnnxRuns
from backends.onnx_signature import datatypes_of
from backends.outputs import described_outputs
from backends.resident import give_freed_memory_back
from firmware_shims.clock import boottime_ns

if TYPE_CHECKING:
    from collections.abc import Mapping

    from backends.kernel import Array


class CudaProgram:
    """A loaded session. `max_batch` is None once a run of two rows has been seen to work, else 1.

    The GPU's copies go from and into the given arrays: nothing lies in between. They are not pinned, because
    onnxruntime's Python API pins no memory that it did not allocate, and a copy into such would cost what
    pinning gains.
    """

    def __init__(
        self, runtime: Any, session: Any, inputs: tuple[Tensor, ...], wanted: tuple[str, ...]
    ) -> None:
        self._wanted = wanted
        self._runs = OnnxRuns(runtime, session)
        self._without_rows: frozenset[str] = frozenset()
        self.inputs = inputs
        self.outputs: tuple[Tensor, ...] = ()
        self.max_batch: int | None = 1
        self.cost = Cost()

    def warm_up(self, rows_are_free: bool, known: Cost | None = None) -> None:
        """Learn from runs of zeros what the outputs are and, without `known`, what runs cost and how many rows fit.

        The bound of a cancel is the longest of some whole runs of one row: the host queues kernels ahead of
        the GPU, onnxruntime looks at `terminate` while it queues them, and then waits for what is queued.
        """
        first = FirstRow(self._timed, known, SLOW_ROW_S)
        datatypes = datatypes_of(self._runs.session.get_outputs(), self._wanted)
        self.outputs = described_outputs(self._wanted, datatypes, first.arrays)
        self._without_rows = frozenset(
            name for name, array in zip(self._wanted, first.arrays, strict=True) if array.shape[:1] != (1,)
        )
        if known is None:
            run_s = first.seconds_by_batch(rows_are_free)
            repeats = MEASURED_RUNS if run_s[1] < SLOW_ROW_S else 1
            bound_s = max(first.seconds, *(self._timed(rows=1)[0] for _ in range(repeats)))
            known = Cost(run_s, cancel_bound_s=bound_s)
        self.cost, self.max_batch = known, None if known.batches else 1

    def holds(self, bytes_resident: int) -> None:
        """Take into the costs what the load took of host and GPU together."""
        self.cost = replace(self.cost, bytes_resident=bytes_resident)

    def run(self, inputs: "Mapping[str, Array]", outputs: "Mapping[str, Array]") -> Spent:  # noqa: D102
        begin_ns = boottime_ns()
        self._runs.call(lambda session, options: self._run_bound(session, options, inputs, outputs))
        return Spent(begin_ns, boottime_ns())

    def cancel(self) -> None:  # noqa: D102
        self._runs.cancel()

    def close(self) -> None:  # noqa: D102
        if self._runs.close():
            give_freed_memory_back()

    def _run_bound(
        self, session: Any, options: Any, inputs: "Mapping[str, Array]", outputs: "Mapping[str, Array]"
    ) -> None:
        binding = session.io_binding()
        for name, array in inputs.items():
            binding.bind_cpu_input(name, array)  # copies to the GPU already
        for name in self._wanted:
            given = outputs[name]
            shape = given.shape[1:] if name in self._without_rows else given.shape
            binding.bind_output(name, "cpu", 0, given.dtype.type, shape, given.ctypes.data)
        try:
            session.run_with_iobinding(binding, options)
        finally:
            binding.synchronize_outputs()  # after a cancel, too, nothing may write any more

    def _timed(self, rows: int) -> "tuple[float, list[Array]]":
        return self._runs.of_zeros(self.inputs, self._wanted, rows)
