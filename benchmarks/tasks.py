"""Tasks end to end per second, with durable inbox and outbox, beside a bare peer in turn in the same run.

The peer of the null backend is a bare MQTT request and response, that of real work the bare runtime, from a script
that gets its inputs for nothing: what a task costs beyond its inference is all ours.
"""

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from agent.link import LinkOptions
from backends.kernel import Model
from benchmarks import bare_mqtt
from benchmarks.kernels import bare_runtime
from benchmarks.report import Figure, Tail
from benchmarks.rig import REGION, VEHICLE, WITHIN_S, Agent, Rig, Tls, broker, parked_car, until_ready
from benchmarks.task_kinds import Kind, echo, layers
from fleet.broker import Broker, MosquittoBroker
from fleet.client import FleetClient

OUTSTANDING: Final = 64
LATENCIES: Final = 200
REAL_WORK: Final = (layers(256, 170, ">= 0.75"), layers(25_600, 850, ">= 0.90"))
SMALL: Final = echo(1024, OUTSTANDING, ">= 1,500")
LARGE: Final = echo(100 * 1024, OUTSTANDING, ">= 450")
TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class Bench:
    """A vehicle that works, and a fleet that gives it tasks of one kind."""

    kind: Kind
    agent: Agent
    fleet: FleetClient
    broker: Broker
    done: int = field(default=0)

    async def rate(self, tasks: int) -> float:
        """Tasks answered per second, each by a caller that waits for its answer before it sends the next."""
        left = iter(range(tasks))

        async def caller() -> None:
            for _ in left:
                await self.task()

        begun_s = time.perf_counter()
        async with asyncio.TaskGroup() as callers:
            for _ in range(self.kind.outstanding):
                callers.create_task(caller())
        return tasks / (time.perf_counter() - begun_s)

    async def task(self) -> None:
        """One task, answered."""
        await self.fleet.vehicle(VEHICLE, REGION).submit(self.kind.ref, self.kind.inputs)
        self.done += 1

    async def latency_ms(self) -> float:
        """One task with nothing else under way."""
        begun_s = time.perf_counter()
        await self.task()
        return (time.perf_counter() - begun_s) * 1e3

    def agent_mib(self) -> float:
        """Resident memory of the agent, without its workers."""
        pages = int(Path(f"/proc/{self.agent.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def agent_cpu_s(self) -> float:
        """Processor time of the agent so far, without its workers."""
        fields = Path(f"/proc/{self.agent.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * TICK_S


@asynccontextmanager
async def vehicle(
    kind: Kind, environment: Mapping[str, str] | None = None, tls: Tls | None = None
) -> AsyncIterator[tuple[Agent, Broker]]:
    """A parked car with its agent, which has the kind's model, and their broker. `environment` is the agent's."""
    with tempfile.TemporaryDirectory() as folder, broker(tls) as running, parked_car() as car:
        rig = Rig(Path(folder), running, car, kind.use, settle_s=0.5, environment=environment or {}, tls=tls)
        (Path(folder) / "models").mkdir()
        (Path(folder) / "models" / kind.ref.sha256).write_bytes(kind.model)
        async with rig.agent() as agent:
            yield agent, running


@asynccontextmanager
async def bench(
    kind: Kind, environment: Mapping[str, str] | None = None, tls: Tls | None = None
) -> AsyncIterator[Bench]:
    """Everything up, and the model loaded."""
    async with vehicle(kind, environment, tls) as (agent, running), fleet_of(running, kind, tls) as fleet:
        await until_ready(fleet)
        ready = Bench(kind, agent, fleet, running)
        await ready.rate(kind.outstanding)
        yield ready


@asynccontextmanager
async def fleet_of(running: Broker, kind: Kind, tls: Tls | None = None) -> AsyncIterator[FleetClient]:
    """A fleet that is connected."""
    files = asdict(tls) if tls else {}
    options = LinkOptions(host="127.0.0.1", port=running.port, client_id="bench", **files)
    async with FleetClient(options, outstanding=kind.outstanding) as fleet:
        await fleet.until_up(WITHIN_S)
        yield fleet


async def measure(rounds: int, tasks: int) -> list[object]:
    """Alternate rounds of about `tasks` tasks and as many of the peer's; print-ready lines."""
    lines = await _beside_bare_mqtt(SMALL, rounds, tasks)
    if MosquittoBroker.find():
        with tempfile.TemporaryDirectory() as folder:
            lines += await _beside_bare_mqtt(SMALL, rounds, tasks, Tls.issued(Path(folder)))
    lines += await _beside_bare_mqtt(LARGE, rounds, max(OUTSTANDING, tasks // 4))
    for kind in REAL_WORK:
        lines += await _beside_bare_runtime(kind, rounds, max(kind.outstanding, tasks // 10))
    return lines


async def _beside_bare_mqtt(kind: Kind, rounds: int, tasks: int, tls: Tls | None = None) -> list[object]:
    ours: list[float] = []
    bare: list[float] = []
    cpu_ms: list[float] = []
    payload_bytes = len(kind.inputs[0].data or b"")
    files = [str(path) for path in asdict(tls).values()] if tls else []
    async with bench(kind, tls=tls) as ready:
        for _ in range(rounds):
            port = ready.broker.port
            bare.append(await bare_mqtt.rate(port, tasks, kind.outstanding, payload_bytes, files))
            before_s = ready.agent_cpu_s()
            ours.append(await ready.rate(tasks))
            cpu_ms.append((ready.agent_cpu_s() - before_s) / tasks * 1e3)
        latency_ms = [await ready.latency_ms() for _ in range(LATENCIES)]
    where = f"{kind.name}, {kind.outstanding} outstanding{', mutual TLS' if tls else ''}"
    small = kind is SMALL
    return [
        Figure(f"tasks, {where}", "tasks/s", ours, kind.goal),
        Figure("  bare aiomqtt request/response", "1/s", bare),
        Figure("  ratio of the two", "", _ratios(ours, bare)),
        Figure("  processor time of the agent a task", "ms", cpu_ms, "<= 0.7" if small else ""),
        Tail("  task latency, one outstanding", "ms", latency_ms, "p50 <= 2" if small else ""),
    ]


async def _beside_bare_runtime(kind: Kind, rounds: int, tasks: int) -> list[object]:
    ours: list[float] = []
    bare: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / kind.ref.sha256
        path.write_bytes(kind.model)
        model = Model(path, kind.ref.sha256, kind.ref.format.value, kind.row)
        async with bench(kind) as ready, bare_runtime(model) as run:
            for _ in range(rounds):
                bare.append(tasks / (sum(await run(tasks)) / 1e9))
                ours.append(await ready.rate(tasks))
    row_ms = 1e3 / statistics.median(bare)
    return [
        Figure(f"tasks, {kind.name}, {kind.outstanding} outstanding", "tasks/s", ours),
        Figure(f"  bare runtime, {row_ms:.2f} ms a row", "1/s", bare),
        Figure("  ratio of the two", "", _ratios(ours, bare), kind.goal),
    ]


def _ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    return [mine / other for mine, other in zip(ours, theirs, strict=True)]
