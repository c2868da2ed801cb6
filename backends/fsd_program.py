"""A loaded model: its parts in turn, what they cost, and how long a cancel takes."""

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from backends import onnx_arena
from backends.datatypes import NUMPY_NAMES
from backends.kernel import INFERENCE_FAILED, MODEL_UNSUPPORTED, Cancelled, Cost, KernelError, Spent, Tensor
from backends.measuring import MEASURE_S, FirstRow, zeros
from backends.outputs import described_outputs
from backends.resident import give_freed_memory_back, grown_bytes
from firmware_shims.clock import boottime_ns
from firmware_shims.fsd.interface import Completion

if TYPE_CHECKING:
    from collections.abc import Mapping

    from backends.fsd_parts import RunningPart, Tensors
    from backends.kernel import Array

EnergySource = Literal["counter", "model", "none"]
"""As `Capabilities.energy_source` has it."""
OIP_NAMES: Final = {np.dtype(name): datatype for datatype, name in NUMPY_NAMES.items()}
CANCEL_TRIALS: Final = 6
SHORT_S: Final = 0.005
"""A run of this length ends by itself about as soon as a cancel could end it."""
NJ: Final = 1e-9


class FsdProgram:
    """Parts that run one after another; each run's rows are shared among the NPUs, and may be any number.

    Joules are those of the NPUs alone: what the host's parts take is in no counter of theirs.
    """

    max_batch: int | None = None

    def __init__(
        self,
        runtime: Any,
        inputs: tuple[Tensor, ...],
        wanted: Sequence[str],
        parts: "Sequence[RunningPart]",
        *,
        energy_source: EnergySource,
        owner: object,
    ) -> None:
        """Keep `owner`, whose end closes the device, until `close`."""
        self.inputs = inputs
        self.outputs: tuple[Tensor, ...] = ()
        self.cost = Cost()
        self._runtime = runtime
        self._wanted = list(wanted)
        self._parts = parts
        self._energy_source = energy_source
        self._owner: object = owner
        self._given_up = threading.Event()
        # no run begins in the middle of a cancel: the rest of one that was meant for another would abort it
        self._cancelling = threading.Lock()

    def warm_up(self, before_bytes: int, file_bytes: int, known: Cost | None) -> None:
        """Learn from runs of zeros what the outputs are and, without `known`, what runs cost and a cancel takes.

        `before_bytes` was resident before the load.
        """
        first = FirstRow(self._timed, known, MEASURE_S)
        datatypes = [_datatype(name, array) for name, array in zip(self._wanted, first.arrays, strict=True)]
        self.outputs = described_outputs(self._wanted, datatypes, first.arrays)
        if known is None:
            run_s = first.seconds_by_batch(rows_are_free=True)
            taken_bytes = grown_bytes(before_bytes, file_bytes)
            known = Cost(run_s, bytes_resident=taken_bytes, cancel_bound_s=self._cancel_bound_s(run_s[1]))
        self.cost = known

    def run(self, inputs: "Mapping[str, Array]", outputs: "Mapping[str, Array]") -> Spent:  # noqa: D102
        begin_ns = boottime_ns()
        rows = len(next(inputs[tensor.name] for tensor in self.inputs if not tensor.shared))
        arrays, spent = self._computed(inputs, rows)
        for name, array in zip(self._wanted, arrays, strict=True):
            given = outputs[name]
            if array.size != given.size:
                text = f"output {name!r} came with shape {list(array.shape)}, expected {list(given.shape)}"
                raise KernelError(INFERENCE_FAILED, text)
            given[...] = array.reshape(given.shape)
        end_ns = boottime_ns()
        joules = self._joules(spent)
        if joules is None or self._energy_source == "none":
            return Spent(begin_ns, end_ns)
        return Spent(begin_ns, end_ns, joules, self._energy_source)

    def cancel(self) -> None:  # noqa: D102
        with self._cancelling:
            self._given_up.set()
            for part in self._parts:
                part.abort()

    def close(self) -> None:  # noqa: D102
        parts, self._parts = self._parts, ()
        for part in parts:
            part.close()
        if parts:
            onnx_arena.let_go(self._runtime)
            self._owner = None
            give_freed_memory_back()

    def _computed(
        self, inputs: "Mapping[str, Array]", rows: int
    ) -> "tuple[Sequence[Array], Sequence[Completion]]":
        """The wanted outputs as (rows, *shape), and what the NPUs say they took."""
        with self._cancelling:
            self._given_up = given_up = threading.Event()  # new for each run: an earlier cancel is over
        tensors: Tensors = {}
        for tensor in self.inputs:
            given = inputs[tensor.name]
            whole = (rows, *given.shape) if tensor.shared else (rows, 1, *tensor.row_shape)
            tensors[tensor.name] = (
                np.broadcast_to(given, whole) if tensor.shared else np.ascontiguousarray(given).reshape(whole)
            )
        spent: list[Completion] = []
        for part in self._parts:
            if given_up.is_set():
                raise Cancelled
            spent += part.run(tensors, rows, given_up)
        return [tensors[name] for name in self._wanted], spent

    def _joules(self, spent: Sequence[Completion]) -> float | None:
        """Of all NPUs together; None where one cannot tell, or none has run."""
        known = [each.energy_nj for each in spent if each.energy_nj is not None]
        return sum(known) * NJ if known and len(known) == len(spent) else None

    def _timed(self, rows: int) -> "tuple[float, Sequence[Array]]":
        """Seconds of a run of zeros, and its outputs as a run of so many rows has them."""
        feed = zeros(self.inputs, rows)
        begin_ns = boottime_ns()
        arrays, _ = self._computed(feed, rows)
        seconds = (boottime_ns() - begin_ns) / 1e9
        return seconds, [
            array.reshape(rows, *array.shape[2:]) if array.shape[1:2] == (1,) else array[0]
            for array in arrays
        ]

    def _cancel_bound_s(self, run_s: float) -> float:
        """The longest that a run of one row went on after a cancel, and what may lie between two of these trials.

        A run looks at the cancel between layers: one that comes earlier than a trial's by less than the distance of
        two trials is answered by that much later, at most.
        """
        if run_s <= SHORT_S:
            return run_s
        apart_s = run_s / CANCEL_TRIALS
        late_s = [self._seconds_after_cancel(apart_s * (trial + 0.5)) for trial in range(CANCEL_TRIALS)]
        return min(run_s, max(late_s) + apart_s)

    def _seconds_after_cancel(self, delay_s: float) -> float:
        feed = zeros(self.inputs, rows=1)
        timer = threading.Timer(delay_s, self.cancel)
        due_s = boottime_ns() / 1e9 + delay_s
        timer.start()
        try:
            self._computed(feed, rows=1)
        except Cancelled:
            return max(0.0, boottime_ns() / 1e9 - due_s)
        finally:
            timer.cancel()
            timer.join()
        return 0.0


def _datatype(name: str, array: "Array") -> str:
    if array.dtype not in OIP_NAMES:
        text = f"output {name!r} is {array.dtype}: only numbers and booleans run here"
        raise KernelError(MODEL_UNSUPPORTED, text)
    return OIP_NAMES[array.dtype]
