"""What comes from the fleet: verified before it is parsed, on disk before it is acknowledged, then answered."""

import asyncio
import datetime as dt
import hashlib
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, NamedTuple, TypeVar

import msgspec

from agent.admission import Circumstances, admit
from agent.dead_letters import DeadLetters
from agent.executor import Executor
from agent.guard import Guard
from agent.inputs import carried
from agent.job import NS, Ending, Job, Key
from agent.link import Inbound
from agent.outbox import Outbox
from agent.protocol import framing, jws, tensors
from agent.protocol.messages import Attempt, Cancel, Control, Drain, Id, Resume, Settled, TaskState
from agent.protocol.reasons import Reason, Refused
from agent.protocol.topics import Topics
from agent.protocol.trace import traceparent_of
from agent.reports import Reports, utc_now
from agent.settings import Settings
from agent.signed_time import SignedTime
from agent.stays import Stays
from agent.store import Acceptance, Ledger, NewTask, Outcome, Store, StoreClosed, StoreFull, TaskRow
from agent.trusted_keys import TrustedKeys
from firmware_shims.clock import Clock

T = TypeVar("T")
log = logging.getLogger(__name__)
BY_THE_FLEET: Final = Ending(TaskState.CANCELLED, Reason.CANCELLED, "by the fleet")
EARLY_CANCELS_KEPT: Final = 1024
QOS: Final = 1
"""Of every message of the contract: with 0 nobody would know whether it arrived."""


class _Identity(msgspec.Struct):
    """As much of a task that cannot be read as its refusal needs."""

    id: Id
    attempt: Attempt = 1
    parameters: Any = None


_IDENTITY = msgspec.json.Decoder(_Identity)


class _Sender(NamedTuple):
    """Whom to tell of a refusal, and in which trace."""

    key: Key
    traceparent: str | None


@dataclass(slots=True)
class Intake:
    """Handles the vehicle's two incoming topics. Every message ends acknowledged, whatever it was."""

    settings: Settings
    topics: Topics
    keys: TrustedKeys
    time: SignedTime
    store: Store
    executor: Executor
    reports: Reports
    guard: Guard
    stays: Stays
    dead_letters: DeadLetters
    outbox: Outbox
    clock: Clock
    on_store_error: Callable[[BaseException], None]
    draining: bool = False
    refused: Counter[str] = field(default_factory=Counter)
    """Messages by the name of their reason."""
    rejected: Counter[Reason] = field(default_factory=Counter)
    """Tasks among them."""
    _arrivals: int = 0
    _arriving: dict[Key, Job] = field(default_factory=dict)
    """Jobs on their way to the disk."""
    _arriving_s: dict[Key, float] = field(default_factory=dict)
    """Seconds that they are expected to take: a burst must not find the queue empty task by task."""
    _cancelled_early: dict[Key, None] = field(default_factory=dict)
    """Cancels of what has not come, or has ended; in the order in which they came."""

    async def restore(self) -> None:
        """Take up what an earlier start left: the drain that holds, and the time floor."""
        self.draining, self.time.floor_s = await self.store.run(
            lambda ledger: (ledger.facts.draining(), ledger.facts.time_floor())
        )
        self.guard.follow(replace(self.guard.orders, draining=self.draining))

    def on_message(self, inbound: Inbound) -> None:
        """Take one message; returns at once, the acknowledgement follows when it is safe."""
        try:
            body = self._trusted(inbound)
            if inbound.topic == self.topics.task:
                self._task(inbound, body)
            else:
                self._control(inbound, framing.decode_control(body))
        except Refused as refused:
            self._drop(inbound, refused)

    def _trusted(self, inbound: Inbound) -> bytes:
        """Return the signed bytes; raises Refused before anything in them is parsed."""
        if inbound.retain:
            raise Refused(Reason.MALFORMED, "a retained message is not taken: publish without retain")
        if inbound.qos != QOS:
            raise Refused(Reason.MALFORMED, f"QoS {inbound.qos} is not taken: publish with QoS {QOS}")
        signature, body = jws.split(inbound.payload)
        if signature is not None:
            self.keys.verify(signature, body)
        elif self.settings.trust.require_signatures:
            raise Refused(Reason.BAD_SIGNATURE, "the message is not signed")
        return body

    def _refuse(self, inbound: Inbound, refused: Refused, sender: _Sender | None = None) -> None:
        self.refused[refused.reason.label] += 1
        log.warning("refused a message on %s: %s", inbound.topic, refused)
        if sender is not None:
            self.rejected[refused.reason] += 1
            ending = Ending(TaskState.REJECTED, refused.reason, refused.text, refused.resume_at)
            self.reports.rejected(sender.key, ending, sender.traceparent)

    def _drop(self, inbound: Inbound, refused: Refused, sender: _Sender | None = None) -> None:
        """What could not be taken for anything is remembered, and never comes again."""
        topic = inbound.topic.removeprefix(f"{self.topics.base}/")
        self.dead_letters.bury(topic, inbound.payload, refused)
        self._refuse(inbound, refused, sender)
        inbound.ack()

    # Tasks

    def _task(self, inbound: Inbound, body: bytes) -> None:
        received_ns = self.clock()
        try:
            self._check_size(body)
            task, tail = framing.decode_task(body)
            begin, end, total = tensors.rows_of(task)
            inputs = carried(task, tail)
        except Refused as refused:
            self._drop(inbound, refused, _sender(body))
            return
        self._arrivals += 1
        job = Job(
            task=task,
            inputs=inputs,
            rows=(begin, end),
            total_rows=total,
            missing=[(begin, end)],
            lease_end_ns=received_ns + int(task.lease_s * NS),
            arrival=self._arrivals,
        )
        row_s = self.executor.row_s(job)
        offer = _Offer(_new_task(job, body, received_ns), self._objection(job, row_s))
        self._arriving[job.key] = job
        self._arriving_s[job.key] = 0.0 if offer.objection else job.left * (row_s or 0.0)
        taken = self.store.run(self._timed(task.issued_at, offer.take))
        taken.add_done_callback(lambda done: self._taken(done, inbound, job))

    def _check_size(self, body: bytes) -> None:
        limit = self.settings.mqtt.max_payload_bytes
        if len(body) > limit:
            raise Refused(Reason.TOO_LARGE, f"the body has {len(body)} bytes, max_payload_bytes is {limit}")

    def _timed(self, issued_at: dt.datetime, change: Callable[[Ledger], T]) -> Callable[[Ledger], T]:
        """`change`, and in the same transaction the time floor, where a signature stood over the time."""
        floor_s = self.time.hear(issued_at) if self.settings.trust.require_signatures else None
        if floor_s is None:
            return change

        def raise_and_change(ledger: Ledger) -> T:
            ledger.facts.raise_time_floor(floor_s)
            return change(ledger)

        return raise_and_change

    def _objection(self, job: Job, row_s: float | None) -> Refused | None:
        others = [
            other
            for jobs in (self.executor.jobs, self._arriving)
            for key, other in jobs.items()
            if key[0] != job.task.id
        ]
        circumstances = Circumstances(
            settings=self.settings,
            energy_source=self.executor.runs.energy.source,
            now=self.time.now(),
            open_tasks=len(others),
            open_bytes=sum(other.nbytes for other in others),
            open_remote_bytes=sum(other.remote_bytes for other in others),
            queued_s=self.executor.queued_s + sum(self._arriving_s.values()),
            task_bytes=job.nbytes,
            task_remote_bytes=job.remote_bytes,
            row_s=row_s,
            kills_workers=self.executor.killers.refused(job.task.model.sha256),
            stays_for=self.stays.likely,
        )
        try:
            if self.settings.trust.require_signatures:
                self.time.refuse_future(job.task.issued_at)
                self.time.refuse_old(job.task.issued_at)
            admit(job.task, circumstances)
        except Refused as refused:
            return refused
        return None

    def _taken(self, done: asyncio.Future[Acceptance | Refused], inbound: Inbound, job: Job) -> None:
        """Acknowledge and answer a task that the store has decided on."""
        self._arriving.pop(job.key, None)
        self._arriving_s.pop(job.key, None)
        sender = _Sender(job.key, job.traceparent)
        if done.cancelled():
            return
        if isinstance(full := done.exception(), StoreFull):
            inbound.ack()
            self._refuse(inbound, Refused(Reason.STORE_FULL, str(full)), sender)
            return
        if (error := done.exception()) is not None:
            self.on_store_error(error)
            return
        inbound.ack()
        decided = done.result()
        if isinstance(decided, Refused):
            self._refuse(inbound, decided, sender)
        elif decided.outcome is Outcome.REPEAT:
            self._answer_again(job.key, decided.task)
        elif decided.outcome is Outcome.CONFLICT:
            other = Refused(Reason.REPLAYED, "other bytes came under this id and attempt")
            self._drop(inbound, other, sender)
        elif decided.outcome is Outcome.STALE:
            newer = f"attempt {decided.task.attempt} of this task is known"
            self._refuse(inbound, Refused(Reason.STALE_ATTEMPT, newer), sender)
        else:
            self._accept(job, decided.superseded)

    def _accept(self, job: Job, superseded: TaskRow | None) -> None:
        if superseded is not None:
            self._say_superseded(superseded)
        self.reports.event(job)
        self.executor.add(job)
        if job.key in self._cancelled_early:
            self.executor.end(job, BY_THE_FLEET)

    def _answer_again(self, key: Key, row: TaskRow) -> None:
        """A true repeat runs once; it is answered with the present state, and with what was answered before."""
        job = self.executor.jobs.get(key)
        if job is not None:
            self.reports.event(job)
        self.outbox.answer_again(row)

    def _say_superseded(self, row: TaskRow) -> None:
        self.executor.superseded((row.id, row.attempt))
        ending = Ending(TaskState.SUPERSEDED, Reason.STALE_ATTEMPT, "a newer attempt has come")
        self.reports.ended_before(row, ending)

    # Control

    def _control(self, inbound: Inbound, message: Control) -> None:
        if message.audience != self.settings.vehicle.id:
            raise Refused(
                Reason.WRONG_AUDIENCE, f"for {message.audience}, this is {self.settings.vehicle.id}"
            )
        if isinstance(message, Settled):
            settle = self._timed(message.issued_at, lambda ledger: ledger.settle(message.results))
            stored = self.store.owe(settle, lane=inbound)
            stored.add_done_callback(lambda done: self._acknowledge(done, inbound))
        elif isinstance(message, Cancel):
            # Behind the task itself, which may be on its way to the disk.
            turn = self.store.owe(self._timed(message.issued_at, lambda _: None), lane=inbound)
            turn.add_done_callback(lambda done: self._cancel(done, inbound, message))
        else:
            # No age is too old, because the newest order holds; one from the future would hold for ever.
            if self.settings.trust.require_signatures:
                self.time.refuse_future(message.issued_at)
            self._drain(inbound, message)

    def _cancel(self, done: asyncio.Future[None], inbound: Inbound, message: Cancel) -> None:
        if not self._acknowledge(done, inbound):
            return
        key = message.id, message.attempt
        if (job := self.executor.jobs.get(key)) is not None:
            self.executor.end(job, BY_THE_FLEET)
            return
        # A broker keeps the order within a topic only: the task may be behind its cancel.
        self._cancelled_early[key] = None
        while len(self._cancelled_early) > EARLY_CANCELS_KEPT:
            del self._cancelled_early[next(iter(self._cancelled_early))]

    def _drain(self, inbound: Inbound, message: Drain | Resume) -> None:
        kind: Literal["drain", "resume"] = "drain" if isinstance(message, Drain) else "resume"

        def record(ledger: Ledger) -> bool:
            ledger.facts.drain(kind, message.issued_at.timestamp())
            return ledger.facts.draining()

        def follow(done: asyncio.Future[bool]) -> None:
            if self._acknowledge(done, inbound):
                self.draining = done.result()
                self.guard.follow(replace(self.guard.orders, draining=self.draining))
                if self.draining:
                    self.executor.release_all(Reason.DRAINING, "the fleet has asked for a drain")

        change = self._timed(message.issued_at, record)
        self.store.owe(change, lane=inbound).add_done_callback(follow)

    def _acknowledge(self, done: asyncio.Future[Any], inbound: Inbound) -> bool:
        if done.cancelled():
            return False
        if isinstance(error := done.exception(), StoreClosed):
            return False  # not acknowledged: it comes again
        if error is not None:
            self.on_store_error(error)
            return False
        inbound.ack()
        return True


@dataclass(frozen=True, slots=True)
class _Offer:
    """A task on its way into the store. A repeat is recognised even where a new one would be refused."""

    new: NewTask
    objection: Refused | None

    def take(self, ledger: Ledger) -> Acceptance | Refused:
        objection = self.objection
        if objection is None and ledger.facts.draining():
            objection = Refused(Reason.DRAINING, "the fleet has asked for a drain")
        if objection is not None and ledger.task(self.new.id, self.new.attempt) is None:
            return objection
        return ledger.accept(self.new)


def _new_task(job: Job, body: bytes, received_ns: int) -> NewTask:
    return NewTask(
        id=job.task.id,
        attempt=job.task.attempt,
        digest=hashlib.sha256(body).digest(),
        body=body,
        rows_from=job.rows[0],
        rows_to=job.rows[1],
        received_ns=received_ns,
        received_at=utc_now().timestamp(),
        priority=job.task.priority,
        expires_at=job.task.expires_at.timestamp(),
        lease_s=job.task.lease_s,
        traceparent=job.traceparent,
    )


def _sender(body: bytes) -> _Sender | None:
    """Whom to tell of a refusal, where the message says so much."""
    try:
        told = _IDENTITY.decode(body.partition(b"\n")[0])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return _Sender((told.id, told.attempt), traceparent_of(told.parameters))
