"""What every backend that measures at load has in common: seconds by batch size, and what the outputs are."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from backends.kernel import MODEL_UNSUPPORTED, Cost, KernelError, Tensor

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


def first_row(trial: Trial, known: Cost | None, repeat_below_s: float) -> "tuple[float, Sequence[Array]]":
    """Seconds and outputs of a row. One that was quick is run again, unless the cost is known: it was cold."""
    seconds, arrays = trial(1)
    return trial(1) if known is None and seconds < repeat_below_s else (seconds, arrays)


def described_outputs(
    names: Sequence[str], datatypes: Sequence[str], arrays: "Sequence[Array]"
) -> tuple[Tensor, ...]:
    """The outputs of a run of one row. One whose first dimension is not the row belongs to it as a whole."""
    for name, array in zip(names, arrays, strict=True):
        if 0 in array.shape:
            raise KernelError(
                MODEL_UNSUPPORTED,
                f"output {name!r} is empty for an input of zeros: its shape depends on the data",
            )
    return tuple(
        Tensor(name, datatype, array.shape[1:] if array.shape[:1] == (1,) else array.shape)
        for name, datatype, array in zip(names, datatypes, arrays, strict=True)
    )


def seconds_by_batch(
    trial: Trial, first_s: float, rows_are_free: bool, outputs: Sequence[Tensor]
) -> dict[int, float]:
    """Seconds of a run by batch size; only 1 where rows cannot be batched.

    They can when two rows run and every output has two then. `first_s` is what one row took when it was
    run last.
    """
    run_s = {1: _shortest_s(trial, 1, first_s)}
    if not rows_are_free or run_s[1] >= SLOW_ROW_S:
        return run_s
    try:
        two_s, arrays = trial(2)
    except KernelError:
        return run_s
    if any(array.shape != (2, *tensor.row_shape) for tensor, array in zip(outputs, arrays, strict=True)):
        return run_s
    run_s[2] = _shortest_s(trial, 2, two_s)
    rows = 4
    while rows <= LARGEST_MEASURED_BATCH and 2 * run_s[rows // 2] < MEASURE_S:
        run_s[rows] = _shortest_s(trial, rows, trial(rows)[0])
        rows *= 2
    return run_s


def _shortest_s(trial: Trial, rows: int, first_s: float) -> float:
    """The shortest of a few runs: what other tasks took of the processor meanwhile is no cost of this one."""
    seconds = [first_s]
    while len(seconds) < MEASURED_RUNS and sum(seconds) < MEASURE_S:
        seconds.append(trial(rows)[0])
    return min(seconds)
