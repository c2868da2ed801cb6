"""The library for fleet backends: publish a task to a vehicle, get every row of its answer exactly once.

async with FleetClient(LinkOptions(host="127.0.0.1", port=1883, client_id="fleet-1")) as fleet:
    answer = await fleet.vehicle("veh-0001", "BR").submit(model, [Input("x", Datatype.FP32, [8, 3], data)])
"""

import asyncio
import datetime as dt
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from agent.link import Inbound, Link, LinkOptions, LinkStatus, Retry
from agent.protocol.reasons import Refused
from agent.protocol.topics import Topics
from fleet.answer import Answer, Output, Rows, TaskFailed
from fleet.bookkeeper import Bookkeeper
from fleet.ids import RANDOM_BITS, sortable_id
from fleet.offer import Offer, OfferState
from fleet.patience import Patience
from fleet.sender import Sender
from fleet.vehicle import Desk, FleetClosed, Vehicle
from fleet.work import Input, InputsAt, Terms, Work

if TYPE_CHECKING:
    from nacl.signing import SigningKey

__all__ = [
    "Answer",
    "FleetClient",
    "FleetClosed",
    "Input",
    "InputsAt",
    "Offer",
    "OfferState",
    "Output",
    "Patience",
    "Rows",
    "TaskFailed",
    "Terms",
    "Vehicle",
    "Work",
]

TICK_S: Final = 0.05
GOODBYE_S: Final = 1.0
HEADROOM_BYTES: Final = 4096
"""What a packet may be larger than its body (the wire contract's)."""
KINDS: Final = ("state", "event", "result")

_log = logging.getLogger(__name__)


def utc_now() -> dt.datetime:
    """The wall clock in UTC."""
    return dt.datetime.now(dt.UTC)


class BrokerUnreachableError(TimeoutError):
    """There is no link yet. One line: why, and what to do."""


class FleetClient:
    """A connection to the vehicles of a fleet, for `async with`; it comes back by itself for ever.

    `options` say where the broker is, and the client id: one of its own for each process, for a broker throws out the
    client that was there under the same. With `vehicles`, (id, region) pairs, only these are subscribed to,
    else every vehicle below `root`. Tasks are signed with `key`, which vehicles know by the name `kid`.

    Every result that arrives is confirmed, also of tasks that this client does not know (those of its
    predecessor): rows are safe with the application once they have been delivered to it, and of two
    clients on the same vehicles each gets its own copy. While the link is down nothing is concluded: no
    lease runs out and no deadline passes.
    """

    def __init__(
        self,
        options: LinkOptions,
        *,
        root: str = "fleet/v1",
        vehicles: Sequence[tuple[str, str]] | None = None,
        key: "SigningKey | None" = None,
        kid: str = "fleet",
        outstanding: int = 64,
        patience: Patience | None = None,
        retry: Retry | None = None,
        clock: Callable[[], int] = time.monotonic_ns,
        utc_now: Callable[[], dt.datetime] = utc_now,
        rng: random.Random | None = None,
    ) -> None:
        rng = rng or random.SystemRandom()
        self._root = root
        self._where = f"{options.host}:{options.port}"
        self._clock = clock
        topics = [Topics(root, region, vehicle) for vehicle, region in vehicles or ()]
        bases = [topic.base for topic in topics] if vehicles is not None else [f"{root}/+/+"]
        subscriptions = tuple(f"{base}/{kind}" for base in bases for kind in KINDS)
        self._link = Link(
            replace(options, subscriptions=subscriptions, want_retained=True),
            on_message=self._on_message,
            on_up=self._on_up,
            retry=retry,
            clock=clock,
        )
        self._sender = Sender(self._link, key, kid)
        self.desk: Final = Desk(
            sender=self._sender,
            patience=patience or Patience(),
            outstanding=outstanding,
            max_payload_bytes=options.max_packet_bytes - HEADROOM_BYTES,
            clock=clock,
            utc_now=utc_now,
            jitter=rng.random,
            new_id=lambda: sortable_id(utc_now(), rng.getrandbits(RANDOM_BITS)),
            settle_soon=self._settle_soon,
            keep=self._keep,
        )
        self._bookkeeper: Bookkeeper | None = None
        self._vehicles: dict[str, Vehicle] = {topic.base: Vehicle(topic, self.desk) for topic in topics}
        self._unsettled: list[Vehicle] = []
        self._running: asyncio.Task[None] | None = None
        self._came_up = asyncio.Event()
        self._closing = False

    @property
    def status(self) -> LinkStatus:
        """Whether the link is up, and why not."""
        return self._link.status

    @property
    def vehicles(self) -> Mapping[str, Vehicle]:
        """Every vehicle that was named or has published something, by its topics' prefix."""
        return self._vehicles

    def vehicle(self, vehicle_id: str, region: str) -> Vehicle:
        """The vehicle; `region` is an ISO 3166-1 country or its subdivision, `BR` or `BR-SP`."""
        topics = Topics(self._root, region, vehicle_id)
        return self._vehicles.setdefault(topics.base, Vehicle(topics, self.desk))

    def keep_with(self, bookkeeper: Bookkeeper) -> None:
        """Have `bookkeeper` keep every result before it is confirmed; to be said before the client is entered."""
        if self._running is not None:
            raise RuntimeError("the fleet client runs already: it may have confirmed what nobody has kept")
        self._bookkeeper = bookkeeper

    async def until_up(self, within_s: float) -> None:
        """Wait for the link; `BrokerUnreachableError` says why it is not up after `within_s` seconds."""
        try:
            async with asyncio.timeout(within_s):
                await self._came_up.wait()
        except TimeoutError:
            why = self._link.status.error or f"no connection to {self._where} within {within_s:g} s"
            raise BrokerUnreachableError(
                f"{why}: start a broker there, or give another host and port"
            ) from None

    async def __aenter__(self) -> Self:
        """Start connecting; tasks may be submitted at once."""
        self._running = asyncio.create_task(self._run(), name="fleet-client")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Confirm what was taken and disconnect. Open tasks go on at their vehicles; here they end."""
        if self._running is None:
            return
        closed = FleetClosed("the fleet client was closed while this task was open")
        self._closing = True
        for vehicle in self._vehicles.values():
            vehicle.abandon(closed)
        self._settle()
        try:
            await self._sender.until_said(GOODBYE_S)
            await self._link.close()
            await self._running
        finally:
            self._running.cancel()

    async def _run(self) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                ticking = tasks.create_task(self._tick(), name="fleet-tick")
                await self._link.run()
                ticking.cancel()
        except BaseExceptionGroup as bug:
            for vehicle in self._vehicles.values():
                vehicle.abandon(FleetClosed(f"the fleet client broke: {bug.exceptions[0]!r}"))
            raise

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            if not self._link.up:
                continue
            now_ns = self._clock()
            for vehicle in list(self._vehicles.values()):
                if vehicle.look_at_ns <= now_ns:
                    vehicle.look()

    def _on_up(self, session_present: bool) -> None:
        self._came_up.set()
        self._sender.say_again()
        broker_forgot = not session_present and self._link.status.connects > 1
        for vehicle in self._vehicles.values():
            vehicle.resume(broker_forgot=broker_forgot)
        if self._bookkeeper is not None:
            self._bookkeeper.look()

    def _on_message(self, inbound: Inbound) -> None:
        if self._closing:
            return  # not acknowledged: the broker keeps it for the next client of this id
        base, _, kind = inbound.topic.rpartition("/")
        vehicle = self._vehicles.get(base) or self._discover(base)
        try:
            if kind == "result":
                vehicle.take_result(inbound.payload, inbound.ack)
                return
            if kind == "event":
                vehicle.take_event(inbound.payload)
            else:
                vehicle.take_state(inbound.payload)
                if self._bookkeeper is not None:
                    self._bookkeeper.look()
        except Refused as refused:
            _log.warning("refused a message on %s: %s", inbound.topic, refused)
        inbound.ack()

    def _keep(self, vehicle: Vehicle, task_id: str, rows: Rows) -> asyncio.Future[Any] | None:
        return None if self._bookkeeper is None else self._bookkeeper.keep(vehicle, task_id, rows)

    def _discover(self, base: str) -> Vehicle:
        """A vehicle that nobody has named: its results are confirmed, its state can be looked at."""
        _, country, vehicle_id = base.rsplit("/", 2)
        return self.vehicle(vehicle_id, country.upper())

    def _settle_soon(self, vehicle: Vehicle) -> None:
        """Let results that arrive within a moment share a message."""
        if not self._unsettled:
            asyncio.get_running_loop().call_later(self.desk.patience.settle_s, self._settle)
        self._unsettled.append(vehicle)

    def _settle(self) -> None:
        vehicles, self._unsettled = self._unsettled, []
        for vehicle in vehicles:
            vehicle.settle()
