"""What every backend that measures at load has in common: runs of zeros, and what they cost by batch size."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from backends.datatypes import NUMPY_NAMES
from backends.kernel import INFERENCE_FAILED, MODEL_UNSUPPORTED, Cost, KernelError, Tensor
from backends.slots import shape

if TYPE_CHECKING:
    from backends.kernel import Array

MEASURE_S: Final = 0.01
"""What measuring one batch size may take, give or take a run: the first row waits for it."""
MEASURED_RUNS: Final = 5
LARGEST_MEASURED_BATCH: Final = 64
SLOW_ROW_S: Final = 0.5
"""From here on rows run one by one: a batch would gain little, and its warm-up would delay the first row."""

Trial = Callable[[int], "tuple[float, Sequence[Array]]"]
"""Runs so many rows of zeros; seconds and outputs, or `KernelError`."""


def zeros(inputs: Sequence[Tensor], rows: int) -> "dict[str, Array]":
    """Inputs for a trial, by their names."""
    import numpy as np  # noqa: PLC0415 - only in the worker

    return {tensor.name: np.zeros(shape(tensor, rows), NUMPY_NAMES[tensor.datatype]) for tensor in inputs}


@contextlib.contextmanager
def the_model_is_to_blame() -> Iterator[None]:
    """The first runs of a model: one that fails does not fit, code 132."""
    try:
        yield
    except KernelError as error:
        if error.code != INFERENCE_FAILED:
            raise
        raise KernelError(
            MODEL_UNSUPPORTED, f"the model does not run with these shapes: {error.text}"
        ) from error


class FirstRow:
    """The first row that a program has run, of zeros: `arrays` came out, and measuring begins with its `seconds`.

    One that took less than `repeat_below_s` was run again, unless the cost is `known`: it was cold.
    """

    def __init__(self, trial: Trial, known: Cost | None, repeat_below_s: float) -> None:
        self._trial = trial
        self.seconds, self.arrays = trial(1)
        if known is None and self.seconds < repeat_below_s:
            self.seconds, self.arrays = trial(1)

    def seconds_by_batch(self, rows_are_free: bool) -> dict[int, float]:
        """Seconds of a run by batch size; only 1 where rows cannot be batched.

        They can when every output has the row as its first dimension, two rows run, and every output has two then.
        """
        run_s = {1: self._shortest_s(1, self.seconds)}
        rowed = all(array.shape[:1] == (1,) for array in self.arrays)
        if not (rows_are_free and rowed) or run_s[1] >= SLOW_ROW_S:
            return run_s
        try:
            two_s, arrays = self._trial(2)
        except KernelError:
            return run_s
        if any(two.shape != (2, *one.shape[1:]) for one, two in zip(self.arrays, arrays, strict=True)):
            return run_s
        run_s[2] = self._shortest_s(2, two_s)
        rows = 4
        while rows <= LARGEST_MEASURED_BATCH and 2 * run_s[rows // 2] < MEASURE_S:
            run_s[rows] = self._shortest_s(rows, self._trial(rows)[0])
            rows *= 2
        return run_s

    def _shortest_s(self, rows: int, first_s: float) -> float:
        """The shortest of a few runs: what other tasks took of the processor meanwhile is no cost of this one."""
        seconds = [first_s]
        while len(seconds) < MEASURED_RUNS and sum(seconds) < MEASURE_S:
            seconds.append(self._trial(rows)[0])
        return min(seconds)
