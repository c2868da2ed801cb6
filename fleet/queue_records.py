"""What a queue's ledger takes and gives."""

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from agent.protocol.messages import ModelRef, Task
from fleet.answer import Answer, Rows, TaskFailed, joined


class Added(enum.Enum):
    """What became of a task that was added."""

    NEW = "new"
    REPEAT = "repeat"
    """The same work under a known id: it runs once."""
    CONFLICT = "conflict"
    """Other work under a known id."""


class Kept(enum.Enum):
    """What became of a result's rows."""

    UNWANTED = "unwanted"
    """Of no open task, of an attempt that was never made there, or there already: nothing was written."""
    TAKEN = "taken"
    ENDED = "ended"
    """Taken, and they were the last; or unlike those before them, which ends the task as failed."""


@dataclass(frozen=True, slots=True)
class Sent:
    """An attempt that is out at a vehicle, as far as the queue knows; `region` leads to the vehicle's topics."""

    task_id: str
    number: int
    vehicle: str
    region: str


@dataclass(frozen=True, slots=True)
class Assignment:
    """An attempt and its message: `body` is the same bytes whenever it is read."""

    sent: Sent
    task: Task
    body: bytes


@dataclass(frozen=True, slots=True)
class OpenTask:
    """A task that has not ended. `task` has no vehicle yet and no times; `order` grows as tasks are added."""

    order: int
    task: Task
    rows_missing: int
    expires_at: float
    crashes: int
    """Attempts at which a vehicle's backend crashed, hung or ran out of memory."""
    out: int | None
    """Its newest attempt, while that may be under way."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A task that has ended, with the rows that were taken, in order; the application's until it is `taken`."""

    id: str
    model: ModelRef
    rows: Sequence[Rows]
    attempts: int
    failure: TaskFailed | None
    """None: every row is there."""

    def answer(self) -> Answer:
        """Every row; raises the failure. Events are not kept: `Answer.events` is empty."""
        if self.failure is not None:
            raise self.failure
        usage = [piece.usage for piece in self.rows]
        rows = sum(piece.end - piece.begin for piece in self.rows)
        return Answer(joined(self.rows), usage, (), self.attempts, rows)
