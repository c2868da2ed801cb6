"""How long a door frame takes to end a busy worker: from its being read to every process reaped."""

import asyncio
import hashlib
import importlib.metadata
import random
import tempfile
from collections.abc import Mapping
from pathlib import Path

from agent.link import LinkOptions
from agent.protocol.messages import Datatype, ModelFormat, ModelRef
from benchmarks.report import Figure, quantile
from benchmarks.rig import REGION, VEHICLE, WITHIN_S, Agent, Rig, broker, parked_car, until_ready
from firmware_shims import vss
from firmware_shims.simulated_can import SimulatedCar
from fleet.client import FleetClient, Input

MODEL_FILE = "magika/models/standard_v3_3/model.onnx"
ROWS, ROW_INTS = 8, 2048


async def measure(cues: int) -> list[Figure]:
    """Open the door `cues` times while the file type model runs."""
    kill_ms: list[float] = []
    silent_ms: list[float] = []
    with tempfile.TemporaryDirectory() as folder, broker() as running, parked_car() as car:
        rig = Rig(Path(folder), running, car, "cpu", settle_s=0)
        model = _model(Path(folder))
        options = LinkOptions(host="127.0.0.1", port=running.port, client_id="bench")
        async with FleetClient(options, outstanding=16) as fleet, rig.agent() as agent:
            await fleet.until_up(WITHIN_S)
            await until_ready(fleet)
            feeding = asyncio.create_task(_feed(fleet, model))
            for number in range(1, cues + 1):
                await _until_working(agent)
                preemptions = await _cue(agent, car, number)
                kill_ms.append(preemptions["last_kill_ms"])
                silent_ms.append(preemptions["last_silent_ms"])
            feeding.cancel()
            await asyncio.wait([feeding])
    goal = "p99 <= 20 ms"
    return [
        Figure("door frame read to signal sent, median", "ms", kill_ms),
        Figure("door frame read to worker reaped, median", "ms", silent_ms),
        Figure(f"door frame read to worker reaped, p99 of {cues}", "ms", [quantile(silent_ms, 0.99)], goal),
    ]


def _model(folder: Path) -> ModelRef:
    """The model out of the magika wheel, in the agent's models folder."""
    data = Path(str(importlib.metadata.distribution("magika").locate_file(MODEL_FILE))).read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    (folder / "models").mkdir()
    (folder / "models" / sha256).write_bytes(data)
    return ModelRef("magika", "3.3", sha256, ModelFormat.ONNX)


async def _feed(fleet: FleetClient, model: ModelRef) -> None:
    """Keep the vehicle busy until cancelled."""
    vehicle = fleet.vehicle(VEHICLE, REGION)
    inputs = [Input("bytes", Datatype.INT32, [ROWS, ROW_INTS], bytes(4 * ROWS * ROW_INTS))]

    async def repeat() -> None:
        while True:
            await vehicle.submit(model, inputs)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(16):
            tasks.create_task(repeat())


async def _until_working(agent: Agent) -> None:
    """Wait until rows run, and then a moment, so that the cue falls anywhere in a run."""
    async with asyncio.timeout(WITHIN_S):
        while (await agent.ask())["mode"] != "working":
            await asyncio.sleep(0.01)
    await asyncio.sleep(random.uniform(0.2, 0.3))  # noqa: S311 - no secret


async def _cue(agent: Agent, car: SimulatedCar, number: int) -> Mapping[str, float]:
    car.set(vss.DRIVER_DOOR, True)
    async with asyncio.timeout(WITHIN_S):
        while (preemptions := await agent.preemptions())["count"] < number:
            await asyncio.sleep(0.005)
    car.set(vss.DRIVER_DOOR, False)
    return preemptions
