"""What durability holds and costs: memory over many tasks, a broker that restarts, a slow disk, a full outbox."""

import asyncio
import contextlib
import datetime as dt
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from agent.link import Inbound, Link, LinkOptions
from agent.protocol import framing
from agent.protocol.messages import Datatype
from agent.protocol.topics import Topics
from benchmarks.report import Figure, Tail
from benchmarks.rig import REGION, VEHICLE, WITHIN_S, Agent
from benchmarks.tasks import SMALL, Bench, bench, fleet_of, vehicle
from fleet.client import Input
from fleet.work import Work

SAMPLES: Final = 50
WARM_SHARE: Final = 0.3
"""Of the tasks: what grows in them is caches that fill."""
DISK_US: Final = 5000
UNDER_WAY: Final = 32
FEW: Final = 2
"""Results that are on their way at any moment."""
DRAIN_S: Final = 300.0


async def measure(quick: bool) -> list[object]:
    """All four; print-ready lines."""
    return [
        *await _memory(2_000 if quick else 100_000),
        *await _restarts(3 if quick else 15),
        *await _slow_disk(2 if quick else 7, 1000 if quick else 3000),
        *await _full_outbox(5_000 if quick else 100_000),
    ]


async def _memory(tasks: int) -> list[object]:
    """Grown between the first third and the end."""
    samples: list[float] = []
    async with bench(SMALL) as ready:
        for _ in range(SAMPLES):
            await ready.rate(tasks // SAMPLES)
            samples.append(ready.agent_mib())
    warm = samples[int(WARM_SHARE * SAMPLES) :]
    return [
        Figure(f"resident memory of the agent over {tasks:,} tasks", "MiB", warm),
        Figure("  of it grown in the last 70 %", "MiB", [warm[-1] - warm[0]], "flat"),
    ]


async def _restarts(rounds: int) -> list[object]:
    """The broker is killed under load; from when it accepts again to the next answer."""
    recovery_s: list[float] = []
    async with bench(SMALL) as ready, _under_load(ready, callers=8):
        for _ in range(rounds):
            await _more_done(ready)
            await asyncio.to_thread(ready.broker.kill)
            await asyncio.to_thread(ready.broker.start)
            begun_s = time.perf_counter()
            await _more_done(ready)
            recovery_s.append(time.perf_counter() - begun_s)
    return [Tail("broker killed and back: until the next answer", "s", recovery_s, "<= 2")]


async def _slow_disk(rounds: int, tasks: int) -> list[object]:
    name = f"tasks, {SMALL.name}, {DISK_US / 1000:g} ms a commit"
    compiler = shutil.which("cc")
    if compiler is None:
        return [f"{name}: not measured: no C compiler to make the disk slow with"]
    with tempfile.TemporaryDirectory() as folder:
        library, source = Path(folder) / "slow_disk.so", Path(__file__).with_name("slow_disk.c")
        building = await asyncio.create_subprocess_exec(
            *(compiler, "-shared", "-fPIC", "-O2", "-o", library, source, "-ldl")
        )
        if await building.wait():
            return [f"{name}: not measured: {compiler} does not compile {source.name}"]
        environment = {"LD_PRELOAD": str(library), "SLOW_DISK_US": str(DISK_US)}
        async with bench(SMALL, environment) as ready:
            rates = [await ready.rate(tasks) for _ in range(rounds)]
    return [Figure(name, "tasks/s", rates, ">= 1,000")]


async def _full_outbox(rows: int) -> list[object]:
    """A fleet that settles nothing, then one that settles and has new tasks."""
    latency_ms: list[float] = []
    async with vehicle(SMALL) as (agent, running):
        async with asyncio.timeout(DRAIN_S):
            await _up(agent)  # before its first session a broker keeps nothing for it
            await _Silent(running.port).ask(rows)
        owed = await _owed(agent)
        await asyncio.to_thread(running.kill)
        await asyncio.to_thread(running.start)
        async with fleet_of(running, SMALL) as fleet, asyncio.timeout(DRAIN_S):
            await _up(agent)
            begun_s = time.perf_counter()
            ready = Bench(SMALL, agent, fleet, running)
            while await _owed(agent) > FEW:
                latency_ms.append(await ready.latency_ms())
        drained_s = time.perf_counter() - begun_s
    return [
        Figure(f"outbox of {owed:,} results of a row: until settled", "s", [drained_s]),
        Tail("  latency of new tasks meanwhile, one outstanding", "ms", latency_ms),
    ]


async def _up(agent: Agent) -> None:
    while not (await agent.ask())["link"]["up"]:
        await asyncio.sleep(0.01)


async def _owed(agent: Agent) -> int:
    return int((await agent.ask())["store"]["unsettled_results"])


@contextlib.asynccontextmanager
async def _under_load(ready: Bench, callers: int) -> AsyncIterator[None]:
    async def caller() -> None:
        while True:
            await ready.task()

    tasks = [asyncio.create_task(caller()) for _ in range(callers)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def _more_done(ready: Bench) -> None:
    before = ready.done
    async with asyncio.timeout(WITHIN_S):
        while ready.done == before:
            await asyncio.sleep(0.002)


class _Silent:
    """A fleet that takes results and settles none."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._done = 0
        self._news = asyncio.Event()

    async def ask(self, tasks: int) -> None:
        """So many tasks, a few of them under way."""
        topics, up = Topics("fleet/v1", REGION, VEHICLE), asyncio.Event()
        options = LinkOptions(
            host="127.0.0.1", port=self._port, client_id="silent", subscriptions=(topics.result,)
        )
        link = Link(options, on_message=self._hear, on_up=lambda _: up.set())
        running = asyncio.create_task(link.run())
        await asyncio.wait_for(up.wait(), WITHIN_S)
        for number in range(tasks):
            await self._until(number - UNDER_WAY)
            await link.publish(topics.task, _owing(f"owed-{number}"))
        await self._until(tasks)
        await link.close()
        await running

    def _hear(self, inbound: Inbound) -> None:
        inbound.ack()
        result, _ = framing.decode_result(inbound.payload)
        self._done += result.final
        self._news.set()

    async def _until(self, done: int) -> None:
        while self._done < done:
            self._news.clear()
            await self._news.wait()


def _owing(task_id: str) -> bytes:
    data = Input("x", Datatype.UINT8, [1, 64], bytes(64))
    work, now = Work(SMALL.ref, [data]), dt.datetime.now(dt.UTC)
    return work.body(work.task(task_id, 1, VEHICLE, issued_at=now, expires_at=now + dt.timedelta(hours=1)))
