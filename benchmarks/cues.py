"""How long a door frame takes to end a busy worker: until its last instruction, and until it is reaped."""

import asyncio
import contextlib
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from agent.link import LinkOptions
from agent.protocol.messages import ModelRef
from benchmarks import cue_work
from benchmarks.cue_kinds import Kind
from benchmarks.cue_work import Work
from benchmarks.report import Tail
from benchmarks.rig import REGION, VEHICLE, WITHIN_S, Agent, Rig, broker, parked_car, until_ready
from benchmarks.stamping import Stamps
from benchmarks.wheels import WheelMissingError
from firmware_shims import vss
from firmware_shims.clock import boottime_ns
from firmware_shims.simulated_can import SimulatedCar
from fleet.client import FleetClient

OUTSTANDING: Final = 8
DONE_BETWEEN: Final = 2
SAID_WITHIN_S: Final = 0.5
GOAL: Final = "p50 <= 8, p99 <= 15, max <= 40 ms"
NS_PER_MS: Final = 1e6


@dataclass(slots=True)
class Times:
    """What the cues took, in milliseconds from the frame's receive stamp. `sent_ms` is before it.

    The last instruction of a worker that had no processor when the frame was read was before that: it counts as 0.
    """

    sent_ms: list[float] = field(default_factory=list)
    kill_ms: list[float] = field(default_factory=list)
    last_instruction_ms: list[float] = field(default_factory=list)
    silent_ms: list[float] = field(default_factory=list)
    said_ms: list[float] = field(default_factory=list)

    def told(self, work: Work, bound_ms: float | None) -> list[object]:
        """Print-ready lines."""
        cancel = (
            "a run cannot be cancelled" if bound_ms is None else f"a cancel takes up to {bound_ms:.3g} ms"
        )
        beside = f", beside {work.neighbours} busy process(es)" if work.neighbours else ""
        lines: list[object] = [
            f"cues: {work.name} on {cue_work.PROCESSORS} processors{beside}; {cancel}",
            Tail("  door frame sent to read", "ms", self.sent_ms),
            Tail("  door frame read to signal sent", "ms", self.kill_ms),
        ]
        if self.last_instruction_ms:
            last = Tail(
                "  door frame read to the worker's last instruction",
                "ms",
                self.last_instruction_ms,
                "p99 <= 1 ms",
            )
            lines.append(last)
        lines.append(Tail("  door frame read to worker reaped", "ms", self.silent_ms, GOAL))
        return [*lines, Tail("  door frame read to event out", "ms", self.said_ms)]


async def measure(cues: int, kinds: Sequence[Kind]) -> list[object]:
    """Open the door `cues` times over each of these kinds of work, with every processor busy."""
    lines: list[object] = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            for work in cue_work.chosen(kinds, Path(folder)):
                lines += await _measure(work, cues, Path(folder))
        except WheelMissingError as error:
            lines.append(f"cues: not measured: {error}")
    return lines


@contextlib.contextmanager
def _busy_neighbours(count: int) -> Iterator[None]:
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


async def _measure(work: Work, cues: int, folder: Path) -> list[object]:
    with contextlib.ExitStack() as stack:
        stack.enter_context(_busy_neighbours(work.neighbours))
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        running, car = stack.enter_context(broker()), stack.enter_context(parked_car())
        stamps = stack.enter_context(Stamps(folder / cue_work.STAMPS_FILE)) if work.stamps else None
        rig = Rig(home, running, car, work.use, settle_s=0, backend_options=work.options)
        model = work.stored(home / "models")
        options = LinkOptions(host="127.0.0.1", port=running.port, client_id="bench")
        async with FleetClient(options, outstanding=OUTSTANDING) as fleet, rig.agent() as agent:
            await fleet.until_up(WITHIN_S)
            await until_ready(fleet)
            fed = _Fed()
            feeding = asyncio.create_task(fed.feed(fleet, model, work))
            times = Times()
            bound_ms = None
            for number in range(1, cues + 1):
                await fed.until_working()
                bound_ms = (await agent.ask())["backends"][0]["cancel_bound_ms"]
                # whatever runs just before a cue takes the worker's processor: let it go, and the cue fall anywhere
                await asyncio.sleep(random.uniform(0.05, 0.15))  # noqa: S311 - no secret
                await _cue(agent, car, number, times, stamps)
            feeding.cancel()
            await asyncio.wait([feeding])
    return times.told(work, bound_ms)


class _Fed:
    """The tasks that keep the vehicle busy; `done` of them so far."""

    def __init__(self) -> None:
        self.done = 0

    async def feed(self, fleet: FleetClient, model: ModelRef, work: Work) -> None:
        """Keep the vehicle busy until cancelled."""
        vehicle = fleet.vehicle(VEHICLE, REGION)

        async def repeat() -> None:
            while True:
                await vehicle.submit(model, work.inputs)
                self.done += 1

        async with asyncio.TaskGroup() as tasks:
            for _ in range(OUTSTANDING):
                tasks.create_task(repeat())

    async def until_working(self) -> None:
        """Wait until the worker has done some tasks since the last cue; more of them are under way."""
        enough = self.done + DONE_BETWEEN
        async with asyncio.timeout(WITHIN_S):
            while self.done < enough:
                await asyncio.sleep(0.01)


async def _cue(agent: Agent, car: SimulatedCar, number: int, times: Times, stamps: Stamps | None) -> None:
    sent_ns = boottime_ns()
    car.set(vss.DRIVER_DOOR, True)
    async with asyncio.timeout(WITHIN_S):
        while (preemptions := await agent.preemptions())["count"] < number:
            await asyncio.sleep(0.005)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(SAID_WITHIN_S):  # no event, if the worker was between two tasks
            while (preemptions := await agent.preemptions())["last_said_ms"] is None:
                await asyncio.sleep(0.005)
            times.said_ms.append(preemptions["last_said_ms"])
    seen_ns = preemptions["last_seen_ns"]
    times.sent_ms.append((seen_ns - sent_ns) / NS_PER_MS)
    times.kill_ms.append(preemptions["last_kill_ms"])
    times.silent_ms.append(preemptions["last_silent_ms"])
    if stamps is not None:
        times.last_instruction_ms.append(max(0, stamps.words[0] - seen_ns) / NS_PER_MS)
    car.set(vss.DRIVER_DOOR, False)
