"""How long `parkwatt run` takes from exec to READY=1, and to its subscriptions standing at the broker."""

import asyncio
import tempfile
import time
from functools import partial
from pathlib import Path

from agent.link import LinkOptions
from agent.protocol.messages import Offline, State
from benchmarks.report import Figure
from benchmarks.rig import REGION, VEHICLE, WITHIN_S, Rig, broker, parked_car
from fleet.client import FleetClient


async def measure(rounds: int) -> list[Figure]:
    """Start the service `rounds` times; the second time is stopped when its first state message arrives."""
    ready_s: list[float] = []
    subscribed_s: list[float] = []
    with tempfile.TemporaryDirectory() as folder, broker() as running, parked_car() as car:
        rig = Rig(Path(folder), running, car, "null", settle_s=60)
        options = LinkOptions(host="127.0.0.1", port=running.port, client_id="bench")
        async with FleetClient(options) as fleet:
            await fleet.until_up(WITHIN_S)
            vehicle = fleet.vehicle(VEHICLE, REGION)
            for boot in range(1, rounds + 1):
                waiting = asyncio.create_task(vehicle.wait_for(partial(_is_of, boot), WITHIN_S))
                async with rig.agent() as agent:
                    ready_s.append(agent.ready_s)
                    await waiting
                    subscribed_s.append(time.monotonic() - agent.started_at)
    return [
        Figure("start to READY=1", "s", ready_s, "<= 0.4 s"),
        Figure(f"start to SUBACK and first state, {running.name}", "s", subscribed_s, "<= 0.5 s"),
    ]


def _is_of(boot: int, state: State | Offline) -> bool:
    return isinstance(state, State) and state.boot == boot
