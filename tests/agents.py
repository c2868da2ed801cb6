"""An agent in this process, with a car that tests drive: the real service over a real broker."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from wire_fleet import NULL_MODEL, NULL_SHA256, WITHIN_S

from agent.protocol.topics import Topics
from agent.service import Service
from agent.settings import Settings, load
from agent.store import Store
from firmware_shims import scenario
from firmware_shims.clock import Clock, boottime_ns
from firmware_shims.reading import Source

TOPICS = Topics("fleet/v1", "BR", "veh-1")
CONFIG = """
[vehicle]
id = "veh-1"
region = "BR-SP"

[mqtt]
port = {port}

[[signals]]
shim = "scenario"

[policy]
settle_s = {settle_s}
grid_proof_s = 0.2
starts_per_hour = 1000
resume_economic_s = 0.2
{policy}

[[backends]]
use = "{backend}"
max_power_w = 60
[backends.options]
run_us = {run_us}
{options}

[models]
source = "file://{folder}/models"
cache_dir = "{folder}/cache"

[trust]
require_signatures = {signed}
task_keys_dir = "{folder}/keys"

[store]
path = "{folder}/agent.db"
ballast_bytes = 0

[control]
socket = "{folder}/agent.sock"
"""


def write_config(
    folder: Path,
    port: int,
    *,
    backend: str = "null",
    run_us: int = 0,
    options: str = "",
    signed: bool = False,
    settle_s: float = 0.2,
    policy: str = "",
    extra: str = "",
) -> Path:
    """A configuration for a car in `folder`, with the null model in its models folder."""
    for name in ("models", "cache", "keys"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "models" / NULL_SHA256).write_bytes(NULL_MODEL)
    path = folder / "agent.toml"
    path.write_text(
        CONFIG.format(
            port=port,
            folder=folder,
            backend=backend,
            run_us=run_us,
            options=options,
            signed=str(signed).lower(),
            settle_s=settle_s,
            policy=policy,
        )
        + extra
    )
    return path


@dataclass
class RunningService:
    """The service, and waiting for what it does."""

    service: Service

    @property
    def rows_done(self) -> int:
        return self.service.executor.rows_done

    async def until(self, holds: Callable[[], object], what: str) -> None:
        try:
            async with asyncio.timeout(WITHIN_S):
                while not holds():
                    await asyncio.sleep(0.002)
        except TimeoutError:
            raise AssertionError(f"not within {WITHIN_S} s: {what}") from None

    async def until_rows(self, rows: int) -> None:
        await self.until(lambda: self.rows_done >= rows, f"{rows} rows")

    async def until_ready(self) -> None:
        await self.until(lambda: self.service.guard.verdict.allowed, "the gate is open")

    async def until_preempted(self) -> None:
        """Wait until a worker that was killed is gone, with its memory."""
        await self.until(lambda: self.service.preemptions.done, "a preemption")

    async def until_settled(self) -> None:
        """Wait until nothing is owed to the fleet any more."""
        async with asyncio.timeout(WITHIN_S):
            while (await self.service.store.run(lambda ledger: ledger.counts())).unsettled_results:
                await asyncio.sleep(0.005)

    async def until_told(self) -> None:
        """Wait until every ending has been acknowledged by the broker."""
        async with asyncio.timeout(WITHIN_S):
            while await self.service.store.run(lambda ledger: ledger.untold()):
                await asyncio.sleep(0.005)


@dataclass
class RunningAgent(RunningService):
    """The service and its car."""

    car: scenario.Scenario


@asynccontextmanager
async def served(
    config: Path,
    sources: Sequence[Source] | None = None,
    *,
    wait_for_link: bool = True,
    wall: Callable[[], float] = time.time,
    clock: Clock = boottime_ns,
) -> AsyncIterator[RunningService]:
    """Run the service until the block ends; the good-bye is part of it. `wall` is the car's clock."""
    settings: Settings = load(config)
    async with Store.open(
        settings.store.path,
        max_bytes=settings.store.max_bytes,
        ballast_bytes=settings.store.ballast_bytes,
    ) as store:
        service = Service(settings, store, sources=sources, wall=wall, clock=clock)
        stop = asyncio.Event()
        running = asyncio.create_task(service.run(stop), name="service")
        try:
            present = RunningService(service)
            await present.until(lambda: settings.control.socket.is_socket() or running.done(), "its socket")
            if wait_for_link:
                await present.until(lambda: service.link.up or running.done(), "the link")
            yield present
        finally:
            stop.set()
            await running


@asynccontextmanager
async def agent(
    config: Path, *, wait_for_link: bool = True, wall: Callable[[], float] = time.time
) -> AsyncIterator[RunningAgent]:
    """Run the service with a car that the test drives."""
    car = scenario.Scenario("car", scenario.load(scenario.PARKED_AND_CHARGING), boottime_ns)
    async with served(config, [car], wait_for_link=wait_for_link, wall=wall) as present:
        yield RunningAgent(present.service, car)
