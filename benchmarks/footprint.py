"""What the agent takes of a car: memory, processor time and wake-ups while it is blocked, idle and at work; its link; disk.

In the manner of published agents: resident and proportional memory of everything of ours, sampled every 10 s over 10 min.
"""

import asyncio
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from agent.protocol.messages import Mode
from benchmarks.installed_size import by_extra, described
from benchmarks.our_processes import Census, census
from benchmarks.pass_through import PassThrough, Traffic, pass_through
from benchmarks.recorded_drive import LOG, RecordedDrive
from benchmarks.report import Figure, quantile
from benchmarks.rig import WITHIN_S, Agent, Rig, broker, parked_car
from benchmarks.task_kinds import layers
from benchmarks.tasks import Bench, bench
from firmware_shims import signal_map, vss
from firmware_shims.simulated_can import SimulatedCar

SAMPLES: Final = 60
"""Every 10 s over 10 min; shorter measurements sample as often, but not more than once a second."""
WARM_S: Final = 5
HOUR_S: Final = 3600
STOPS: Final = 3
CALLERS: Final = 4
RESIDENT_GOAL, CPU_GOAL = "<= 48 MiB", "<= 1.5 %"
LINK_GOAL, READY_GOAL, STOP_GOAL = "<= 60 KB", "<= 0.4 s", "<= 2 s"


class Sampled(Figure):
    """What was sampled over time: median, 95th percentile and maximum."""

    def __str__(self) -> str:
        p50, p95 = quantile(self.values, 0.5), quantile(self.values, 0.95)
        goal = f"   goal {self.goal}" if self.goal else ""
        spread = f"p95 {p95:.4g}, max {max(self.values):.4g}, n = {len(self.values)}"
        return f"{self.name:<58} {p50:>9.4g} {self.unit:<8} ({spread}){goal}"


@dataclass(slots=True)
class Samples:
    """What was seen of the agent and its workers in one situation, over `seconds`."""

    seconds: float = 0.0
    taken: list[Census] = field(default_factory=list)

    def figures(self, situation: str, *, goals: bool = False) -> list[Figure]:
        """Memory by sample; processor time and wake-ups over the whole time."""
        first, last = self.taken[0], self.taken[-1]
        cpu_pct = 100 * (last.cpu_s - first.cpu_s) / self.seconds
        woken_per_s = last.woken_since(first) / self.seconds
        resident = [one.resident_mib for one in self.taken]
        return [
            Sampled(f"resident memory, {situation}", "MiB", resident, RESIDENT_GOAL if goals else ""),
            Sampled("  proportional memory", "MiB", [one.proportional_mib for one in self.taken]),
            Figure("  processor time", "% of one core", [cpu_pct], CPU_GOAL if goals else ""),
            Figure("  wake-ups (voluntary context switches of all threads)", "1/s", [woken_per_s]),
            Figure("  processes of ours", "", [float(last.processes)]),
        ]


async def measure(seconds: int) -> list[object]:
    """All of it, each of the three situations for `seconds`; print-ready lines. 600 are 10 min each."""
    return [
        *await _blocked(seconds),
        *await _idle(seconds),
        *await _working(seconds),
        *await _stops(),
        *described(by_extra()),
    ]


async def _watched(agent: Agent, seconds: int) -> Samples:
    """Sample for `seconds`, after it has come to rest."""
    await asyncio.sleep(WARM_S)
    found, begun_s = Samples(), time.monotonic()
    found.taken.append(census(agent.process.pid))
    for count in range(1, min(SAMPLES, seconds) + 1):
        await asyncio.sleep(begun_s + count * max(seconds / SAMPLES, 1) - time.monotonic())
        found.taken.append(census(agent.process.pid))
    found.seconds = time.monotonic() - begun_s
    return found


async def _blocked(seconds: int) -> list[object]:
    """On a bus that speaks; and what python-can costs beside, which a car with any interface but socketcand loads."""
    with tempfile.TemporaryDirectory() as folder, broker() as running, _speaking_bus() as bus:
        rate = (
            f"{_frames_per_s(bus):.0f} CAN frames/s{' of a recorded drive' * isinstance(bus, RecordedDrive)}"
        )
        with parked_car() as car:
            rig = Rig(Path(folder), running, car, "null", settle_s=60, can_options=bus.options)
            async with rig.agent() as agent:
                samples = await _watched(agent, seconds)
                await _refuse_other_mode(agent, Mode.BLOCKED)
    lines: list[object] = [*samples.figures(f"blocked, {rate}", goals=True)]
    loaded_mib = [await _with_python_can() for _ in range(STOPS)]
    return [
        *lines,
        Figure("resident memory, python-can loaded, silent bus", "MiB", loaded_mib, RESIDENT_GOAL),
    ]


def _speaking_bus() -> AbstractContextManager[RecordedDrive] | AbstractContextManager[SimulatedCar]:
    """The recorded drive where it is at hand, else a simulated car whose door is open."""
    if LOG.exists():
        return RecordedDrive()
    car = parked_car()
    car.set(vss.DRIVER_DOOR, True)
    return car


def _frames_per_s(bus: RecordedDrive | SimulatedCar) -> float:
    if isinstance(bus, RecordedDrive):
        return bus.frames_per_s
    return sum(1000 / message.period_ms for message in signal_map.load("tesla_model3").messages)


async def _with_python_can() -> float:
    with tempfile.TemporaryDirectory() as folder, broker() as running, parked_car() as car:
        silent = {"interface": "virtual", "channel": "silent"}
        rig = Rig(Path(folder), running, car, "null", settle_s=60, can_options=silent)
        async with rig.agent() as agent:
            await asyncio.sleep(WARM_S)
            return census(agent.process.pid).resident_mib


async def _idle(seconds: int) -> list[object]:
    """Ready, and no work; what goes over its link meanwhile."""
    async with _relayed() as (agent, relay):
        await _until(agent, Mode.READY)
        await asyncio.sleep(WARM_S)
        before = relay.traffic()
        samples = await _watched(agent, seconds)
        traffic = relay.traffic()
        await _refuse_other_mode(agent, Mode.READY)
    return [*samples.figures("ready and idle"), *_by_the_hour(before, traffic, seconds + WARM_S)]


def _by_the_hour(before: Traffic, after: Traffic, seconds: float) -> list[Figure]:
    hours = seconds / HOUR_S
    wire_kb = (after.wire_bytes - before.wire_bytes) / hours / 1000
    payload_kb = (after.payload_bytes - before.payload_bytes) / hours / 1000
    name = f"  link, with the headers of IPv4 and TCP, from {seconds:.0f} s"
    return [
        Figure(name, "KB/h", [wire_kb], LINK_GOAL),
        Figure("  link, MQTT alone", "KB/h", [payload_kb]),
    ]


async def _working(seconds: int) -> list[object]:
    """Inference without a pause, on one thread, in a worker."""
    kind = layers(256, 170, "")
    async with bench(kind) as ready:
        callers = [asyncio.create_task(_keep_busy(ready)) for _ in range(CALLERS)]
        try:
            samples = await _watched(ready.agent, seconds)
            await _until(ready.agent, Mode.WORKING)  # between two batches it is ready for a moment
        finally:
            for caller in callers:
                caller.cancel()
            await asyncio.wait(callers)
    return [*samples.figures("working, cpu backend")]


async def _keep_busy(ready: Bench) -> None:
    while True:
        await ready.task()


async def _stops() -> list[object]:
    """From exec to READY=1 and from SIGTERM to the end, also with a broker that answers no more."""
    ready_s: list[float] = []
    stop_s: list[float] = []
    hung_s: list[float] = []
    for spent_s, hung in ((stop_s, False), (hung_s, True)):
        for _ in range(STOPS):
            async with _relayed() as (agent, relay):
                ready_s.append(agent.ready_s)
                await _until(agent, Mode.READY)
                if hung:
                    relay.hang()
                begun_s = time.monotonic()
                agent.process.send_signal(signal.SIGTERM)
                await agent.process.wait()
                spent_s.append(time.monotonic() - begun_s)
    return [
        Figure("start to READY=1", "s", ready_s, READY_GOAL),
        Figure("SIGTERM to the end", "s", stop_s, STOP_GOAL),
        Figure("SIGTERM to the end, the broker hangs", "s", hung_s, STOP_GOAL),
    ]


@asynccontextmanager
async def _relayed() -> AsyncIterator[tuple[Agent, PassThrough]]:
    """A parked car whose link goes through a relay that counts."""
    with tempfile.TemporaryDirectory() as folder, broker() as running, parked_car() as car:
        async with pass_through(running.port) as relay:
            through = {"PARKWATT_MQTT__PORT": str(relay.port)}
            rig = Rig(Path(folder), running, car, "null", settle_s=0.5, environment=through)
            async with rig.agent() as agent:
                yield agent, relay


async def _until(agent: Agent, mode: Mode) -> None:
    """Wait until it is in that mode, with its link up."""
    async with asyncio.timeout(WITHIN_S):
        while (status := await agent.ask())["mode"] != mode.value or not status["link"]["up"]:
            await asyncio.sleep(0.1)


async def _refuse_other_mode(agent: Agent, mode: Mode) -> None:
    """Raise unless what was measured was what it should be."""
    status = await agent.ask()
    if status["mode"] != mode.value:
        reasons: Sequence[object] = status["blockers"]
        raise RuntimeError(
            f"the car should be {mode.value}, its mode is {status['mode']}, blockers {reasons}"
        )
