"""An ONNX model in an onnxruntime session: run, cancel, and what both cost."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from backends import onnx_arena
from backends.kernel import Cost, Spent, Tensor
from backends.measuring import MEASURE_S, FirstRow
from backends.onnx_runs import OnnxRuns
from backends.onnx_signature import datatypes_of
from backends.outputs import described_outputs, fill_output
from backends.resident import give_freed_memory_back, grown_bytes
from firmware_shims.clock import boottime_ns

if TYPE_CHECKING:
    from collections.abc import Mapping

    from backends.kernel import Array


class OnnxProgram:
    """A loaded session. `max_batch` is None once a run of two rows has been seen to work, else 1.

    An output whose first dimension is not the number of rows belongs, with its whole shape, to the one
    row of its run. Values are passed on as they are, NaN too.
    """

    def __init__(
        self, runtime: Any, session: Any, inputs: tuple[Tensor, ...], wanted: tuple[str, ...]
    ) -> None:
        self._runtime = runtime
        self._wanted = list(wanted)
        self._runs = OnnxRuns(runtime, session)
        self.inputs = inputs
        self.outputs: tuple[Tensor, ...] = ()
        self.max_batch: int | None = 1
        self.cost = Cost()

    def warm_up(
        self, rows_are_free: bool, before_bytes: int, file_bytes: int, known: Cost | None = None
    ) -> None:
        """Learn from runs of zeros what the outputs are and, without `known`, what runs cost and how many rows fit.

        A session whose cost is not known comes with profiling on and leaves with it off (it costs some 10 %).
        Its longest node bounds a cancel, because onnxruntime looks at `terminate` between nodes. `before_bytes`
        was resident before the load.
        """
        first = FirstRow(self._timed, known, MEASURE_S)
        session = self._runs.session
        datatypes = datatypes_of(session.get_outputs(), self._wanted)
        self.outputs = described_outputs(self._wanted, datatypes, first.arrays)
        if known is None:
            cancel_bound_s = longest_node_s(Path(session.end_profiling()))
            run_s = first.seconds_by_batch(rows_are_free)
            taken_bytes = grown_bytes(before_bytes, file_bytes)
            known = Cost(run_s, bytes_resident=taken_bytes, cancel_bound_s=cancel_bound_s)
        self.cost, self.max_batch = known, None if known.batches else 1

    def run(self, inputs: "Mapping[str, Array]", outputs: "Mapping[str, Array]") -> Spent:  # noqa: D102
        begin_ns = boottime_ns()
        arrays = self._runs.call(lambda session, options: session.run(self._wanted, dict(inputs), options))
        for name, array in zip(self._wanted, arrays, strict=True):
            fill_output(outputs[name], name, array)
        return Spent(begin_ns, boottime_ns())

    def cancel(self) -> None:  # noqa: D102
        self._runs.cancel()

    def close(self) -> None:  # noqa: D102
        if self._runs.close():
            onnx_arena.let_go(self._runtime)
            give_freed_memory_back()

    def _timed(self, rows: int) -> "tuple[float, list[Array]]":
        return self._runs.of_zeros(self.inputs, self._wanted, rows)


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
