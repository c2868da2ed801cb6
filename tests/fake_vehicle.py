"""A vehicle for tests of the fleet's side: it speaks the wire contract over a real broker and does what it is told.

Its model adds one: output `y` is input `x` + 1, row by row, INT32.
"""

import asyncio
import contextlib
import datetime as dt
import struct
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Self

import msgspec

from agent.link import Inbound, Link, LinkDown, LinkOptions, Retry
from agent.protocol import framing, jws, tensors
from agent.protocol.messages import (
    Cancel,
    Control,
    Datatype,
    EnergySource,
    Event,
    Mode,
    ModelFormat,
    ModelRef,
    Offline,
    OpenTask,
    ReasonInfo,
    Result,
    Settled,
    State,
    Task,
    TaskState,
    Tensor,
    TensorParameters,
    Usage,
)
from agent.protocol.reasons import Reason
from agent.protocol.topics import Topics
from fleet.client import Input

MODEL = ModelRef("plus-one", "1", "0" * 64, ModelFormat.ONNX)
WITHIN_S = 30.0


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def numbers(values: range) -> Input:
    """One row for each of the values."""
    return Input("x", Datatype.INT32, [len(values), 1], struct.pack(f"<{len(values)}i", *values))


def read_numbers(data: bytes) -> list[int]:
    return list(struct.unpack(f"<{len(data) // 4}i", data))


async def until(holds: Callable[[], object], what: str) -> None:
    """Wait until it holds; the message says what did not happen."""
    try:
        async with asyncio.timeout(WITHIN_S):
            while not holds():
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"not within {WITHIN_S:g} s: {what}") from None


@dataclass(frozen=True)
class Assigned:
    """A task as it arrived."""

    task: Task
    tail: memoryview
    payload: bytes

    @property
    def rows(self) -> tuple[int, int]:
        begin, end, _ = tensors.rows_of(self.task)
        return begin, end


@dataclass
class FakeVehicle:
    """For `async with`. `on_task` is what it does with a task: by default it answers every row."""

    port: int
    id: str = "veh-0001"
    boot: int = 1
    verifier: jws.Verifier | None = None
    on_task: Callable[["FakeVehicle", Assigned], None] = field(default=lambda self, got: self.answer(got))
    portrait: dict[str, Any] = field(default_factory=dict)
    """What its state says otherwise than it would."""
    state_seq: int = 0
    """Of the state that it published last."""
    tasks: list[Assigned] = field(default_factory=list)
    controls: list[Control] = field(default_factory=list)
    signed_by: set[str | None] = field(default_factory=set)
    topics: Topics = field(init=False)
    link: Link = field(init=False)
    _early: list[Assigned] = field(default_factory=list)
    """Tasks of a resumed session: they come before this vehicle can say anything."""
    _seq: int = 0
    _up: asyncio.Event = field(default_factory=asyncio.Event)
    _running: asyncio.Task[None] | None = None

    def __post_init__(self) -> None:
        self.topics = Topics("fleet/v1", "BR", self.id)
        self.link = Link(
            LinkOptions(
                host="127.0.0.1",
                port=self.port,
                client_id=self.id,
                subscriptions=(self.topics.task, self.topics.control),
            ),
            on_message=self._take,
            on_up=self._on_up,
            retry=Retry(cap_s=0.1),
        )

    async def __aenter__(self) -> Self:
        self._running = asyncio.create_task(self.link.run(), name=f"fake-{self.id}")
        async with asyncio.timeout(WITHIN_S):
            await self._up.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.link.close()
        assert self._running is not None
        await self._running

    # What it has been told

    @property
    def settled(self) -> list[tuple[str, int, int, int]]:
        return [one for said in self.controls if isinstance(said, Settled) for one in said.results]

    @property
    def cancelled(self) -> list[tuple[str, int]]:
        return [(said.id, said.attempt) for said in self.controls if isinstance(said, Cancel)]

    async def nth(self, number: int) -> Assigned:
        """The task that came as number 1, 2, ... ."""
        await until(lambda: len(self.tasks) >= number, f"task number {number} comes to {self.id}")
        return self.tasks[number - 1]

    def _take(self, inbound: Inbound) -> None:
        line, body = jws.split(inbound.payload)
        if self.verifier is not None:
            assert line is not None, "unsigned"
            self.signed_by.add(self.verifier.verify(line, body))
        inbound.ack()
        if inbound.topic == self.topics.control:
            self.controls.append(framing.decode_control(body))
            return
        task, tail = framing.decode_task(body)
        self.tasks.append(Assigned(task, tail, inbound.payload))
        if self.link.up:
            self.on_task(self, self.tasks[-1])
        else:
            self._early.append(self.tasks[-1])

    def _on_up(self, _session_present: bool) -> None:
        if self._up.is_set():
            self.publish_state()
        self._up.set()
        early, self._early = self._early, []
        for got in early:
            self.on_task(self, got)

    # What it does

    def answer(self, got: Assigned) -> None:
        """Accept and answer every row that was asked for."""
        self.say(got, TaskState.ACCEPTED)
        self.give(got, *got.rows, final=True)

    def say(
        self,
        got: Assigned,
        state: TaskState,
        code: Reason | None = None,
        text: str = "",
        resume_at: dt.datetime | None = None,
    ) -> None:
        begin, end = got.rows
        reason = None if code is None else ReasonInfo.of(code, text, resume_at)
        self._seq += 1
        event = Event(
            got.task.id, got.task.attempt, state, now(), self.boot, self._seq, 0, end - begin, reason
        )
        self._publish(self.topics.event, framing.encode(event))

    def give(self, got: Assigned, begin: int, end: int, *, final: bool = False) -> None:
        """Give rows `[begin, end)`, 2 J each."""
        values = read_numbers(bytes(got.tail))[begin:end]
        data = struct.pack(f"<{len(values)}i", *(value + 1 for value in values))
        output = Tensor("y", Datatype.INT32, [end - begin, 1], TensorParameters(len(data)))
        usage = Usage(
            0.01, 0.01 * (end - begin), 2.0 * (end - begin), EnergySource.MODEL, 0.0, "fake", "fake0"
        )
        self.give_raw(
            Result(got.task.id, got.task.attempt, "plus-one", "1", (begin, end), final, [output], usage), data
        )

    def give_raw(self, result: Result, *tails: bytes) -> None:
        self._seq += 1
        self._publish(self.topics.result, framing.encode(result, tails))

    def publish_state(self, *open_tasks: OpenTask, mode: Mode = Mode.READY) -> None:
        self._seq = self.state_seq = self._seq + 1
        state = State(
            vehicle=self.id,
            region="BR",
            boot=self.boot,
            seq=self._seq,
            online=True,
            at=now(),
            mode=mode,
            blockers=[],
            budget_w=60,
            expected_s=None,
            backends=[],
            models=[],
            open=list(open_tasks),
            version="0",
        )
        state = msgspec.structs.replace(state, **self.portrait)
        self._publish(self.topics.state, framing.encode(state), retain=True)

    def publish_death(self, boot: int) -> None:
        self._publish(self.topics.state, framing.encode(Offline(self.id, boot)), retain=True)

    def publish_bytes(self, topic: str, payload: bytes) -> None:
        self._publish(topic, payload)

    def reboot(self) -> None:
        """Come back with a new boot and without its memory."""
        self.boot += 1
        self._seq = 0
        self.publish_state()

    def _publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        with contextlib.suppress(LinkDown):  # a broker that is away: what this vehicle says now is lost
            self.link.publish(topic, payload, retain=retain)


def accept(car: FakeVehicle, got: Assigned) -> None:
    """Take a task, and leave the rest to the test."""
    car.say(got, TaskState.ACCEPTED)


def say_nothing(_car: FakeVehicle, _got: Assigned) -> None:
    """Leave everything to the test."""


@contextlib.asynccontextmanager
async def vehicles(port: int, *ids: str) -> AsyncIterator[list[FakeVehicle]]:
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(FakeVehicle(port, one)) for one in ids]
