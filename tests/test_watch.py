"""Who watches the agent hears of every change, and never holds it up."""

import asyncio
import datetime as dt
import json
import signal
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from agents import TOPICS, RunningAgent, agent, write_config
from config_files import config_file, service_paths
from running import PARKWATT, WITHIN_S, service
from wire_fleet import task, wire_fleet

from agent.check.sources import pushed_source
from agent.control import ask
from agent.protocol.keys import write_key_pair
from agent.protocol.messages import Mode
from agent.protocol.reasons import Reason
from agent.settings import load
from agent.status import BlockerStatus, LinkStatus, OrdersStatus, PreemptionStatus, Status, StoreStatus
from agent.status_text import described
from firmware_shims import vss
from firmware_shims.clock import boottime_ns
from firmware_shims.pushed import PushedOptions, PushedSignals
from fleet.broker import Broker, free_port

NOW = dt.datetime(2026, 11, 22, 1, 0, tzinfo=dt.UTC)


class Watcher:
    """The status as somebody hears of it who watches."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self.heard: list[dict[str, Any]] = []

    async def next(self) -> dict[str, Any]:
        line = json.loads(await asyncio.wait_for(self._reader.readline(), WITHIN_S))
        assert line.pop("ok")
        self.heard.append(line["status"])
        return self.heard[-1]

    async def until(self, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        while not holds(status := await self.next()):
            pass
        return status


@asynccontextmanager
async def watching(folder: Path) -> AsyncIterator[Watcher]:
    reader, writer = await asyncio.open_unix_connection(folder / "agent.sock")
    writer.write(b'{"cmd": "watch"}\n')
    try:
        yield Watcher(reader)
    finally:
        writer.close()
        await writer.wait_closed()


def codes(status: dict[str, Any]) -> list[int]:
    return [blocker["code"] for blocker in status["blockers"]]


async def test_a_watcher_hears_the_state_now_and_every_change_of_it(tmp_path: Path, iotcore: Broker) -> None:
    config = write_config(tmp_path, iotcore.port, run_us=60_000)
    async with agent(config) as car, wire_fleet(iotcore.port, TOPICS) as fleet:
        await car.until_ready()
        async with watching(tmp_path) as watcher:
            assert (await watcher.next())["mode"] == "ready"
            fleet.send(task("night-1", count=50))
            assert (await watcher.until(lambda status: bool(status["tasks"])))["tasks"][0]["id"] == "night-1"
            await car.until_rows(1)
            car.car.open_door()
            stopped = await watcher.until(lambda status: status["preemptions"]["count"] == 1)
            assert (stopped["mode"], codes(stopped)) == ("blocked", [1001])
            await asyncio.to_thread(ask, tmp_path / "agent.sock", {"cmd": "pause"})
            assert (await watcher.until(lambda status: 1017 in codes(status)))["orders"]["paused"]


async def test_a_value_that_drifts_is_no_news(tmp_path: Path) -> None:
    async with offline(tmp_path) as car:
        car.car.open_door()
        async with watching(tmp_path) as watcher:
            await watcher.until(lambda status: codes(status) == [1001])
            for soc_pct in range(60, 40, -1):
                car.car.set(vss.SOC, soc_pct)
                await asyncio.sleep(0.02)
            car.car.set(vss.SOC, 10.0)
            await watcher.until(lambda status: 1004 in codes(status))
        assert len(watcher.heard) <= 3  # the link may have gone down meanwhile


async def test_a_burst_of_changes_is_told_in_few_lines_and_the_last_word_holds(tmp_path: Path) -> None:
    async with offline(tmp_path) as car:
        async with watching(tmp_path) as watcher:
            await watcher.next()
            began = asyncio.get_running_loop().time()
            for _ in range(60):
                car.car.open_door()
                await asyncio.sleep(0.005)
                car.car.close_door()
                await asyncio.sleep(0.005)
            car.car.set(vss.SOC, 10.0)
            await watcher.until(lambda status: 1004 in codes(status))
            took_s = asyncio.get_running_loop().time() - began
        assert len(watcher.heard) <= 3 + 10 * took_s


async def test_a_watcher_that_does_not_read_is_nobodys_business(tmp_path: Path) -> None:
    async with offline(tmp_path) as car, watching(tmp_path), watching(tmp_path) as watcher:
        await watcher.next()
        car.car.open_door()
        await watcher.until(lambda status: 1001 in codes(status))


@asynccontextmanager
async def offline(folder: Path) -> AsyncIterator[RunningAgent]:
    """A parked car whose agent has no broker to talk to."""
    async with agent(write_config(folder, free_port()), wait_for_link=False) as car:
        await car.until(lambda: car.service.link.status.error, "the link has given up once")
        await car.until_ready()
        yield car


async def test_a_window_that_runs_and_a_schedule_say_until_when(tmp_path: Path) -> None:
    noon = dt.datetime(2026, 11, 22, 12, tzinfo=dt.UTC)
    policy = 'schedule = ["sun 22:00-24:00"]\ntime_zone = "Europe/Berlin"'
    config = write_config(tmp_path, free_port(), settle_s=300, policy=policy)
    async with agent(config, wait_for_link=False, wall=noon.timestamp), watching(tmp_path) as watcher:
        said = await watcher.until(lambda status: codes(status) == [1009])
        (schedule,) = said["blockers"]
        left = dt.datetime.fromisoformat(schedule["until"]) - dt.datetime.now(dt.UTC)
        assert abs(left - dt.timedelta(hours=9)) < dt.timedelta(minutes=1)
        assert said["time_zone"] == "Europe/Berlin"


async def test_a_car_that_settles_says_when_it_will_be_ready(tmp_path: Path) -> None:
    config = write_config(tmp_path, free_port(), settle_s=300)
    async with agent(config, wait_for_link=False), watching(tmp_path) as watcher:
        said = await watcher.until(lambda status: status["mode"] == "settling")
        (window,) = said["blockers"]
        left = dt.datetime.fromisoformat(window["until"]) - dt.datetime.now(dt.UTC)
        assert dt.timedelta(seconds=200) < left <= dt.timedelta(seconds=300)


async def test_a_link_that_is_down_says_when_it_is_tried_again(tmp_path: Path) -> None:
    async with offline(tmp_path), watching(tmp_path) as watcher:
        while (link := (await watcher.next())["link"])["next_try"] is None:
            await asyncio.to_thread(ask, tmp_path / "agent.sock", {"cmd": "pause"})
            await asyncio.to_thread(ask, tmp_path / "agent.sock", {"cmd": "resume"})
        assert not link["up"]


# For people


def status(orders: OrdersStatus) -> Status:
    return Status(
        vehicle="veh-0001",
        region="BR",
        version="1.2.3",
        boot=7,
        started_at=NOW,
        mode=Mode.BLOCKED,
        blockers=[],
        budget_w=0.0,
        backends=[],
        tasks=[],
        preemptions=PreemptionStatus(0),
        link=LinkStatus(True, NOW),
        store=StoreStatus(0, 0, 0, 0),
        orders=orders,
    )


@pytest.mark.parametrize(
    ("orders", "line"),
    [
        (OrdersStatus(), None),
        (OrdersStatus(paused=True), "orders    paused by the vehicle OS"),
        (OrdersStatus(draining=True, consent=True), "orders    the owner consents, drain by the fleet"),
        (
            OrdersStatus(consent=False, departure=NOW + dt.timedelta(hours=6.5)),
            "orders    the owner does not consent, departure in 6.5 h",
        ),
        (OrdersStatus(departure=NOW - dt.timedelta(minutes=10)), "orders    departure 10 min ago"),
    ],
)
def test_status_shows_the_orders_that_stand(orders: OrdersStatus, line: str | None) -> None:
    lines = [text for text in described(status(orders), NOW) if text.startswith("orders")]
    assert lines == ([] if line is None else [line])


def test_watching_on_the_command_line_shows_each_change_and_ends_with_the_agent(tmp_path: Path) -> None:
    write_key_pair(tmp_path / "keys", "fleet-1")
    config = config_file(tmp_path, service_paths(tmp_path))
    with service(tmp_path, config) as running:
        watcher = subprocess.Popen(
            [*PARKWATT, "status", "--watch", "--config", str(config)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with watcher:
            assert watcher.stdout is not None
            assert watcher.stdout.readline().startswith("parkwatt ")
            ask(tmp_path / "agent.sock", {"cmd": "pause"})
            for line in watcher.stdout:
                if line == "orders    paused by the vehicle OS\n":
                    break
            else:
                pytest.fail("the pause was not shown")
            running.send_signal(signal.SIGTERM)
            _, complaint = watcher.communicate(timeout=WITHIN_S)
    assert watcher.returncode == 3
    assert "the agent has hung up" in complaint


# For `parkwatt check`


def test_check_takes_the_running_agents_word_for_what_is_pushed(tmp_path: Path) -> None:
    settings = load(config_file(tmp_path, service_paths(tmp_path)), {})
    source = PushedSignals("socket", PushedOptions((vss.SPEED, vss.GEAR)), boottime_ns)
    unseen = pushed_source(source, settings, None)
    assert unseen.ok
    assert "2 signals, to be pushed over" in unseen.text
    running = status(OrdersStatus())
    assert pushed_source(source, settings, running).ok
    running.blockers = [
        BlockerStatus(Reason.UNKNOWN_SIGNAL, "unknown_signal", vss.SPEED, "a good reading", NOW)
    ]
    silent = pushed_source(source, settings, running)
    assert not silent.ok
    assert silent.text == f"the agent that runs now has no good value of {vss.SPEED}"
    running.blockers[0].value = vss.SOC  # somebody else's
    assert pushed_source(source, settings, running).ok
