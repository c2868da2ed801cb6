"""A slot may hold more rows than a program takes at a time: they are run in turns, for one token each way."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from backends.kernel import Tensor

if TYPE_CHECKING:
    from backends.kernel import Array


def in_turns(rows: int, most: int | None) -> Iterator[slice]:
    """The rows of a slot in runs of at most `most`; in one run without such a limit."""
    most = most or rows
    for begin in range(0, rows, most):
        yield slice(begin, min(begin + most, rows))


def part(tensors: Sequence[Tensor], arrays: Mapping[str, "Array"], rows: slice) -> "dict[str, Array]":
    """The arrays of these rows, in the same memory; shared ones are whole."""
    return {
        tensor.name: arrays[tensor.name] if tensor.shared else arrays[tensor.name][rows] for tensor in tensors
    }
