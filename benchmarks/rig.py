"""What a measurement of the service needs: a broker, a car on a CAN bus, and `parkwatt run` as a process."""

import asyncio
import json
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from agent.protocol.messages import Mode, State
from benchmarks.certificates import Authority
from firmware_shims import signal_map, vss
from firmware_shims.simulated_can import SimulatedCar
from fleet.broker import Broker, IotcoreBroker, MosquittoBroker
from fleet.client import FleetClient

VEHICLE, REGION = "veh-bench", "BR"
WITHIN_S = 60.0
CONFIG = """
[vehicle]
id = "{vehicle}"
region = "{region}"

[mqtt]
port = {port}
{tls}

[[signals]]
shim = "can"
map = "tesla_model3"
[signals.options]
{can_options}

[[signals]]
shim = "scenario"
[signals.options]
file = "{folder}/chip.toml"

[policy]
settle_s = {settle_s}
grid_proof_s = {settle_s}
starts_per_hour = 1_000_000
resume_economic_s = {settle_s}

[[backends]]
use = "{backend}"
max_power_w = 5
[backends.options]
{backend_options}

[models]
source = "file://{folder}/models"
cache_dir = "{folder}/cache"

[trust]
require_signatures = false

[store]
path = "{folder}/agent.db"

[control]
socket = "{folder}/agent.sock"
"""


@dataclass(frozen=True, slots=True)
class Tls:
    """Mutual TLS, with one certificate for everybody: what it costs does not depend on whose it is."""

    ca_file: Path
    cert_file: Path
    key_file: Path

    @classmethod
    def issued(cls, folder: Path) -> "Tls":
        """By an authority of its own."""
        authority = Authority(folder)
        return cls(authority.path, *authority.issue("everybody"))

    @property
    def listener(self) -> tuple[str, ...]:
        """Lines of mosquitto.conf."""
        return (
            f"cafile {self.ca_file}",
            f"certfile {self.cert_file}",
            f"keyfile {self.key_file}",
            "require_certificate true",
        )


def broker(tls: Tls | None = None) -> Broker:
    """Return mosquitto where it is installed, else the embedded broker, which has no TLS."""
    if MosquittoBroker.find() or tls:
        return MosquittoBroker(extra=tls.listener if tls else ())
    return IotcoreBroker()


@dataclass
class Agent:
    """A running `parkwatt run`. `ready_s`: from its start to READY=1."""

    process: asyncio.subprocess.Process
    ready_s: float
    started_at: float
    socket_path: Path

    async def ask(self) -> dict[str, Any]:
        """The answer to `status` on the control socket."""
        reader, writer = await asyncio.open_unix_connection(self.socket_path)
        writer.write(b'{"cmd": "status"}\n')
        line = await reader.readline()
        writer.close()
        await writer.wait_closed()
        status: dict[str, Any] = json.loads(line)["status"]
        return status

    async def preemptions(self) -> Mapping[str, Any]:
        """The figures of the preemptions so far."""
        figures: Mapping[str, Any] = (await self.ask())["preemptions"]
        return figures


@dataclass
class Rig:
    """Everything beside the agent, ready for one."""

    folder: Path
    broker: Broker
    car: SimulatedCar
    backend: str
    settle_s: float
    can_options: Mapping[str, object] | None = None
    """Instead of the car's own; the car is then not heard."""
    backend_options: Mapping[str, object] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    """Of the agent, beyond our own."""
    tls: Tls | None = None

    def write(self) -> Path:
        """Write the configuration; the computer's temperature is the signal that CAN does not carry."""
        for name in ("models", "cache"):
            (self.folder / name).mkdir(exist_ok=True)
        (self.folder / "chip.toml").write_text(f'[initial]\n"{vss.CHIP_TEMPERATURE}" = 45\n')
        path = self.folder / "agent.toml"
        path.write_text(
            CONFIG.format(
                vehicle=VEHICLE,
                region=REGION,
                port=self.broker.port,
                tls=_toml({name: str(path) for name, path in asdict(self.tls).items()}) if self.tls else "",
                can_options=_toml(self.can_options or self.car.options),
                folder=self.folder,
                settle_s=self.settle_s,
                backend=self.backend,
                backend_options=_toml(self.backend_options),
            )
        )
        return path

    @asynccontextmanager
    async def agent(self) -> AsyncIterator[Agent]:
        """Run the service until the block ends."""
        config, address = self.write(), self.folder / "notify.sock"
        address.unlink(missing_ok=True)
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
            notified.bind(str(address))
            notified.setblocking(False)
            started_at = time.monotonic()
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "agent", "run", "--config", str(config)),
                env={**os.environ, **self.environment, "NOTIFY_SOCKET": str(address)},
                stderr=asyncio.subprocess.DEVNULL,
            )
            try:
                async with asyncio.timeout(WITHIN_S):
                    await loop.sock_recv(notified, 100)
                yield Agent(process, time.monotonic() - started_at, started_at, self.folder / "agent.sock")
            finally:
                if process.returncode is None:
                    process.send_signal(signal.SIGTERM)
                await process.wait()


def _toml(options: Mapping[str, object]) -> str:
    return "\n".join(f"{key} = {json.dumps(value)}" for key, value in options.items())


def parked_car() -> SimulatedCar:
    """A parked, charging car on a CAN bus of its own."""
    return SimulatedCar.parked_and_charging(signal_map.load("tesla_model3"))


async def until_ready(fleet: FleetClient) -> None:
    """Wait until the vehicle says that it would work."""
    ready = {Mode.READY, Mode.WORKING}
    vehicle = fleet.vehicle(VEHICLE, REGION)
    await vehicle.wait_for(lambda state: isinstance(state, State) and state.mode in ready, WITHIN_S)
