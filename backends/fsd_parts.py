"""The parts of a loaded program: onnxruntime on the host, and programs on the NPUs, one after another.

Between parts a tensor is an array of (rows, *shape), where `shape` is the model's own for one row. The host computes
row by row: so rows cannot see each other, and a model of fixed batch takes any number of them, too.
"""

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from backends.kernel import INFERENCE_FAILED, Cancelled, KernelError
from backends.onnx_runs import OnnxRuns
from firmware_shims.fsd.interface import Completion

if TYPE_CHECKING:
    from backends.kernel import Array

    Tensors = dict[str, Array]


class RunningPart(Protocol):
    """What runs in one turn."""

    def run(self, tensors: "Tensors", rows: int, given_up: threading.Event) -> Sequence[Completion]:
        """Add what it gives to `tensors`; returns what NPUs say it took. Raises `Cancelled` and `KernelError`."""

    def abort(self) -> None:
        """End a run that is under way; from any thread, once `given_up` is set."""

    def close(self) -> None:
        """Let go of everything."""


class HostPart:
    """An onnxruntime session, for one row."""

    def __init__(self, runtime: Any, session: Any) -> None:
        self._runs = OnnxRuns(runtime, session)
        self._takes = [value.name for value in session.get_inputs()]
        self._gives = [value.name for value in session.get_outputs()]

    def run(self, tensors: "Tensors", rows: int, given_up: threading.Event) -> Sequence[Completion]:  # noqa: D102
        found = [
            self._row({name: tensors[name][row, ...] for name in self._takes}, given_up)
            for row in range(rows)
        ]
        for name, arrays in zip(self._gives, zip(*found, strict=True), strict=True):
            tensors[name] = _stacked(name, arrays)
        return ()

    def abort(self) -> None:  # noqa: D102
        self._runs.cancel()

    def close(self) -> None:  # noqa: D102
        self._runs.close()

    def _row(self, feed: "Tensors", given_up: threading.Event) -> "Sequence[Array]":
        def computed(session: Any, options: Any) -> "Sequence[Array]":
            if given_up.is_set():  # later than this, `abort` finds the run
                raise Cancelled
            results: Sequence[Array] = session.run(self._gives, feed, options)
            return results

        return self._runs.call(computed)


def _stacked(name: str, arrays: "Sequence[Array]") -> "Array":
    """The arrays of all rows, copied only where there are several."""
    if len(arrays) == 1:
        return arrays[0][np.newaxis]
    shapes = {array.shape for array in arrays}
    if len(shapes) > 1:
        text = f"tensor {name!r} has other shapes in other rows ({sorted(shapes)}): run them one by one"
        raise KernelError(INFERENCE_FAILED, text)
    return np.stack(arrays)
