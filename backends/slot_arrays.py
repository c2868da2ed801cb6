"""What lies in a slot, as the arrays that a program is run with. Imports numpy: for a worker that runs something."""

import mmap
from typing import TYPE_CHECKING

import numpy as np

from backends.datatypes import NUMPY_NAMES
from backends.kernel import Program, Tensor
from backends.slots import layout, shape

if TYPE_CHECKING:
    from backends.turns import Arrays


class SlotArrays:
    """Of one program. Those of the last slot are kept: most often the next run is in its place."""

    def __init__(self, program: Program, memory: mmap.mmap) -> None:
        self._program = program
        self._memory = memory
        self._place: tuple[int, int] | None = None
        self._last: tuple[Arrays, Arrays] = {}, {}

    def at(self, offset: int, rows: int) -> "tuple[Arrays, Arrays]":
        """Inputs, which cannot be written, and outputs of a slot of `rows` rows."""
        if self._place != (offset, rows):
            self._last = self._made(offset, rows)
            self._place = offset, rows
        return self._last

    def _made(self, offset: int, rows: int) -> "tuple[Arrays, Arrays]":
        inputs, outputs = self._program.inputs, self._program.outputs
        ranges, _ = layout((*inputs, *outputs), rows)
        places = (offset + each.start for each in ranges)
        read = {tensor.name: self._array(tensor, rows, next(places)) for tensor in inputs}
        for array in read.values():
            array.flags.writeable = False
        return read, {tensor.name: self._array(tensor, rows, next(places)) for tensor in outputs}

    def _array(self, tensor: Tensor, rows: int, place: int) -> "np.ndarray":
        return np.ndarray(shape(tensor, rows), NUMPY_NAMES[tensor.datatype], self._memory, place)
