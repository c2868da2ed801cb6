"""The command of the real unit file under a service manager of the tests' own: ready, fed, told, reloaded, stopped."""

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from agents import TOPICS, write_config
from fault_proxy import FaultProxy
from service_manager import HANGING, STOP_MOST_S, Started, systemd_starts
from vehicle_os import takes_pushes, vehicle_os
from wire_fleet import WireFleet, task, wire_fleet

from agent.protocol.messages import Offline, TaskState
from agent.protocol.reasons import Reason
from firmware_shims import vss
from fleet.broker import Broker, IotcoreBroker, free_port

WATCHDOG_S = 1.2
WILL_DELAY_S = 30.0
"""The broker says it, too, but so late."""
SLOW_US = 60_000


@pytest.fixture
def alone(tmp_path: Path) -> Path:
    """A parked car whose broker is not there."""
    return write_config(tmp_path, free_port(), settle_s=0)


async def test_it_is_ready_without_a_broker_and_then_feeds_its_watchdog(alone: Path) -> None:
    async with systemd_starts(alone, watchdog_s=WATCHDOG_S) as service:
        await service.until_said("WATCHDOG=1", times=4)
        assert service.datagrams[0] == "READY=1"
        fed_s = [said_s for said_s, word in service.words if word == "WATCHDOG=1"]
        assert fed_s[3] - fed_s[0] > WATCHDOG_S / 2, "a third of the period lies between two"
        await service.stop()


async def test_without_a_watchdog_it_feeds_none(alone: Path) -> None:
    async with systemd_starts(alone) as service:
        await service.until_status("ready")
        assert (await service.stop())[0] == 0
        assert service.count("WATCHDOG=1") == 0


async def test_the_status_says_what_it_does_and_why_not_more(tmp_path: Path) -> None:
    config = takes_pushes(write_config(tmp_path, free_port(), settle_s=2.5))
    async with systemd_starts(config) as service:
        await service.until(
            lambda: service.status.startswith("blocked: unknown_signal (1000) Vehicle."), "nobody pushes"
        )
        with vehicle_os(tmp_path / "agent.sock") as car, car.pushing():
            await service.until_status("ready")
            await asyncio.to_thread(car.push, vss.DRIVER_DOOR, True)
            await service.until_status("blocked: owner_present (1001)")
            await asyncio.to_thread(car.push, vss.DRIVER_DOOR, False)
            await service.until_status("settling: owner_present to stay clear")
            await service.until_status("ready")
        await service.stop()


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("loop", ""),
        ("store", "the store has been writing for "),
        ("guard", "the guard does not look at the time any more"),
        ("task", "task keys has not gone on for "),
    ],
)
async def test_the_watchdog_is_not_fed_when_a_part_hangs(alone: Path, part: str, words: str) -> None:
    async with systemd_starts(alone, watchdog_s=WATCHDOG_S, PYTHONPATH=HANGING, HANG=part) as service:
        await service.until_said("WATCHDOG=1", times=8)
        service.signal(signal.SIGUSR1)
        await service.until_unfed_for(2 * WATCHDOG_S)
        assert words in service.log.read_text()
        service.signal(signal.SIGABRT)  # what systemd does then
        assert await service.ended() == -signal.SIGABRT
        assert "most recent call first" in service.log.read_text(), "it says where each thread stood"


async def test_a_part_that_is_well_again_is_fed_for_again(alone: Path) -> None:
    async with systemd_starts(alone, watchdog_s=WATCHDOG_S) as service:
        await service.until_said("WATCHDOG=1")
        service.signal(signal.SIGSTOP)
        await service.until_unfed_for(WATCHDOG_S)
        service.signal(signal.SIGCONT)
        await service.until_said("WATCHDOG=1", times=service.count("WATCHDOG=1") + 2)
        await service.stop()


async def test_a_hanging_supervisor_loses_its_worker(tmp_path: Path, iotcore: Broker) -> None:
    """It cannot end it when the owner comes back: two seconds are promised."""
    config = write_config(tmp_path, iotcore.port, run_us=SLOW_US)
    async with systemd_starts(config) as service, wire_fleet(iotcore.port, TOPICS) as fleet:
        await working(service, fleet)
        service.signal(signal.SIGSTOP)
        async with asyncio.timeout(10 * STOP_MOST_S):
            while service.workers:
                await asyncio.sleep(0.01)


async def working(service: Started, fleet: WireFleet) -> None:
    await fleet.until(fleet.last_state, "the car says that it is there")
    fleet.send(task("night-1", count=1000))
    await service.until_status("working")
    assert service.workers


async def test_it_stops_in_the_middle_of_work_and_says_good_bye(tmp_path: Path, iotcore: Broker) -> None:
    config = write_config(tmp_path, iotcore.port, run_us=SLOW_US)
    async with systemd_starts(config) as service, wire_fleet(iotcore.port, TOPICS) as fleet:
        await working(service, fleet)
        (worker,) = service.workers
        await service.stops_cleanly()
        assert not Path(f"/proc/{worker}").exists()
        assert service.words[-1][1] == "STOPPING=1"
        released = await fleet.heard_event("night-1", TaskState.RELEASED)
        assert released.reason is not None
        assert released.reason.code is Reason.RESTARTED
        async with asyncio.timeout(WILL_DELAY_S / 2):
            await fleet.until(lambda: fleet.states and isinstance(fleet.states[-1], Offline), "offline")
        await fleet.until(lambda: fleet.rows_done("night-1") >= released.rows_done, "the rows that were done")
        assert fleet.rows_done("night-1") == released.rows_done


async def test_it_stops_in_time_when_the_broker_has_died(tmp_path: Path) -> None:
    with IotcoreBroker() as broker:
        config = write_config(tmp_path, broker.port, run_us=SLOW_US)
        async with systemd_starts(config) as service:
            async with wire_fleet(broker.port, TOPICS) as fleet:
                await working(service, fleet)
            broker.kill()
            await service.stops_cleanly()


async def test_it_stops_in_time_when_the_broker_does_not_answer(tmp_path: Path, iotcore: Broker) -> None:
    async with FaultProxy(iotcore.port) as proxy:
        config = write_config(tmp_path, proxy.port, run_us=SLOW_US)
        async with systemd_starts(config) as service:
            async with wire_fleet(iotcore.port, TOPICS) as fleet:
                await working(service, fleet)
            proxy.hold()
            await service.stops_cleanly()


@pytest.mark.parametrize(
    ("how", "status"),
    [
        ("pass", 0),
        ("deadline.failed = True", 1),
        ("deadline.store = SimpleNamespace(writer=SimpleNamespace(busy_since_ns=1))", 1),
        ("deadline.store = SimpleNamespace(writer=SimpleNamespace(busy_since_ns=None))", 0),
    ],
)
def test_whatever_hangs_at_the_end_it_is_over_in_time_and_says_how_it_went(how: str, status: int) -> None:
    lines = (
        "import threading",
        "from types import SimpleNamespace",
        "from agent.serve import Deadline",
        "deadline = Deadline()",
        how,
        "deadline.begin()",
        "deadline.begin()",
        "threading.Event().wait()",
    )
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], check=False, timeout=30)
    assert done.returncode == status
