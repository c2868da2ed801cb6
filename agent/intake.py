"""What comes from the fleet: verified before it is parsed, on disk before it is acknowledged, then answered."""

import asyncio
import datetime as dt
import hashlib
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

import msgspec

from agent.admission import Circumstances, admit
from agent.executor import Executor
from agent.guard import Guard
from agent.job import NS, Ending, Job, Key
from agent.link import Inbound
from agent.protocol import framing, jws, tensors
from agent.protocol.messages import Attempt, Cancel, Control, Drain, Id, Resume, Settled, TaskState
from agent.protocol.reasons import Reason, Refused
from agent.protocol.topics import Topics
from agent.reports import Reports, utc_now
from agent.settings import Settings
from agent.stays import Stays
from agent.store import Acceptance, Ledger, NewTask, Outcome, Store, StoreFull, TaskRow
from firmware_shims.clock import Clock

log = logging.getLogger(__name__)
BY_THE_FLEET: Final = Ending(TaskState.CANCELLED, Reason.CANCELLED, "by the fleet")
EARLY_CANCELS_KEPT: Final = 1024


class _Identity(msgspec.Struct):
    """As much of a task that cannot be read as its refusal needs."""

    id: Id
    attempt: Attempt = 1


_IDENTITY = msgspec.json.Decoder(_Identity)


@dataclass(slots=True)
class Intake:
    """Handles the vehicle's two incoming topics. Every message ends acknowledged, whatever it was."""

    settings: Settings
    topics: Topics
    verifier: jws.Verifier
    store: Store
    executor: Executor
    reports: Reports
    guard: Guard
    stays: Stays
    clock: Clock
    on_store_error: Callable[[BaseException], None]
    draining: bool = False
    time_floor_s: float = 0.0
    """Unix seconds: the newest time in a trusted signed message. A car wakes with a wrong clock."""
    refused: Counter[str] = field(default_factory=Counter)
    _arrivals: int = 0
    _arriving: dict[Key, Job] = field(default_factory=dict)
    """Jobs on their way to the disk."""
    _cancelled_early: dict[Key, None] = field(default_factory=dict)
    """Cancels of what has not come, or has ended; in the order in which they came."""

    async def restore(self) -> None:
        """Take up what an earlier start left: the drain that holds, and the time floor."""
        self.draining, self.time_floor_s = await self.store.run(
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
            self._refuse(inbound, refused)
            inbound.ack()

    def _trusted(self, inbound: Inbound) -> bytes:
        """Return the signed bytes; raises Refused before anything in them is parsed."""
        if inbound.retain:
            raise Refused(Reason.MALFORMED, "a retained message is not taken: publish without retain")
        signature, body = jws.split(inbound.payload)
        if signature is not None:
            self.verifier.verify(signature, body)
        elif self.settings.trust.require_signatures:
            raise Refused(Reason.BAD_SIGNATURE, "the message is not signed")
        return body

    def _refuse(self, inbound: Inbound, refused: Refused, key: Key | None = None) -> None:
        self.refused[refused.reason.label] += 1
        log.warning("refused a message on %s: %s", inbound.topic, refused)
        if key is not None:
            self.reports.rejected(key, Ending(TaskState.REJECTED, refused.reason, refused.text))

    # Tasks

    def _task(self, inbound: Inbound, body: bytes) -> None:
        received_ns = self.clock()
        try:
            self._check_size(body)
            task, tail = framing.decode_task(body)
            begin, end, total = tensors.rows_of(task)
            inputs = tensors.unpack(task.inputs, tail)
        except Refused as refused:
            self._refuse(inbound, refused, _identity(body))
            inbound.ack()
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
        offer = _Offer(
            _new_task(job, body, received_ns), self._objection(job), self._signed_at(task.issued_at)
        )
        self._arriving[job.key] = job
        self.store.run(offer.take).add_done_callback(lambda done: self._taken(done, inbound, job))

    def _check_size(self, body: bytes) -> None:
        limit = self.settings.mqtt.max_payload_bytes
        if len(body) > limit:
            raise Refused(Reason.TOO_LARGE, f"the body has {len(body)} bytes, max_payload_bytes is {limit}")

    def _signed_at(self, issued_at: dt.datetime) -> float | None:
        """Unix seconds that can be trusted: a signature stood over them."""
        return issued_at.timestamp() if self.settings.trust.require_signatures else None

    def _objection(self, job: Job) -> Refused | None:
        others = [
            other
            for jobs in (self.executor.jobs, self._arriving)
            for key, other in jobs.items()
            if key[0] != job.task.id
        ]
        now_s = max(utc_now().timestamp(), self.time_floor_s)
        circumstances = Circumstances(
            settings=self.settings,
            energy_source=self.executor.runs.energy.source,
            now=dt.datetime.fromtimestamp(now_s, dt.UTC),
            open_tasks=len(others),
            open_bytes=sum(other.nbytes for other in others),
            queued_s=self.executor.queued_s,
            task_bytes=job.nbytes,
            row_s=self.executor.row_s(job),
            kills_workers=self.executor.killers.refused(job.task.model.sha256),
            stays_for=self.stays.likely,
        )
        try:
            admit(job.task, circumstances)
        except Refused as refused:
            return refused
        return None

    def _taken(self, done: asyncio.Future[Acceptance | Refused], inbound: Inbound, job: Job) -> None:
        """Acknowledge and answer a task that the store has decided on."""
        self._arriving.pop(job.key, None)
        if done.cancelled():
            return
        if isinstance(full := done.exception(), StoreFull):
            inbound.ack()
            self._refuse(inbound, Refused(Reason.STORE_FULL, str(full)), job.key)
            return
        if (error := done.exception()) is not None:
            self.on_store_error(error)
            return
        inbound.ack()
        if (signed_at := self._signed_at(job.task.issued_at)) is not None:
            self.time_floor_s = max(self.time_floor_s, signed_at)
        decided = done.result()
        if isinstance(decided, Refused):
            self._refuse(inbound, decided, job.key)
        elif decided.outcome is Outcome.REPEAT:
            self._answer_again(job.key, decided.task)
        elif decided.outcome is Outcome.CONFLICT:
            self._refuse(
                inbound, Refused(Reason.REPLAYED, "other bytes came under this id and attempt"), job.key
            )
        elif decided.outcome is Outcome.STALE:
            newer = f"attempt {decided.task.attempt} of this task is known"
            self._refuse(inbound, Refused(Reason.STALE_ATTEMPT, newer), job.key)
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
        """A true repeat runs once; it is answered with the present state."""
        job = self.executor.jobs.get(key)
        if job is not None:
            self.reports.event(job)
        elif not row.state.is_open:
            self.reports.ended_before(row)

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
            stored = self.store.run(lambda ledger: ledger.settle(message.results))
            stored.add_done_callback(lambda done: self._acknowledge(done, inbound))
        elif isinstance(message, Cancel):
            # Behind the task itself, which may be on its way to the disk.
            turn = self.store.run(lambda _: None)
            turn.add_done_callback(lambda done: self._cancel(done, inbound, message))
        else:
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

        self.store.run(record).add_done_callback(follow)

    def _acknowledge(self, done: asyncio.Future[Any], inbound: Inbound) -> bool:
        if done.cancelled():
            return False
        if (error := done.exception()) is not None:
            self.on_store_error(error)
            return False
        inbound.ack()
        return True


@dataclass(frozen=True, slots=True)
class _Offer:
    """A task on its way into the store. A repeat is recognised even where a new one would be refused."""

    new: NewTask
    objection: Refused | None
    signed_at: float | None

    def take(self, ledger: Ledger) -> Acceptance | Refused:
        if self.signed_at is not None:
            ledger.facts.raise_time_floor(self.signed_at)
        if ledger.task(self.new.id, self.new.attempt) is None:
            if self.objection is not None:
                return self.objection
            if ledger.facts.draining():
                return Refused(Reason.DRAINING, "the fleet has asked for a drain")
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
    )


def _identity(body: bytes) -> Key | None:
    """Whom to tell of a refusal, where the message says so much."""
    try:
        told = _IDENTITY.decode(body.partition(b"\n")[0])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return told.id, told.attempt
