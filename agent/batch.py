"""Rows of one or several jobs that run together."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from agent.job import Chunk, Job, Spending
from backends.slots import LoadedProgram, Slot


@dataclass(frozen=True, slots=True)
class Part:
    """Rows `[begin, end)` of a job."""

    job: Job
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Parts in the order in which their rows lie in the slot."""

    program: LoadedProgram
    parts: Sequence[Part]

    @property
    def rows(self) -> int:
        """Rows of all parts."""
        return sum(part.end - part.begin for part in self.parts)

    @property
    def jobs(self) -> list[Job]:
        """Whose rows they are."""
        return [part.job for part in self.parts]

    def fill(self, slot: Slot) -> None:
        """Copy the inputs of every part into its place; shared ones are the same for all of them."""
        rows = self.rows
        for view, tensor in zip(slot.inputs, self.program.inputs, strict=True):
            row_bytes = len(view) // rows
            place = 0
            for part in self.parts:
                raw = part.job.input(tensor.name)
                if tensor.shared:
                    view[:] = raw
                    break
                size = (part.end - part.begin) * row_bytes
                view[place : place + size] = raw[part.begin * row_bytes : part.end * row_bytes]
                place += size

    def split(self, slot: Slot, spent: Spending) -> Iterator[tuple[Job, Chunk]]:
        """Give each job its outputs, and of what was spent its share by rows."""
        rows, row = self.rows, 0
        sizes = [len(view) // rows for view in slot.outputs]
        for part in self.parts:
            end = row + part.end - part.begin
            outputs = tuple(
                [bytes(view[row * size : end * size]) for view, size in zip(slot.outputs, sizes, strict=True)]
            )
            yield part.job, Chunk(part.begin, part.end, outputs, spent.part((end - row) / rows))
            row = end
