"""A fleet at the level of the wire: it sees every message, and confirms results only if told to."""

import asyncio
import datetime as dt
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from nacl.signing import SigningKey

from agent.link import Inbound, Link, LinkOptions
from agent.protocol import framing, jws
from agent.protocol.messages import (
    Cancel,
    Datatype,
    Drain,
    Event,
    ModelFormat,
    ModelRef,
    Offline,
    Result,
    Resume,
    Settled,
    State,
    Task,
    TaskState,
    Tensor,
    TensorParameters,
)
from agent.protocol.topics import Topics

WITHIN_S = 30.0
NULL_MODEL = b"any bytes are a model to the null backend"
NULL_SHA256 = hashlib.sha256(NULL_MODEL).hexdigest()


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def task(task_id: str, count: int = 8, **changes: Any) -> tuple[Task, bytes]:
    """A task for the null backend: row r is 16 bytes of the value r. Returns it with its tail."""
    tail = b"".join(bytes([row % 256]) * 16 for row in range(count))
    fields: dict[str, Any] = {
        "id": task_id,
        "attempt": 1,
        "audience": "veh-1",
        "issued_at": now(),
        "expires_at": now() + dt.timedelta(minutes=5),
        "lease_s": 60.0,
        "model": ModelRef("null", "1", NULL_SHA256, ModelFormat.ONNX),
        "inputs": [Tensor("x", Datatype.UINT8, [count, 16], TensorParameters(binary_data_size=count * 16))],
    }
    return Task(**(fields | changes)), tail


@dataclass
class WireFleet:
    """What the fleet has heard, and a way to speak."""

    topics: Topics
    key: SigningKey | None = None
    settles: bool = True
    states: list[State | Offline] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    results: list[tuple[Result, bytes]] = field(default_factory=list)
    order: list[str] = field(default_factory=list)
    """Topics, as their messages came."""
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)
    _link: Link | None = None

    @property
    def link(self) -> Link:
        assert self._link is not None
        return self._link

    def publish(self, topic: str, body: bytes) -> "asyncio.Future[None]":
        return self.link.publish(topic, body if self.key is None else jws.sign(body, self.key, "fleet"))

    def send(self, offer: tuple[Task, bytes]) -> "asyncio.Future[None]":
        message, tail = offer
        return self.publish(self.topics.task, framing.encode(message, [tail] if tail else []))

    def control(self, message: Cancel | Drain | Resume | Settled) -> "asyncio.Future[None]":
        return self.publish(self.topics.control, framing.encode(message))

    def rows(self, task_id: str) -> list[tuple[int, int]]:
        """Row ranges answered so far, in the order in which they came; repeats included."""
        return [result.rows for result, _ in self.results if result.id == task_id]

    def rows_done(self, task_id: str) -> int:
        """Rows answered so far. Of an event and a result either may come first: they are of two topics."""
        return sum(end - begin for begin, end in self.rows(task_id))

    def states_of(self, task_id: str) -> list[TaskState]:
        return [event.state for event in self.events if event.id == task_id]

    def event(self, task_id: str, state: TaskState) -> Event | None:
        return next((event for event in self.events if event.id == task_id and event.state is state), None)

    def is_final(self, task_id: str) -> bool:
        return any(result.final for result, _ in self.results if result.id == task_id)

    def last_state(self) -> State | None:
        return next((state for state in reversed(self.states) if isinstance(state, State)), None)

    async def until(self, holds: Callable[[], Any], what: str) -> None:
        async with self._news:
            try:
                await asyncio.wait_for(self._news.wait_for(holds), WITHIN_S)
            except TimeoutError:
                raise AssertionError(
                    f"not within {WITHIN_S} s: {what}; {self.events[-5:]} {self.states[-2:]}"
                ) from None

    async def heard_event(self, task_id: str, state: TaskState) -> Event:
        await self.until(lambda: self.event(task_id, state), f"{task_id} {state.value}")
        event = self.event(task_id, state)
        assert event is not None
        return event

    def hear(self, inbound: Inbound) -> None:
        inbound.ack()
        self.order.append(inbound.topic)
        if inbound.topic == self.topics.state:
            self.states.append(framing.decode_state(inbound.payload))
        elif inbound.topic == self.topics.event:
            self.events.append(framing.decode_event(inbound.payload))
        else:
            result, tail = framing.decode_result(inbound.payload)
            self.results.append((result, bytes(tail)))
            if self.settles:
                self.settle(result)
        asyncio.get_running_loop().create_task(self._tell())

    def settle(self, result: Result) -> None:
        self.control(Settled(self.topics.vehicle, now(), [(result.id, result.attempt, *result.rows)]))

    async def _tell(self) -> None:
        async with self._news:
            self._news.notify_all()


@asynccontextmanager
async def wire_fleet(
    port: int, topics: Topics, *, key: SigningKey | None = None, settles: bool = True
) -> AsyncIterator[WireFleet]:
    fleet = WireFleet(topics, key, settles)
    up = asyncio.Event()
    fleet._link = Link(
        LinkOptions(
            host="127.0.0.1",
            port=port,
            client_id="fleet",
            subscriptions=(topics.state, topics.event, topics.result),
            want_retained=True,
        ),
        on_message=fleet.hear,
        on_up=lambda _: up.set(),
    )
    running = asyncio.create_task(fleet._link.run(), name="wire-fleet")
    try:
        await asyncio.wait_for(up.wait(), WITHIN_S)
        yield fleet
    finally:
        await fleet._link.close()
        await running
