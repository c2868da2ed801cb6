"""The demo's fleet: tasks of real files for the file type model, and a count of what comes back."""

import asyncio
import itertools
import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from agent.demo import model
from agent.demo.config import BACKEND
from agent.demo.features import ROW_TOKENS
from agent.demo.files import Sample
from agent.link import PublishRefused
from agent.protocol.messages import Datatype, EnergySource, ModelFormat, ModelRef
from fleet.client import FleetClosed, Input, Rows, TaskFailed, Vehicle

ROWS: Final = 8
LONG_ROWS: Final = 64
LONG_EVERY: Final = 10
"""One task in so many is long enough to be cut in two by an owner who comes back."""
OUTSTANDING: Final = 64
LEASE_S: Final = 60.0
EXPIRES_S: Final = 300.0
MODEL: Final = ModelRef(model.NAME, model.VERSION, model.MODEL_SHA256, ModelFormat.ONNX)


@dataclass(frozen=True, slots=True)
class Order:
    """One task: its id and a file a row."""

    id: str
    files: Sequence[Sample]


def orders(files: Sequence[Sample]) -> Iterator[Order]:
    """Tasks without end, over the files again and again in their order."""
    supply = itertools.cycle(files)
    for number in itertools.count():
        rows = ROWS if number % LONG_EVERY else LONG_ROWS
        yield Order(f"demo-{number:05}", list(itertools.islice(supply, rows)))


@dataclass(slots=True)
class Score:
    """How often the model's label was what the file is."""

    right: int = 0
    total: int = 0


@dataclass(slots=True)
class Tally:
    """What the fleet sent and what it was answered."""

    asked: dict[str, int] = field(default_factory=dict)
    """Rows of each task that was handed over, by its id."""
    tasks_done: int = 0
    rows_done: int = 0
    failures: list[str] = field(default_factory=list)
    scores: dict[str, Score] = field(default_factory=lambda: defaultdict(Score))
    joules: dict[EnergySource, float] = field(default_factory=lambda: defaultdict(float))

    @property
    def labels(self) -> Score:
        """Every kind of file together."""
        scores = self.scores.values()
        return Score(sum(score.right for score in scores), sum(score.total for score in scores))

    @property
    def rows_asked(self) -> int:
        """Rows of every task that was handed over."""
        return sum(self.asked.values())

    def answered(self, order: Order, rows: Rows, labels: Sequence[str]) -> None:
        """Count rows of an answer against what the files are."""
        found = labels_of(rows.outputs[model.OUTPUT].data, labels)
        self.rows_done += len(found)
        for sample, label in zip(order.files[rows.begin : rows.end], found, strict=True):
            score = self.scores[sample.label]
            score.total += 1
            score.right += label == sample.label
        if rows.usage.energy_j is not None:
            self.joules[rows.usage.energy_source] += rows.usage.energy_j


def labels_of(data: bytes | memoryview, labels: Sequence[str]) -> list[str]:
    """The most likely label of each row of the model's output, FP32 of shape [rows, labels]."""
    count = len(labels)
    return [
        labels[max(range(count), key=scores.__getitem__)] for scores in struct.iter_unpack(f"<{count}f", data)
    ]


def tensor(files: Sequence[Sample]) -> Input:
    """The model's input for these files, a row each."""
    return Input(
        model.INPUT, Datatype.INT32, (len(files), ROW_TOKENS), b"".join(sample.row for sample in files)
    )


@dataclass(frozen=True, slots=True)
class Dispatcher:
    """Sends orders to one vehicle, as many as it may have outstanding, and sees each through."""

    vehicle: Vehicle
    labels: Sequence[str]
    tally: Tally

    async def send(self, wanted: Iterable[Order]) -> None:
        """Return when every one of `wanted`, which is asked for the next when there is room, has ended."""
        room = asyncio.Semaphore(OUTSTANDING)
        async with asyncio.TaskGroup() as tasks:
            await room.acquire()
            for order in wanted:
                self.tally.asked[order.id] = len(order.files)
                tasks.create_task(self._see_through(order, room), name=order.id)
                await room.acquire()

    async def _see_through(self, order: Order, room: asyncio.Semaphore) -> None:
        try:
            offer = self.vehicle.offer(
                MODEL,
                [tensor(order.files)],
                id=order.id,
                outputs=[model.OUTPUT],
                backend=BACKEND,
                lease_s=LEASE_S,
                expires_s=EXPIRES_S,
            )
            async for rows in offer:
                self.tally.answered(order, rows, self.labels)
            self.tally.tasks_done += 1
        except (TaskFailed, PublishRefused, FleetClosed) as failure:
            self.tally.failures.append(f"{order.id}: {failure}")
        finally:
            room.release()
