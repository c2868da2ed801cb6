import asyncio
import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Unpack

from agent.link import LinkDown, PublishRefused, TooLarge
from agent.protocol import framing
from agent.protocol.messages import Cancel, Event, ModelRef, Offline, Settled, State, Task
from agent.protocol.reasons import Reason, Refused
from agent.protocol.topics import Topics
from fleet.answer import Answer, Rows, TaskFailed, rows_of
from fleet.confirmations import Confirmations, Settlement
from fleet.offer import NS, Offer, Surroundings
from fleet.patience import Patience
from fleet.sender import Sender
from fleet.work import Input, Terms, Work

NEVER_NS: Final = 2**63


class FleetClosed(Exception):  # noqa: N818 - says what happened, not that somebody erred
    """The client was closed while a task was open; its results will be confirmed by the next client."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """What every vehicle of one client shares."""

    sender: Sender
    patience: Patience
    outstanding: int
    """Tasks that a vehicle is given at a time; the others wait here."""
    max_payload_bytes: int
    clock: Callable[[], int]
    utc_now: Callable[[], dt.datetime]
    jitter: Callable[[], float]
    new_id: Callable[[], str]
    settle_soon: "Callable[[Vehicle], None]"
    keep: "Callable[[Vehicle, str, Rows], asyncio.Future[Any] | None]"
    """Has rows put on a disk before they are confirmed; None where nobody keeps them."""


@dataclass(slots=True)
class _Waiter:
    predicate: Callable[[State | Offline], bool]
    met: asyncio.Future[State | Offline] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Vehicle:
    """One vehicle of the fleet, from `FleetClient.vehicle`: what it says of itself, and the tasks it is given."""

    def __init__(self, topics: Topics, desk: Desk) -> None:
        self.id = topics.vehicle
        self.region = topics.region
        """Leads to its topics; where it is, its state says."""
        self.base = topics.base
        self.state: State | Offline | None = None
        """What it published last; None before the first word. The death of another boot is ignored."""
        self.look_at_ns = NEVER_NS
        """No open offer has to be looked at before."""
        self._task_topic = topics.task
        self._control_topic = topics.control
        self._desk = desk
        self._waiters: list[_Waiter] = []
        self._waiting: dict[str, Offer] = {}
        self._open: dict[str, Offer] = {}
        self._pumping = False
        self._may_have_missed = True
        """Whether the broker may have dropped tasks: it keeps none for a vehicle that it does not know (any more)."""
        self._say_again_at_ns = NEVER_NS
        self._confirmations = Confirmations(desk.max_payload_bytes)
        self._acks: list[Callable[[], None]] = []
        """Of kept results whose confirmation is not said yet."""
        self._around = Surroundings(
            patience=desk.patience,
            clock=desk.clock,
            utc_now=desk.utc_now,
            jitter=desk.jitter,
            on_end=self._on_end,
        )

    @property
    def offers(self) -> Sequence[Offer]:
        """The tasks that it has, or has to be given again; not those that wait for their first time."""
        return list(self._open.values())

    async def wait_for(
        self, predicate: Callable[[State | Offline], bool], within_s: float
    ) -> State | Offline:
        """Its state as soon as that fulfils `predicate`; TimeoutError after `within_s` seconds."""
        if self.state is not None and predicate(self.state):
            return self.state
        waiter = _Waiter(predicate)
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(within_s):
                return await waiter.met
        except TimeoutError:
            seen = "published nothing" if self.state is None else f"last published {self.state}"
            raise TimeoutError(f"vehicle {self.id} {seen} within {within_s:g} s") from None
        finally:
            self._waiters.remove(waiter)

    async def submit(
        self,
        model: ModelRef,
        inputs: Sequence[Input],
        *,
        id: str | None = None,  # noqa: A002 - the wire contract's name
        attempt: int = 1,
        **terms: Unpack[Terms],
    ) -> Answer:
        """Publish a task and wait for all of its rows; see `Offer.answer` for what it raises.

        Cancelling the call cancels the task. `id` is made here where none is given; an id that this
        vehicle has had before needs a higher first `attempt`. `terms` are those of `Work`.
        """
        offer = self.offer(model, inputs, id=id, attempt=attempt, **terms)
        try:
            return await offer.answer()
        finally:
            offer.cancel()

    def offer(
        self,
        model: ModelRef,
        inputs: Sequence[Input],
        *,
        id: str | None = None,  # noqa: A002 - as above
        attempt: int = 1,
        **terms: Unpack[Terms],
    ) -> Offer:
        """Publish a task, now or when the vehicle has room for it, and return at once.

        Raises TaskFailed (102) for inputs that do not have the same rows, and ValueError for an open task's id.
        """
        task_id = id or self._desk.new_id()
        if task_id in self._open or task_id in self._waiting:
            raise ValueError(f"task {task_id} is open already: choose another id")
        try:
            offer = Offer(task_id, Work(model, inputs, **terms), attempt, self._around)
        except Refused as refused:
            raise TaskFailed(refused.reason, refused.text) from None
        self._waiting[task_id] = offer
        self._pump()
        return offer

    def assign(self, task: Task, work: Work, body: bytes) -> Offer:
        """Give it this one attempt, `body` byte for byte: said a second time, it is run once all the same.

        `work` is what `task` asks for. The attempt is not repeated here: when it is over without all rows,
        the offer ends with `GivenBack`. Raises ValueError for an open task's id.
        """
        if task.id in self._open or task.id in self._waiting:
            raise ValueError(f"task {task.id} is open at vehicle {self.id} already")
        self._waiting[task.id] = offer = Offer(task.id, work, task.attempt, self._around, only=body)
        self._pump()
        return offer

    def call_off(self, task_id: str, attempt: int) -> None:
        """Tell it to end an attempt whose rows are not wanted any more."""
        self._say(Cancel(self.id, self._desk.utc_now(), task_id, attempt))

    # What it says

    def take_state(self, body: bytes) -> None:
        """Follow its state; raises `Refused` (100)."""
        state = framing.decode_state(body)
        if isinstance(state, Offline) and self.state is not None and state.boot != self.state.boot:
            return
        self.state = state
        if isinstance(state, State):
            attempts = {task.id: task.attempt for task in state.open}
            for offer in self._open.values():
                offer.reconcile(state.boot, attempts.get(offer.id))
                self._watch(offer)
            self._watch_for_what_it_missed()
        for waiter in self._waiters:
            if not waiter.met.done() and waiter.predicate(state):
                waiter.met.set_result(state)

    def take_event(self, body: bytes) -> None:
        """Follow one of its tasks; raises `Refused` (100)."""
        event: Event = framing.decode_event(body)
        offer = self._open.get(event.id)
        if offer is not None:
            offer.take_event(event)
            self._watch(offer)

    def take_result(self, body: bytes, ack: Callable[[], None]) -> None:
        """Take rows, and confirm every result, wanted or not; raises `Refused` (100).

        Where somebody keeps the rows, the confirmation waits for that, and `ack`, which lets the broker forget the
        message, for the confirmation.
        """
        result, tail = framing.decode_result(body)
        offer = self._open.get(result.id)
        settlement = (result.id, result.attempt, *result.rows)
        kept = None
        try:
            rows = rows_of(result, tail)
        except Refused as refused:
            if offer is not None:
                offer.fail(TaskFailed(refused.reason, refused.text, offer.rows_done))
        else:
            kept = self._desk.keep(self, result.id, rows)
            if offer is not None:
                offer.take_rows(rows, final=result.final)
        if kept is None:
            self._confirm(settlement)
            ack()
        else:
            kept.add_done_callback(partial(self._kept, settlement, ack))

    # What the client makes it do

    def settle(self) -> None:
        """Confirm the results that were taken, and let the broker forget those that are kept.

        In this order, so that a death in between costs no confirmation. The broker's answer is not waited for:
        it may not be read before there are acknowledgements (`agent.link` stops reading when too many are due).
        """
        for batch in self._confirmations.take():
            self._say(Settled(self.id, self._desk.utc_now(), batch))
        acks, self._acks = self._acks, []
        for ack in acks:
            ack()

    def resume(self, *, broker_forgot: bool) -> None:
        """Go on after our own link was down: say again what may not have arrived."""
        self._may_have_missed |= broker_forgot
        for offer in self.offers:
            offer.link_came_back()
            if offer.attempt.body and not offer.attempt.reached_broker:
                self._send(offer)

    def look(self) -> None:
        """Look after the offers whose time has come; only while the link is up."""
        now_ns = self._desk.clock()
        if now_ns >= self._say_again_at_ns:
            self._say_again()
        self.look_at_ns = self._say_again_at_ns
        for offer in self.offers:
            if offer.due_ns <= now_ns and offer.fall_due(vehicle_away=isinstance(self.state, Offline)):
                self._publish(offer)
            self._watch(offer)

    def abandon(self, error: Exception) -> None:
        """End everything without telling the vehicle: this client stops."""
        offers = [*self._waiting.values(), *self._open.values()]
        self._waiting.clear()
        for offer in offers:
            offer.attempt.out = False
            offer.fail(error)
        for waiter in self._waiters:
            if not waiter.met.done():
                waiter.met.set_exception(error)

    def _watch_for_what_it_missed(self) -> None:
        """The vehicle is there: tasks that it does not speak of within a moment may never have reached it."""
        if self._may_have_missed:
            self._may_have_missed = False
            self._say_again_at_ns = self._desk.clock() + int(self._desk.patience.first_word_s * NS)
            self.look_at_ns = min(self.look_at_ns, self._say_again_at_ns)

    def _say_again(self) -> None:
        """Repeat what it has not spoken of, byte for byte: what it has had already it runs once."""
        self._say_again_at_ns = NEVER_NS
        for offer in self.offers:
            if offer.attempt.body:
                self._send(offer)

    def _watch(self, offer: Offer) -> None:
        if not offer.ended:
            self.look_at_ns = min(self.look_at_ns, offer.due_ns)

    def _pump(self) -> None:
        """Publish waiting tasks while there is room. One that fails at once makes room for the next."""
        if self._pumping:
            return
        self._pumping = True
        try:
            while self._waiting and len(self._open) < self._desk.outstanding:
                task_id = next(iter(self._waiting))
                offer = self._open[task_id] = self._waiting.pop(task_id)
                offer.expires_at = self._desk.utc_now() + dt.timedelta(seconds=offer.work.expires_s)
                margin_s = self._desk.patience.lease_margin_s
                offer.deadline_ns = self._desk.clock() + int((offer.work.expires_s + margin_s) * NS)
                self._publish(offer)
        finally:
            self._pumping = False

    def _publish(self, offer: Offer) -> None:
        """Publish the next attempt, for the rows that are missing."""
        try:
            body = offer.only or self._body(offer)
            self._check_size(body)
        except Refused as refused:
            offer.fail(TaskFailed(refused.reason, refused.text, offer.rows_done))
            return
        offer.published(self._desk.sender.signed(body))
        self._watch(offer)
        self._send(offer)

    def _body(self, offer: Offer) -> bytes:
        coverage = offer.delivery.coverage
        task = offer.work.task(
            offer.id,
            offer.attempt.number + 1,
            self.id,
            issued_at=self._desk.utc_now(),
            expires_at=offer.expires_at,
            rows=coverage.hull if coverage.rows_done else None,
        )
        return offer.work.body(task)

    def _check_size(self, body: bytes) -> None:
        limit_bytes = self._desk.max_payload_bytes
        if len(body) > limit_bytes:
            text = f"the task has {len(body)} bytes, a message holds {limit_bytes}: send fewer rows at a time"
            raise Refused(Reason.TOO_LARGE, text)

    def _send(self, offer: Offer) -> None:
        """Send the present attempt; what the link does not take is sent when it is up again."""
        attempt = offer.attempt

        def sent(answer: asyncio.Future[None]) -> None:
            error = answer.exception()
            attempt.reached_broker = error is None
            if isinstance(error, PublishRefused) and offer.attempt is attempt:
                attempt.out = False
                offer.fail(error)

        try:
            self._desk.sender.publish(self._task_topic, attempt.body).add_done_callback(sent)
        except LinkDown:
            attempt.reached_broker = False
        except TooLarge as error:
            attempt.out = False
            offer.fail(TaskFailed(Reason.TOO_LARGE, str(error), offer.rows_done))

    def _on_end(self, offer: Offer) -> None:
        self._waiting.pop(offer.id, None)
        self._open.pop(offer.id, None)
        if offer.attempt.out:
            self.call_off(offer.id, offer.attempt.number)
        self._pump()

    def _confirm(self, settlement: Settlement) -> None:
        if not self._confirmations:
            self._desk.settle_soon(self)
        self._confirmations.add(settlement)

    def _kept(self, settlement: Settlement, ack: Callable[[], None], kept: asyncio.Future[Any]) -> None:
        if kept.cancelled() or kept.exception() is not None:
            return  # whoever keeps the rows answers for it; the result stays where it is
        self._confirm(settlement)
        self._acks.append(ack)

    def _say(self, control: Cancel | Settled) -> None:
        self._desk.sender.say(self._control_topic, framing.encode(control))
