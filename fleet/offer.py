"""One task on its way to its answer, over as many attempts as it takes. Decides; sends nothing itself."""

import datetime as dt
import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from agent.protocol.messages import Event, TaskState
from agent.protocol.reasons import Reason, Refused
from fleet.answer import Answer, GivenBack, Rows, TaskFailed, joined
from fleet.delivery import Delivery, Stream
from fleet.patience import Patience
from fleet.work import Work

NS: Final = 1_000_000_000
VEHICLE_SIDE: Final = 1000


class OfferState(enum.Enum):
    """Where a task stands, as the fleet knows it; the last three are final."""

    WAITING = "waiting"
    """Not published yet: the vehicle has as many tasks as it is given at a time."""
    OFFERED = "offered"
    ACCEPTED = "accepted"
    RUNNING = "running"
    PREEMPTED = "preempted"
    PAUSED = "paused"
    """The vehicle would not take it, or gave it back; it is offered again after a while."""
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


PROGRESS: Final = {
    TaskState.ACCEPTED: OfferState.ACCEPTED,
    TaskState.RUNNING: OfferState.RUNNING,
    TaskState.PREEMPTED: OfferState.PREEMPTED,
}
FATAL: Final = {
    TaskState.FAILED: Reason.INFERENCE_FAILED,
    TaskState.REJECTED: Reason.MALFORMED,
    TaskState.CANCELLED: Reason.CANCELLED,
    TaskState.SUPERSEDED: Reason.STALE_ATTEMPT,
}
"""How a vehicle ends a task for good, and what that means where it gives no reason."""


@dataclass(slots=True)
class Attempt:
    """What is out under the present number. `body` is kept while it may have to be said again."""

    number: int
    body: bytes = b""
    reached_broker: bool = False
    boot: int | None = None
    """The vehicle's boot in which it was heard of last."""
    heard: bool = False
    overdue: bool = False
    """The lease has run out while the vehicle was away; it is judged when the vehicle is back."""
    out: bool = False
    """Whether the vehicle may be at work on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What an offer needs of the vehicle it goes to. `jitter` gives numbers in [0, 1)."""

    patience: Patience
    clock: Callable[[], int]
    utc_now: Callable[[], dt.datetime]
    jitter: Callable[[], float]
    on_end: "Callable[[Offer], None]"


class Offer:
    """A task that was handed to `Vehicle.offer`.

    `async for rows in offer` gives each row once, in the order in which they came; every loop starts with the
    first. It raises what `answer` raises, after the rows that were accepted.
    """

    def __init__(
        self, task_id: str, work: Work, attempt: int, around: Surroundings, *, only: bytes | None = None
    ) -> None:
        self.id = task_id
        self.work = work
        self.only = only
        """The message of its only attempt, where it is not to be offered again here (`Vehicle.assign`)."""
        self.state = OfferState.WAITING
        self.attempt = Attempt(attempt - 1)
        self.first_attempt = attempt
        self.delivery = Delivery(*work.rows_wanted())
        self.events: list[Event] = []
        self.due_ns = 0
        """When it has to be looked at again, if no word comes first."""
        self.deadline_ns = 0
        self.expires_at = dt.datetime.min.replace(tzinfo=dt.UTC)
        self._around = around
        self._refusals = 0
        self.last_word = "no word from the vehicle"
        """What the vehicle said of it last, for people."""

    @property
    def rows_done(self) -> int:
        """Rows accepted so far."""
        return self.delivery.coverage.rows_done

    @property
    def ended(self) -> bool:
        """Whether `answer` returns at once."""
        return self.delivery.ended

    async def answer(self) -> Answer:
        """Every row. Raises TaskFailed when there will not be all of them.

        PublishRefused when the broker does not let this client publish to the vehicle, and FleetClosed
        when the client was closed first.
        """
        await self.delivery.until_ended()
        attempts = self.attempt.number - self.first_attempt + 1
        pieces = self.delivery.pieces
        return Answer(
            joined(pieces), [piece.usage for piece in pieces], self.events, attempts, self.rows_done
        )

    def cancel(self) -> None:
        """End it here and now, and tell the vehicle; does nothing to an offer that has ended."""
        if not self.ended:
            self.state = OfferState.CANCELLED
            self._end(TaskFailed(Reason.CANCELLED, "cancelled by the fleet", self.rows_done))

    def __aiter__(self) -> "Stream":
        return Stream(self.delivery)

    # What the vehicle's side of this library tells it

    def published(self, body: bytes) -> None:
        """Count a new attempt, whose lease begins now."""
        self.attempt = Attempt(self.attempt.number + 1, body, out=True)
        self.state = OfferState.OFFERED
        self.renew()

    def renew(self) -> None:
        """Count the lease from now."""
        wait_s = self.work.lease_s + self._around.patience.lease_margin_s
        self.attempt.overdue = False
        self.due_ns = min(self._around.clock() + int(wait_s * NS), self.deadline_ns)

    def take_event(self, event: Event) -> None:
        """Follow what the vehicle says about the present attempt; older ones are history."""
        self.events.append(event)
        if event.attempt != self.attempt.number or not self.attempt.out:
            return
        self._hear(event.boot)
        self.last_word = f"the last word was {event.state.value}"
        if event.state in PROGRESS:
            self.state = PROGRESS[event.state]
        elif event.state in FATAL or event.state in (TaskState.RELEASED, TaskState.EXPIRED):
            self.attempt.out = False
            self._given_back(event)

    def take_rows(self, rows: Rows, *, final: bool) -> None:
        """Accept the rows that are still missing, of whichever attempt; the others are duplicates."""
        if not self.first_attempt <= rows.attempt <= self.attempt.number:
            return
        if rows.attempt == self.attempt.number and self.attempt.out:
            self._hear(self.attempt.boot)
            self.attempt.out = not final
        try:
            if self.delivery.take(rows):
                self._refusals = 0
        except Refused as refused:
            self.fail(TaskFailed(refused.reason, refused.text, self.rows_done))
            return
        if not self.delivery.coverage.missing:
            self.state = OfferState.DONE
            self._end(None)

    def fail(self, error: Exception) -> None:
        """End without an answer."""
        if not self.ended:
            self.state = OfferState.FAILED
            self._end(error)

    def reconcile(self, boot: int, open_attempt: int | None) -> None:
        """Compare with what the vehicle has open: a task that a newer boot does not know is offered again.

        Not at once: the results may be on their way, behind the state in which it is not open any more.
        """
        attempt = self.attempt
        if self.state is OfferState.PAUSED or not (attempt.heard or attempt.overdue):
            return
        if open_attempt == attempt.number:
            attempt.boot = boot
            if attempt.overdue:
                self.renew()
        elif attempt.overdue and not attempt.heard:
            self.renew()  # the broker has kept the task for the vehicle and delivers it now
        elif attempt.overdue or (attempt.boot is not None and boot > attempt.boot):
            attempt.overdue = False
            grace_ns = int(self._around.patience.reboot_grace_s * NS)
            self.due_ns = min(self.due_ns, self._around.clock() + grace_ns)

    def link_came_back(self) -> None:
        """Give what waited at the broker time to arrive: nothing is concluded from our own absence."""
        margin_ns = int(self._around.patience.lease_margin_s * NS)
        self.deadline_ns = max(self.deadline_ns, self._around.clock() + margin_ns)
        if self.state is not OfferState.PAUSED:
            self.renew()

    def fall_due(self, *, vehicle_away: bool) -> bool:
        """Whether it is to be published again; fails it when its time is over."""
        if self._around.clock() >= self.deadline_ns:
            text = (
                f"{self.rows_done} of {self.delivery.coverage.rows} rows by "
                f"{self.expires_at:%Y-%m-%dT%H:%M:%SZ}, {self.last_word}: give it more time (expires_s)"
            )
            self.fail(TaskFailed(Reason.EXPIRED, text, self.rows_done))
            return False
        if self.only is not None:
            self.attempt.out = False  # not called off: rows that it has finished may still come
            self.fail(GivenBack(Reason.LINK_LOST, f"no more of it, {self.last_word}"))
            return False
        if vehicle_away and self.state is not OfferState.PAUSED:
            self.attempt.overdue = True
            self.due_ns = self.deadline_ns
            return False
        return True

    def _hear(self, boot: int | None) -> None:
        self.attempt.heard = True
        self.attempt.boot = boot
        self.attempt.body = b""
        self.renew()

    def _given_back(self, event: Event) -> None:
        """Try again later what is the vehicle's side; the rest is the end."""
        reason = event.reason
        code = reason.code if reason else FATAL.get(event.state, Reason.RESTARTED)
        text = reason.text if reason and reason.text else f"{event.state.value} by the vehicle"
        self.last_word += f" ({code.value} {code.label}: {text})"
        if event.state in FATAL and code < VEHICLE_SIDE:
            self.fail(TaskFailed(code, text, self.rows_done))
            return
        resume_at = reason.resume_at if reason else None
        if self.only is not None:
            self.fail(GivenBack(code, text, resume_at))
            return
        self.state = OfferState.PAUSED
        wait_s = self._pause_s(resume_at)
        self.due_ns = min(self._around.clock() + int(wait_s * NS), self.deadline_ns)

    def _pause_s(self, resume_at: dt.datetime | None) -> float:
        pause_s = self._around.jitter() * self._around.patience.retry_ceiling_s(self._refusals)
        self._refusals += 1
        if resume_at is None:
            return pause_s
        return pause_s + max(0.0, (resume_at - self._around.utc_now()).total_seconds())

    def _end(self, error: Exception | None) -> None:
        self.attempt.body = b""
        self.delivery.end(error)
        self._around.on_end(self)
