"""An open task in memory: what is still to do, what is done and not yet sent, and how long its lease stands."""

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import msgspec

from agent.program import program_key
from agent.protocol.messages import EnergySource, RowRange, Task, TaskState, Usage
from agent.protocol.reasons import Reason
from agent.protocol.trace import traceparent_of
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
    resume_at: dt.datetime | None = None
    """When the fleet may offer it again, where that is known."""


DONE = Ending(TaskState.DONE, None)


@dataclass(frozen=True, slots=True)
class Spending:
    """What a batch of rows took. `energy_j` is active energy, `pack_j` the part of it from the traction battery.

    Without a source there are no joules. With a source and without joules the rows were too few for the meter to
    tell: what they took is in the figures of those that came after them.
    """

    wall_s: float
    device_s: float
    energy_j: float | None = None
    source: EnergySource = EnergySource.NONE
    idle_j: float | None = None
    pack_j: float | None = None

    def part(self, share: float) -> "Spending":
        """A share of it, 0 to 1."""
        return replace(
            self,
            wall_s=self.wall_s * share,
            device_s=self.device_s * share,
            energy_j=_times(self.energy_j, share),
            idle_j=_times(self.idle_j, share),
            pack_j=_times(self.pack_j, share),
        )


WORST_FIRST = (EnergySource.NONE, EnergySource.MODEL, EnergySource.INTEGRATED, EnergySource.COUNTER)
"""A sum is worth what the worst of its parts is worth."""


def summed(spendings: Sequence[Spending]) -> Spending:
    """What several batches took together. One without a source leaves the sum without joules."""
    source = min((each.source for each in spendings), key=WORST_FIRST.index)
    told = [each for each in spendings if each.energy_j is not None and source is not EnergySource.NONE]
    return Spending(
        sum(each.wall_s for each in spendings),
        sum(each.device_s for each in spendings),
        _total([each.energy_j for each in told]),
        source,
        _total([each.idle_j for each in told]),
        _total([each.pack_j for each in told]),
    )


def _times(joules: float | None, share: float) -> float | None:
    return None if joules is None else joules * share


def _total(figures: Sequence[float | None]) -> float | None:
    """The sum of what is known; None when there is nothing, or one of them is not known."""
    known = [figure for figure in figures if figure is not None]
    return sum(known) if known and len(known) == len(figures) else None


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
    energy_j: float | None = 0.0
    """None once rows were done that nothing has measured."""
    crashes: int = 0
    """How often its worker died while it had nothing else in hand."""
    alone: bool = False
    """Its rows share no run with those of other jobs: one of them has failed, and not said whose fault it was."""
    left: int = field(init=False)
    """Rows still to run."""
    nbytes: int = field(init=False)
    """Bytes that its inputs hold in memory."""
    remote_bytes: int = field(init=False)
    """Bytes that its inputs have at their URL, and in a file here once they have been fetched."""
    program: str = field(init=False)
    """Jobs with the same one can share a program."""
    traceparent: str | None = field(init=False)
    """The trace that it belongs to."""

    def __post_init__(self) -> None:
        self.left = sum(end - begin for begin, end in self.missing)
        self.nbytes = sum(view.nbytes for view in self.inputs)
        self.remote_bytes = 0
        if self.task.inputs_url is not None:
            self.remote_bytes = sum(tensor.parameters.binary_data_size or 0 for tensor in self.task.inputs)
        self.program = program_key(self.task)
        self.traceparent = traceparent_of(self.task.parameters)

    @property
    def key(self) -> Key:
        """The identity (id, attempt)."""
        return self.task.id, self.task.attempt

    @property
    def awaits_inputs(self) -> bool:
        """Whether its inputs are still at their URL."""
        return bool(self.remote_bytes) and not self.inputs

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
        if chunk.spending.source is EnergySource.NONE or self.energy_j is None:
            self.energy_j = None
        else:
            self.energy_j += chunk.spending.energy_j or 0.0

    def renew(self, sent_ns: int) -> None:
        """Count the lease from a message that the broker has taken, by when its sending began.

        One that has run out, as it does in a computer that sleeps, is renewed by nothing.
        """
        if sent_ns <= self.lease_end_ns:
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
    if len(group) == 1:
        return group[0]
    return Chunk(
        group[0].begin,
        group[-1].end,
        tuple(b"".join(pieces) for pieces in zip(*(chunk.outputs for chunk in group), strict=True)),
        summed([chunk.spending for chunk in group]),
    )


def usage(spending: Spending, origin: Origin) -> Usage:
    """Give a spending its wire form: what did not come from the traction battery came from the grid."""
    energy_j, pack_j = spending.energy_j, spending.pack_j
    return Usage(
        wall_s=spending.wall_s,
        device_s=spending.device_s,
        energy_j=energy_j,
        energy_source=spending.source,
        idle_j=spending.idle_j,
        backend=origin.backend,
        device=origin.device,
        grid_j=None if energy_j is None or pack_j is None else energy_j - pack_j,
        pack_j=pack_j,
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
