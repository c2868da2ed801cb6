"""The play itself: agent, car, fleet and owner together, from the first task to the last check."""

import asyncio
import datetime as dt
import itertools
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import typer

from agent.broker import link_options
from agent.demo import config, first_task
from agent.demo.checks import Facts, check
from agent.demo.files import Sample
from agent.demo.model import FileTypes
from agent.demo.owner import Visit, come_back
from agent.demo.record import Record
from agent.demo.stage import Audience, Stage
from agent.demo.wire import Wire
from agent.demo.workload import Dispatcher, Order, Tally, orders
from agent.link import Link
from agent.protocol.topics import Topics
from agent.service import Service
from agent.settings import Settings
from agent.store import Counts, Store
from firmware_shims.clock import boottime_ns
from firmware_shims.scenario import PARKED_AND_CHARGING, Scenario, load
from fleet.client import FleetClient, Vehicle

UP_WITHIN_S: Final = 10.0
SETTLED_WITHIN_S: Final = 10.0
LAST_LOOK_S: Final = 0.1
"""How long the owner may need to see that the last rows were done."""


@dataclass(frozen=True, slots=True)
class Script:
    """What is to be done, with what. `seconds`, where given, counts instead of `tasks`."""

    files: Sequence[Sample]
    types: FileTypes
    tasks: int
    seconds: float | None
    hold: bool

    @property
    def rows(self) -> int | None:
        """Rows in all; None where time decides."""
        if self.seconds is not None:
            return None
        return sum(len(order.files) for order in itertools.islice(orders(self.files), self.tasks))

    def orders(self, record: Record) -> Iterator[Order]:
        """The tasks to send from now on."""
        endless = orders(self.files)
        if self.seconds is None:
            return itertools.islice(endless, self.tasks)
        end_s = record.now_s + self.seconds
        return itertools.takewhile(lambda _: record.now_s < end_s, endless)


async def perform(script: Script, settings: Settings, folder: Path, audience: Audience) -> int:
    """Play, show the summary and stay if asked to; returns 0 if every check held, else 1."""
    loop = asyncio.get_running_loop()
    playing = asyncio.current_task()
    if playing is not None:
        loop.add_signal_handler(signal.SIGTERM, playing.cancel)
    tally = Tally()
    async with (
        _agent(settings) as (service, car),
        _ear(settings, tally, script.types.labels) as wire,
        _fleet_side(settings, folder) as vehicle,
    ):
        stage = Stage(settings, service, car, tally, Record(boottime_ns), audience, script.rows)
        dispatcher = Dispatcher(vehicle, script.types.labels, tally)
        with audience:
            facts = await _play(script, stage, dispatcher, wire)
        checks = check(facts)
        audience.summed_up(facts, checks)
        if script.hold:
            shortest = min(script.files, key=lambda sample: len(str(sample.path)))  # people will read it
            await _hold(folder, shortest, settings)
    return 0 if all(each.holds for each in checks) else 1


async def _play(script: Script, stage: Stage, dispatcher: Dispatcher, wire: Wire) -> Facts:
    """The fleet sends, the owner comes back in the middle, and everything is settled."""
    visit, record = Visit(), stage.record
    began_s = record.now_s

    def half_way() -> bool:
        done = stage.service.executor.rows_done
        if script.seconds is not None:
            return done > 0 and record.now_s >= began_s + script.seconds / 2
        return done >= (script.rows or 0) / 2

    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(stage.watch(), name="watch")
        owner = tasks.create_task(come_back(stage, half_way, visit), name="owner")
        stage.tell("tasks arrive, and wait until the car has settled")
        await dispatcher.send(script.orders(record))
        wall_s = record.now_s - began_s
        await asyncio.wait([owner], timeout=LAST_LOOK_S)
        owner.cancel()
        owed = await _settled(stage.service)
        stage.tell(
            "everything is answered and settled" if not owed.unsettled_results else "results are still owed"
        )
        stage.look()
        watching.cancel()
    return Facts(
        tally=stage.tally,
        counted=wire.counted(),
        preempted=wire.preempted,
        visit=visit,
        ticks=record.ticks,
        wall_s=wall_s,
        owed=owed,
        watts_per_core=stage.settings.meter.watts_per_core or 0.0,
    )


async def _settled(service: Service) -> Counts:
    """What the agent owes, once that is nothing or after a while."""
    deadline_s = asyncio.get_running_loop().time() + SETTLED_WITHIN_S
    while True:
        owed = await service.store.run(lambda ledger: ledger.counts())
        nothing = not owed.open_tasks and not owed.unsettled_results
        if nothing or asyncio.get_running_loop().time() > deadline_s:
            return owed
        await asyncio.sleep(0.02)


async def _hold(folder: Path, sample: Sample, settings: Settings) -> None:
    """Write the first task, say how to send it, and stay until Ctrl-C."""
    path = folder / first_task.FILE
    path.write_bytes(first_task.first_task(sample, settings.vehicle.id, dt.datetime.now(dt.UTC)))
    for line in first_task.invitation(path, sample, settings):
        typer.echo(line)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, ended.set)
    await ended.wait()


# The parts that run beside the play


@asynccontextmanager
async def _agent(settings: Settings) -> AsyncIterator[tuple[Service, Scenario]]:
    """The service with a car that is parked and charging; it says good-bye at the end."""
    car = Scenario("scenario", load(PARKED_AND_CHARGING), boottime_ns)
    store_of = settings.store
    async with Store.open(
        store_of.path, max_bytes=store_of.max_bytes, ballast_bytes=store_of.ballast_bytes
    ) as store:
        service = Service(settings, store, sources=[car])
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(service.run(stop), name="agent")
            try:
                yield service, car
            finally:
                stop.set()


@asynccontextmanager
async def _ear(settings: Settings, tally: Tally, labels: tuple[str, ...]) -> AsyncIterator[Wire]:
    """Count what is on the wire; what others have sent the car is shown."""
    topics = Topics(settings.mqtt.root, settings.vehicle.region, settings.vehicle.id)
    wire = Wire(topics, tally.asked, lambda message, tail: typer.echo(first_task.said(message, tail, labels)))
    up = asyncio.Event()
    options = replace(
        link_options(settings), client_id="demo-ear", subscriptions=(topics.event, topics.result)
    )
    link = Link(options, on_message=wire.hear, on_up=lambda _: up.set())
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(link.run(), name="ear")
        try:
            async with asyncio.timeout(UP_WITHIN_S):
                await up.wait()
            yield wire
        finally:
            await link.close()


@asynccontextmanager
async def _fleet_side(settings: Settings, folder: Path) -> AsyncIterator[Vehicle]:
    """The car as its fleet sees it, through the client library and a key that the car knows."""
    async with FleetClient(
        replace(link_options(settings), client_id="demo-fleet"),
        root=settings.mqtt.root,
        vehicles=[(settings.vehicle.id, settings.vehicle.region)],
        key=config.signing_key(folder),
        kid=config.KEY_ID,
    ) as fleet:
        vehicle = fleet.vehicle(settings.vehicle.id, settings.vehicle.region)
        # A broker keeps nothing for a car that has never been there: the first task waits for its first word.
        await vehicle.wait_for(lambda state: state.online, UP_WITHIN_S)
        yield vehicle
