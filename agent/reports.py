"""Everything that the agent says to its fleet: state, events and results, numbered by one sequence a boot."""

import asyncio
import datetime as dt
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from agent.job import Ending, Job, Key
from agent.link import Hints, Link, LinkDown, PublishRefused, TooLarge
from agent.protocol import framing
from agent.protocol.messages import Event, Offline, ReasonInfo, State, TaskState
from agent.protocol.reasons import Reason
from agent.protocol.topics import Topics
from agent.protocol.trace import carried
from agent.store import TaskRow
from firmware_shims.clock import Clock

log = logging.getLogger(__name__)
STATE_INTERVAL_S = 1.0
HINTS = Hints(content_type=framing.CONTENT_TYPE)


def utc_now() -> dt.datetime:
    """Return the wall clock in UTC."""
    return dt.datetime.now(dt.UTC)


@dataclass(slots=True)
class Reports:
    """Publishes on the vehicle's own three topics. What the link cannot take now is said again after a reconnect."""

    link: Link
    topics: Topics
    boot: int
    clock: Clock
    describe: Callable[[int], State]
    """Builds the state message for a sequence number."""
    on_preempted: Callable[[Reason, int], None] = lambda _reason, _sent_ns: None
    """Called when the event that a task was preempted has gone out, with its stamp of `clock`."""
    _seq: int = 0
    _state_at: float = field(default=-STATE_INTERVAL_S)
    _state_timer: asyncio.TimerHandle | None = None
    _forbidden: set[str] = field(default_factory=set)
    """Topics on which the broker refused the last message; each is complained of once."""

    def event(self, job: Job, ending: Ending | None = None) -> asyncio.Future[None] | None:
        """Say the state of a job; a positive answer renews its lease. None while the link is down."""
        said = ending or Ending(job.state, None)
        answer = self._send(
            self.topics.event, self._event(job.key, said, (job.done, job.asked), job.traceparent), job
        )
        if answer is not None and said.state is TaskState.PREEMPTED and said.code is not None:
            self.on_preempted(said.code, self.clock())
        return answer

    def rejected(
        self, key: Key, ending: Ending, traceparent: str | None = None
    ) -> asyncio.Future[None] | None:
        """Say that a task was not taken."""
        return self._send(self.topics.event, self._event(key, ending, (0, 0), traceparent), None)

    def ended_before(self, row: TaskRow, ending: Ending | None = None) -> asyncio.Future[None] | None:
        """Say how a task ended that only the store still knows; without `ending` as it is recorded there."""
        if ending is None:
            code = None if row.reason_code is None else Reason(row.reason_code)
            ending = Ending(row.state, code, row.reason_text)
        rows = row.rows_answered or 0, row.rows_to - row.rows_from
        event = self._event((row.id, row.attempt), ending, rows, row.traceparent)
        return self._send(self.topics.event, event, None)

    def result(self, body: bytes, job: Job | None = None) -> asyncio.Future[None] | None:
        """Send a result; for a job that is still open a positive answer renews its lease."""
        self._next_seq()
        return self._send(self.topics.result, body, job)

    def state_changed(self) -> None:
        """Publish the state now, or at the end of the running second."""
        loop = asyncio.get_running_loop()
        if self._state_timer is not None:
            return
        wait_s = self._state_at + STATE_INTERVAL_S - loop.time()
        if wait_s <= 0:
            self.state()
        else:
            self._state_timer = loop.call_later(wait_s, self.state)

    def state(self) -> asyncio.Future[None] | None:
        """Publish the retained state."""
        if self._state_timer is not None:
            self._state_timer.cancel()
            self._state_timer = None
        self._state_at = asyncio.get_running_loop().time()
        message = self.describe(self._next_seq())
        return self._send(self.topics.state, framing.encode(message), None, retain=True)

    def offline(self) -> asyncio.Future[None] | None:
        """Publish the retained good-bye; nothing is said after it."""
        if self._state_timer is not None:
            self._state_timer.cancel()
        body = framing.encode(Offline(self.topics.vehicle, self.boot))
        return self._send(self.topics.state, body, None, retain=True)

    def _next_seq(self) -> int:
        self._seq += 1
        return self._seq

    def _event(self, key: Key, ending: Ending, rows: tuple[int, int], traceparent: str | None) -> bytes:
        """`rows`: how many are done, and how many there are."""
        task_id, attempt = key
        event = Event(
            id=task_id,
            attempt=attempt,
            state=ending.state,
            at=utc_now(),
            boot=self.boot,
            seq=self._next_seq(),
            rows_done=rows[0],
            rows_total=rows[1],
            reason=ReasonInfo.of(ending.code, ending.text, ending.resume_at) if ending.code else None,
            parameters=carried(traceparent),
        )
        return framing.encode(event)

    def _send(
        self, topic: str, body: bytes, job: Job | None, *, retain: bool = False
    ) -> asyncio.Future[None] | None:
        sent_ns = self.clock()
        try:
            answer = self.link.publish(topic, body, retain=retain, hints=HINTS)
        except (LinkDown, TooLarge) as error:
            log.debug("not sent: %s", error)
            return None
        if job is not None:
            job.said_ns = sent_ns
        answer.add_done_callback(lambda done: self._answered(done, job, sent_ns, topic))
        return answer

    def _answered(self, answer: asyncio.Future[None], job: Job | None, sent_ns: int, topic: str) -> None:
        """A negative answer or a lost link is not an error of ours: results and endings are said again."""
        if answer.cancelled():
            return
        error = answer.exception()
        if isinstance(error, PublishRefused):
            level = logging.INFO if topic in self._forbidden else logging.WARNING
            log.log(level, "%s; let this vehicle publish there, or correct vehicle.id or mqtt.root", error)
            self._forbidden.add(topic)
        elif error is not None:
            log.info("%s was not taken: %s", topic, error)
        else:
            self._forbidden.discard(topic)
            if job is not None:
                job.renew(sent_ns)
