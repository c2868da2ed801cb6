"""The arena: memory that supervisor and worker share, and the slots that tensors of a run lie in.

The arena is a sparse memfd of fixed size: pages cost memory once they are written, so there is nothing to
grow, and its size is sealed, so a worker gone wild cannot shrink it under the supervisor's feet (SIGBUS).
"""

import bisect
import fcntl
import math
import mmap
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from backends.datatypes import ITEM_BYTES
from backends.kernel import Cost, Tensor

ALIGNMENT_BYTES: Final = 64  # a cache line, and the widest vector register


def shape(tensor: Tensor, rows: int) -> tuple[int, ...]:
    """The whole shape of `tensor` in a run of `rows` rows."""
    return tensor.row_shape if tensor.shared else (rows, *tensor.row_shape)


def layout(tensors: Iterable[Tensor], rows: int) -> tuple[list[range], int]:
    """The byte range of each tensor in a slot, and the slot's size; ValueError for an impossible tensor."""
    ranges: list[range] = []
    end = 0
    for tensor in tensors:
        if tensor.datatype not in ITEM_BYTES:
            raise ValueError(f"tensor {tensor.name!r}: datatype {tensor.datatype!r} has no fixed size")
        dimensions = shape(tensor, rows)
        if any(dimension < 1 for dimension in dimensions):
            raise ValueError(f"tensor {tensor.name!r}: shape {list(dimensions)} has a dimension below 1")
        begin = _aligned(end)
        end = begin + ITEM_BYTES[tensor.datatype] * math.prod(dimensions)
        ranges.append(range(begin, end))
    return ranges, _aligned(end)


def _aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


class ArenaFull(Exception):  # noqa: N818 - a state that passes, unless the slot is larger than the arena
    """No hole is large enough. Slots have to be released first, or `limit_bytes` has to be raised."""

    def __init__(self, needed_bytes: int, free_bytes: int, limit_bytes: int) -> None:
        self.needed_bytes = needed_bytes
        self.free_bytes = free_bytes
        self.limit_bytes = limit_bytes
        cure = (
            "raise arena_bytes or run fewer rows"
            if needed_bytes > limit_bytes
            else "release slots that are done"
        )
        super().__init__(
            f"a slot of {needed_bytes} bytes does not fit: {free_bytes} of {limit_bytes} bytes "
            f"are free in one piece; {cure}"
        )


class Arena:
    """Leases byte ranges of the shared memory, lowest address first: the pages that are warm are used again."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.fd = os.memfd_create("parkwatt-arena", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.fd, limit_bytes)
        fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        self._memory = mmap.mmap(self.fd, limit_bytes)
        self._holes = [(0, limit_bytes)]
        self._leases: dict[int, int] = {}
        self._retired = False

    def close_fd(self) -> None:
        """Close the descriptor once the worker has inherited it."""
        os.close(self.fd)

    def lease(self, size: int) -> int:
        """The offset of `size` bytes (a multiple of 64) that are nobody else's; raises `ArenaFull`."""
        for index, (offset, free) in enumerate(self._holes):
            if free >= size:
                self._holes[index : index + 1] = [(offset + size, free - size)] if free > size else []
                self._leases[offset] = size
                return offset
        raise ArenaFull(size, max((free for _, free in self._holes), default=0), self.limit_bytes)

    def give_back(self, offset: int) -> None:
        """End a lease."""
        size = self._leases.pop(offset)
        index = bisect.bisect(self._holes, (offset, 0))
        if index < len(self._holes) and self._holes[index][0] == offset + size:
            size += self._holes.pop(index)[1]
        if index and sum(self._holes[index - 1]) == offset:
            offset, before = self._holes.pop(index - 1)
            size += before
            index -= 1
        self._holes.insert(index, (offset, size))
        self._close_when_idle()

    def view(self, offset: int, size: int) -> memoryview:
        """A writable view of a leased range."""
        with memoryview(self._memory) as whole:
            return whole[offset : offset + size]

    def retire(self) -> None:
        """Unmap the memory as soon as the last slot has been released."""
        self._retired = True
        self._close_when_idle()

    def _close_when_idle(self) -> None:
        if self._retired and not self._leases:
            try:
                self._memory.close()
            except BufferError:
                return  # somebody still reads a slice of a view; the mapping goes with that slice


@dataclass(frozen=True, slots=True)
class LoadedProgram:
    """A program in a worker as the supervisor sees it. `key` is its name on the wire."""

    key: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    max_batch: int | None
    cost: Cost
    device: str
    version: str


class Slot:
    """Room for one run: write `inputs`, run, read `outputs`, then release it or run it again.

    The views are bytes, row-major, little-endian, in the order of the program's inputs and outputs; what
    `outputs` holds before a run has ended is undefined. Released while a run is under way, the memory
    stays reserved until the worker has let go of it. A view that is exported (`numpy.frombuffer`) must
    go before `release`, which raises BufferError otherwise; a slice of a view may stay.
    """

    def __init__(self, arena: Arena, program: LoadedProgram, rows: int) -> None:
        ranges, size = layout((*program.inputs, *program.outputs), rows)
        self.program = program
        self.rows = rows
        self.offset = arena.lease(size)
        views = [arena.view(self.offset + r.start, len(r)) for r in ranges]
        self.inputs = views[: len(program.inputs)]
        self.outputs = views[len(program.inputs) :]
        self.run_id: int | None = None
        self.released = False
        self._give_back: Callable[[int], None] = arena.give_back

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def release(self) -> None:
        """Give the memory back; idempotent."""
        if self.released:
            return
        for view in (*self.inputs, *self.outputs):
            view.release()
        self.released = True
        if self.run_id is None:
            self._give_back(self.offset)

    def settle(self) -> None:
        """Note that the worker no longer touches the memory: called by the worker process's owner."""
        self.run_id = None
        if self.released:
            self._give_back(self.offset)
