"""The car starts in any order: without network, broker, CAN interface or GPU, and each is taken up when it comes."""

import asyncio
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from agents import TOPICS, agent, write_config
from late_backends import THERE
from service_manager import HANGING, systemd_starts
from wire_fleet import WireFleet, task, wire_fleet

from agent import station
from agent.protocol.messages import TaskState
from agent.protocol.reasons import Reason
from firmware_shims import signal_map
from firmware_shims.simulated_can import SimulatedCar
from fleet.broker import Broker, IotcoreBroker, free_port

TESTS = Path(__file__).parent
TESLA = signal_map.load("tesla_model3")
SCRIPTED = '[[signals]]\nshim = "scenario"\n'
ON_CAN = """
[[signals]]
shim = "can"
map = "tesla_model3"
[signals.options]
interface = "socketcand"
host = "127.0.0.1"
port = {port}
channel = "can0"

[[signals]]
shim = "linux"
[signals.options]
root = "{folder}/sys"
[signals.options.sensors]
"Vehicle.Compute.Chip.Temperature" = "thermal:cpu-thermal"
"""
UNKNOWN = "blocked: unknown_signal (1000) "


def on_can(folder: Path, port: int) -> Path:
    """A car whose signals come from a bus and from the computer's own sensors."""
    config = write_config(folder, free_port())
    config.write_text(config.read_text().replace(SCRIPTED, ON_CAN.format(port=port, folder=folder)))
    return config


def load_thermal_driver(folder: Path) -> None:
    zone = folder / "sys/class/thermal/thermal_zone0"
    zone.mkdir(parents=True)
    (zone / "type").write_text("cpu-thermal\n")
    (zone / "temp").write_text("45000\n")


def without_network() -> list[str]:
    """A program that takes the network away from another, the loopback interface too."""
    program = shutil.which("unshare")
    if program is None:
        pytest.skip("no unshare on the PATH")
    for flags in (["--net"], ["--map-root-user", "--net"]):
        if subprocess.run([program, *flags, "true"], check=False, capture_output=True).returncode == 0:
            return [program, *flags]
    pytest.skip("this user may make no network namespace")


async def answered(fleet: WireFleet, name: str) -> None:
    fleet.send(task(name))
    await fleet.until(lambda: fleet.is_final(name), f"the answer to {name}")


async def test_without_any_network_it_is_ready_and_stops(tmp_path: Path) -> None:
    config = write_config(tmp_path, 1883, settle_s=0)
    config.write_text(config.read_text().replace("[mqtt]\n", '[mqtt]\nhost = "broker.example"\n'))
    async with systemd_starts(config, under=without_network()) as service:
        await service.until_status("ready")
        await service.until_logged("no connection to broker.example:1883")
        await service.stops_cleanly()


async def test_a_name_server_that_does_not_answer_holds_nothing_up(tmp_path: Path) -> None:
    config = write_config(tmp_path, 1883, settle_s=0)
    async with systemd_starts(config, PYTHONPATH=HANGING, HANG="names") as service:
        await service.until_status("ready")
        await service.until_logged("hangs")
        await service.stops_cleanly()
        assert "ended without waiting any longer for the threads" in service.log.read_text()


async def test_a_broker_that_comes_late_is_found(tmp_path: Path) -> None:
    port = free_port()
    async with systemd_starts(write_config(tmp_path, port)) as service:
        await service.until_status("ready")
        with IotcoreBroker(port):
            async with wire_fleet(port, TOPICS) as fleet:
                await fleet.until(fleet.last_state, "the car is there")
                await answered(fleet, "night-1")
        with IotcoreBroker(port):
            async with wire_fleet(port, TOPICS) as fleet:
                await fleet.until(fleet.last_state, "the car is there again")
                await answered(fleet, "night-2")
        await service.stops_cleanly()


async def test_a_bus_and_a_sensor_that_come_late_and_go_are_taken_up_again(tmp_path: Path) -> None:
    port = free_port()
    async with systemd_starts(on_can(tmp_path, port)) as service:
        await service.until(lambda: service.status.startswith(UNKNOWN), "nothing is known")
        with SimulatedCar.parked_and_charging(TESLA, port):
            await service.until_logged("signals can: listening")
            load_thermal_driver(tmp_path)
            await service.until_status("ready")
        await service.until(lambda: service.status.startswith(UNKNOWN), "the bus has gone")
        with SimulatedCar.parked_and_charging(TESLA, port):
            await service.until_status("ready")
        await service.stops_cleanly()


async def test_a_bus_that_takes_the_connection_and_says_nothing_does_not_hold_up_the_end(
    tmp_path: Path,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        async with systemd_starts(on_can(tmp_path, mute.getsockname()[1])) as service:
            await service.until(lambda: service.status.startswith(UNKNOWN), "nothing is known")
            connection, _ = await asyncio.to_thread(mute.accept)
            with connection:
                await service.stops_cleanly()


@pytest.mark.parametrize("backend", ["ComesLate", "DriverComesLate"])
async def test_a_device_that_comes_late_is_found_at_a_later_task(
    tmp_path: Path, iotcore: Broker, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    monkeypatch.setattr(station, "PROBE_AGAIN_S", 1.0)
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    monkeypatch.setenv(THERE, str(tmp_path / "device"))
    config = write_config(tmp_path, iotcore.port, backend=f"late_backends:{backend}")
    async with agent(config) as car, wire_fleet(iotcore.port, TOPICS) as fleet:
        await car.until_ready()
        for name in ("night-1", "night-2"):  # the first has it looked for, the second comes soon after
            fleet.send(task(name))
            released = await fleet.heard_event(name, TaskState.RELEASED)
            assert released.reason is not None
            assert released.reason.code is Reason.BACKEND_UNUSABLE
        (only,) = car.service.stations
        await car.until(lambda: only.pid is None and not only.pause_s, "it may be looked for again")
        (tmp_path / "device").touch()
        assert only.state().device == "", "for the fleet it has not been looked for"
        await answered(fleet, "night-3")
        assert only.state().usable


async def test_a_worker_that_finds_nothing_is_not_started_again_at_once(
    tmp_path: Path, iotcore: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    monkeypatch.setenv(THERE, str(tmp_path / "device"))
    config = write_config(tmp_path, iotcore.port, backend="late_backends:ComesLate")
    async with agent(config) as car, wire_fleet(iotcore.port, TOPICS) as fleet:
        await car.until_ready()
        fleet.send(task("night-1"))
        await fleet.heard_event("night-1", TaskState.RELEASED)
        (only,) = car.service.stations
        assert only.pause_s > station.PROBE_AGAIN_S / 2
        assert only.state().why == "no device found"
        assert not only.state().usable


async def test_a_stop_while_the_store_is_being_opened_is_clean(tmp_path: Path) -> None:
    config = write_config(tmp_path, free_port())
    (tmp_path / "agent.db").touch()
    async with systemd_starts(config, PYTHONPATH=HANGING, HANG="opening") as service:
        await service.until_logged("hangs")
        await service.stops_cleanly()
        assert service.words == []


@pytest.mark.parametrize("part", ["reading", "importing"])
async def test_a_stop_while_the_configuration_is_being_read_is_clean(tmp_path: Path, part: str) -> None:
    config = write_config(tmp_path, free_port())
    async with systemd_starts(config, PYTHONPATH=HANGING, HANG=part) as service:
        await service.until_logged("hangs")
        await service.stops_cleanly()


@pytest.mark.parametrize("after_s", [0.02, 0.1, 0.2, 0.3, 0.4, 0.6])
async def test_a_stop_at_any_moment_of_the_start_is_clean(tmp_path: Path, after_s: float) -> None:
    async with systemd_starts(write_config(tmp_path, free_port())) as service:
        await asyncio.sleep(after_s)
        status, _ = await service.stop()
        # the interpreter itself has not come so far as to catch the signal, which systemd takes for clean, too
        assert status in {0, -signal.SIGTERM}
        assert "Traceback" not in service.log.read_text()


async def test_a_wrong_configuration_is_the_one_reason_not_to_start(tmp_path: Path) -> None:
    config = write_config(tmp_path, free_port())
    config.write_text(config.read_text() + "\n[mqqt]\n")
    async with systemd_starts(config) as service:
        assert await service.ended() == 2
        assert service.words == []
        (line,) = service.log.read_text().splitlines()
        assert "mqqt: unknown key; did you mean 'mqtt'?" in line
