"""A slot may hold more rows than a program takes at a time: they are run in turns, for one token each way."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from backends.kernel import Program, Tensor

if TYPE_CHECKING:
    from backends.kernel import Array

    Arrays = dict[str, Array]


def in_turns(
    program: Program, inputs: "Arrays", outputs: "Arrays", rows: int
) -> "Iterator[tuple[Arrays, Arrays]]":
    """Inputs and outputs of each run, in the same memory: at most `max_batch` rows, or all of them without a limit."""
    most = program.max_batch or rows
    if rows <= most:
        yield inputs, outputs
        return
    for begin in range(0, rows, most):
        these = slice(begin, min(begin + most, rows))
        yield _part(program.inputs, inputs, these), _part(program.outputs, outputs, these)


def _part(tensors: Sequence[Tensor], arrays: "Arrays", rows: slice) -> "Arrays":
    """The arrays of these rows; shared ones are whole."""
    return {
        tensor.name: arrays[tensor.name] if tensor.shared else arrays[tensor.name][rows] for tensor in tensors
    }
