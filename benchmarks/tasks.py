"""Tasks end to end per second, with durable inbox and outbox, beside a bare MQTT request/response in the same run."""

import hashlib
import statistics
import tempfile
import time
from pathlib import Path

from agent.link import LinkOptions
from agent.protocol.messages import Datatype, ModelFormat, ModelRef
from benchmarks import bare_mqtt
from benchmarks.report import Figure
from benchmarks.rig import REGION, VEHICLE, WITHIN_S, Rig, broker, parked_car, until_ready
from fleet.client import FleetClient, Input

OUTSTANDING = 64
PAYLOAD_BYTES = 1024
MODEL = b"any bytes are a model to the null backend"
REF = ModelRef("null", "1", hashlib.sha256(MODEL).hexdigest(), ModelFormat.ONNX)


async def measure(rounds: int, tasks: int) -> list[Figure]:
    """Alternate rounds of `tasks` tasks and as many bare requests over one broker."""
    ours: list[float] = []
    bare: list[float] = []
    latency_ms: list[float] = []
    with tempfile.TemporaryDirectory() as folder, broker() as running, parked_car() as car:
        rig = Rig(Path(folder), running, car, "null", settle_s=0.5)
        (Path(folder) / "models").mkdir()
        (Path(folder) / "models" / REF.sha256).write_bytes(MODEL)
        options = LinkOptions(host="127.0.0.1", port=running.port, client_id="bench")
        async with FleetClient(options, outstanding=OUTSTANDING) as fleet, rig.agent():
            await fleet.until_up(WITHIN_S)
            await until_ready(fleet)
            await _rate(fleet, OUTSTANDING)  # the worker starts, the model is loaded
            for _ in range(rounds):
                bare.append(await bare_mqtt.rate(running.port, tasks, OUTSTANDING, PAYLOAD_BYTES))
                ours.append(await _rate(fleet, tasks))
            latency_ms += [await _latency_ms(fleet) for _ in range(200)]
    ratios = [mine / theirs for mine, theirs in zip(ours, bare, strict=True)]
    where = f"{PAYLOAD_BYTES} B, {OUTSTANDING} outstanding, {running.name}"
    return [
        Figure(f"tasks, null backend, {where}", "tasks/s", ours, ">= 1,000"),
        Figure(f"bare aiomqtt request/response, {where}", "1/s", bare),
        Figure("ratio of the two", "", ratios),
        Figure("task latency, one outstanding", "ms", [statistics.median(latency_ms)]),
    ]


async def _rate(fleet: FleetClient, tasks: int) -> float:
    vehicle = fleet.vehicle(VEHICLE, REGION)
    inputs = [Input("x", Datatype.UINT8, [1, PAYLOAD_BYTES], bytes(PAYLOAD_BYTES))]
    begun_s = time.perf_counter()
    offers = [vehicle.offer(REF, inputs) for _ in range(tasks)]
    for offer in offers:
        await offer.answer()
    return tasks / (time.perf_counter() - begun_s)


async def _latency_ms(fleet: FleetClient) -> float:
    inputs = [Input("x", Datatype.UINT8, [1, PAYLOAD_BYTES], bytes(PAYLOAD_BYTES))]
    begun_s = time.perf_counter()
    await fleet.vehicle(VEHICLE, REGION).submit(REF, inputs)
    return (time.perf_counter() - begun_s) * 1000
