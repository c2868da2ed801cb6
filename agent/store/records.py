"""What the ledger takes and gives. Wall times (`_at`) are unix seconds; row ranges are half-open."""

import enum
from dataclasses import dataclass

from agent.protocol.messages import TaskState


@dataclass(frozen=True, slots=True)
class NewTask:
    """A task as it arrived. `digest` is the SHA-256 of `body`, the bytes behind the signature line.

    `received_ns` is CLOCK_BOOTTIME and means nothing after a reboot of the machine; `received_at` does.
    """

    id: str
    attempt: int
    digest: bytes
    body: bytes
    rows_from: int
    rows_to: int
    received_ns: int
    received_at: float
    priority: int
    expires_at: float
    lease_s: float
    traceparent: str | None = None
    """The trace that it belongs to: its events carry it, also when the task itself is forgotten."""


@dataclass(frozen=True, slots=True)
class TaskRow:
    """A task as the ledger knows it. `state_at` stamps the newest state before `done`.

    `rows_answered` counts its rows in results when it ended, None while it is open.
    `told` is False while its end is owed to the fleet.
    """

    id: str
    attempt: int
    digest: bytes
    rows_from: int
    rows_to: int
    received_ns: int
    received_at: float
    priority: int
    expires_at: float
    lease_s: float
    traceparent: str | None
    reason_code: int | None
    reason_text: str
    state_at: float
    rows_answered: int | None
    told: bool
    state: TaskState


class Outcome(enum.Enum):
    """What became of an offered task."""

    NEW = "new"
    REPEAT = "repeat"
    """The same bytes again: answer with its present state."""
    CONFLICT = "conflict"
    """Other bytes under a known identity: reason 122."""
    STALE = "stale"
    """A newer attempt is known: reason 111."""
    SUPERSEDES = "supersedes"
    """New, and it ended an older attempt that was open."""


@dataclass(frozen=True, slots=True)
class Acceptance:
    """`task` is the row that decided: the new one, or the known one that stood in its way.

    `superseded` is the older attempt that this one ended; at most one attempt of a task is ever open.
    """

    outcome: Outcome
    task: TaskRow
    superseded: TaskRow | None = None


@dataclass(frozen=True, slots=True)
class PendingRows:
    """Rows that are committed and not yet part of a result."""

    row_from: int
    row_to: int
    outputs: bytes
    usage: bytes


@dataclass(frozen=True, slots=True)
class Unsettled:
    """A result that the fleet has not confirmed. `key` grows in the order of `emit` and is never reused."""

    key: int
    id: str
    attempt: int
    row_from: int
    row_to: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Counts:
    """The store in numbers. `used_bytes` counts the pages of the database that hold something."""

    open_tasks: int
    unsettled_results: int
    unsettled_bytes: int
    used_bytes: int


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that could not be taken for anything. `head` is its beginning, printable; `sha256` of all of it."""

    at: float
    topic: str
    reason_code: int
    text: str
    size_bytes: int
    sha256: bytes
    head: str
