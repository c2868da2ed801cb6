"""An open task in memory: what is still to do, what is done and not yet sent, and how long its lease stands."""

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from agent.protocol.messages import EnergySource, RowRange, Task, TaskState, Usage
from agent.protocol.reasons import Reason
from backends.kernel import Tensor as TensorSpec

NS = 1_000_000_000
Key = tuple[str, int]
"""The identity of a task: (id, attempt)."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a job ended, or why it pauses. Only `done` has no reason."""

    state: TaskState
    code: Reason | None
    text: str = ""


DONE = Ending(TaskState.DONE, None)


@dataclass(frozen=True, slots=True)
class Spending:
    """What a batch of rows took. `energy_j` None without a meter."""

    wall_s: float
    device_s: float
    energy_j: float | None

    def part(self, share: float) -> "Spending":
        """A share of it, 0 to 1."""
        energy_j = None if self.energy_j is None else self.energy_j * share
        return Spending(self.wall_s * share, self.device_s * share, energy_j)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Finished rows `[begin, end)`: the bytes of each output in order, and what they took."""

    begin: int
    end: int
    outputs: tuple[bytes, ...]
    spending: Spending


@dataclass(frozen=True, slots=True)
class Origin:
    """What computes the rows of a job: its outputs have these shapes."""

    backend: str
    device: str
    outputs: tuple[TensorSpec, ...]


@dataclass(slots=True, eq=False)
class Job:
    """One (id, attempt) that the agent owes.

    `missing`: rows not yet done, in order. `pending`: rows committed and not yet in a result.
    """

    task: Task
    inputs: list[memoryview]
    rows: RowRange
    total_rows: int
    missing: list[RowRange]
    lease_end_ns: int
    arrival: int
    state: TaskState = TaskState.ACCEPTED
    pending: list[Chunk] = field(default_factory=list)
    ended: Ending | None = None
    said_ns: int = 0
    begun_ns: int | None = None
    """When its rows began to run, since it was last put back."""
    flushed_ns: int = 0
    origin: Origin | None = None
    device_s: float = 0.0
    energy_j: float = 0.0
    crashes: int = 0
    """How often its worker died while it had nothing else in hand."""
    alone: bool = False
    """Its rows share no run with those of other jobs: one of them has failed, and not said whose fault it was."""
    left: int = field(init=False)
    """Rows still to run."""
    nbytes: int = field(init=False)
    """Bytes that its inputs hold in memory."""

    def __post_init__(self) -> None:
        self.left = sum(end - begin for begin, end in self.missing)
        self.nbytes = sum(view.nbytes for view in self.inputs)

    @property
    def key(self) -> Key:
        """The identity (id, attempt)."""
        return self.task.id, self.task.attempt

    @property
    def order(self) -> tuple[int, dt.datetime, int]:
        """Sort key: larger priority, then earlier deadline, then arrival."""
        return -self.task.priority, self.task.expires_at, self.arrival

    def __lt__(self, other: "Job") -> bool:
        return self.order < other.order

    @property
    def asked(self) -> int:
        """Rows this job was asked for."""
        return self.rows[1] - self.rows[0]

    @property
    def done(self) -> int:
        """Rows that are done."""
        return self.asked - self.left

    def input(self, name: str) -> memoryview:
        """The bytes of an input, all rows of it."""
        place = next(place for place, tensor in enumerate(self.task.inputs) if tensor.name == name)
        return self.inputs[place]

    def next_batch(self, rows: int) -> RowRange:
        """Return the next at most `rows` rows to run."""
        begin, end = self.missing[0]
        return begin, min(end, begin + rows)

    def keep(self, chunk: Chunk) -> None:
        """Note that the first missing rows are done."""
        begin, end = self.missing[0]
        if chunk.begin != begin or chunk.end > end:
            raise ValueError(f"rows {chunk.begin}..{chunk.end} are not next of {begin}..{end}")
        self.missing[:1] = [(chunk.end, end)] if chunk.end < end else []
        self.pending.append(chunk)
        self.left -= chunk.end - chunk.begin
        self.device_s += chunk.spending.device_s
        self.energy_j += chunk.spending.energy_j or 0.0

    def renew(self, sent_ns: int) -> None:
        """Count the lease from a message that the broker has taken, by when its sending began."""
        self.lease_end_ns = max(self.lease_end_ns, sent_ns + int(self.task.lease_s * NS))


def merged(chunks: list[Chunk], row_bytes: int, limit_bytes: int) -> Iterator[Chunk]:
    """Join neighbouring chunks, and split what is larger than `limit_bytes`; one row always fits."""
    most_rows = max(1, limit_bytes // max(1, row_bytes))
    group: list[Chunk] = []
    for chunk in (piece for whole in chunks for piece in _split(whole, most_rows)):
        rows = sum(held.end - held.begin for held in group)
        if group and (group[-1].end != chunk.begin or rows + chunk.end - chunk.begin > most_rows):
            yield _joined(group)
            group = []
        group.append(chunk)
    if group:
        yield _joined(group)


def _split(chunk: Chunk, most_rows: int) -> Iterator[Chunk]:
    rows = chunk.end - chunk.begin
    if rows <= most_rows:
        yield chunk
        return
    for begin in range(0, rows, most_rows):
        end = min(rows, begin + most_rows)
        yield Chunk(
            chunk.begin + begin,
            chunk.begin + end,
            tuple(whole[begin * len(whole) // rows : end * len(whole) // rows] for whole in chunk.outputs),
            chunk.spending.part((end - begin) / rows),
        )


def _joined(group: list[Chunk]) -> Chunk:
    energies = [chunk.spending.energy_j for chunk in group]
    return Chunk(
        group[0].begin,
        group[-1].end,
        tuple(b"".join(pieces) for pieces in zip(*(chunk.outputs for chunk in group), strict=True)),
        Spending(
            sum(chunk.spending.wall_s for chunk in group),
            sum(chunk.spending.device_s for chunk in group),
            None if None in energies else sum(energy for energy in energies if energy is not None),
        ),
    )


def usage(spending: Spending, source: EnergySource, origin: Origin) -> Usage:
    """Give a spending its wire form.

    Work runs on proven grid power only, so all of it came from the grid. No source here knows idle power.
    """
    metered = source is not EnergySource.NONE
    return Usage(
        wall_s=spending.wall_s,
        device_s=spending.device_s,
        energy_j=spending.energy_j if metered else None,
        energy_source=source,
        idle_j=None,
        backend=origin.backend,
        device=origin.device,
        grid_j=spending.energy_j if metered else None,
        pack_j=0.0 if metered else None,
    )


class _Account(msgspec.Struct, array_like=True):
    """How committed rows came to be, as the store keeps it."""

    spending: Spending
    origin: Origin


def packed(chunk: Chunk, origin: Origin | None) -> tuple[bytes, bytes]:
    """The outputs and the account of a chunk as the store keeps them."""
    if origin is None:
        raise ValueError("rows without an origin")
    return msgspec.msgpack.encode(chunk.outputs), msgspec.msgpack.encode(_Account(chunk.spending, origin))


def unpacked(begin: int, end: int, outputs: bytes, account: bytes) -> tuple[Chunk, Origin]:
    """Undo `packed` after a restart."""
    raws = msgspec.msgpack.decode(outputs, type=tuple[bytes, ...])
    told = msgspec.msgpack.decode(account, type=_Account)
    return Chunk(begin, end, raws, told.spending), told.origin
