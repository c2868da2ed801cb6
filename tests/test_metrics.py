"""Prometheus asks the real agent: what it reads is what `parkwatt status` says, and what the fleet has seen."""

import asyncio
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from agent_process import running_agent
from agents import TOPICS, agent, write_config
from scraping import Scrape, Where, answered, scrape
from vehicle_os import takes_pushes, vehicle_os
from wire_fleet import NULL_SHA256, WITHIN_S, WireFleet, task, wire_fleet

from agent.control import ask
from agent.metrics import switch
from agent.metrics.page import FRESH_S
from agent.protocol.messages import EnergySource, Mode, ModelFormat, ModelRef, TaskState
from agent.protocol.reasons import Reason
from firmware_shims import vss
from fleet.broker import Broker, free_port

SLOW_US = 20_000
MODELLED = '\n[meter]\nuse = "model"\n[meter.options]\nwatts_per_core = 7.0\n'
PROMTOOL = shutil.which("promtool")


def on_socket(folder: Path) -> str:
    return f'\n[metrics]\nlisten = "unix:{folder}/metrics.sock"\n'


async def until(where: Where, holds: Callable[[Scrape], object], what: str) -> Scrape:
    """Scrape until it holds."""
    async with asyncio.timeout(WITHIN_S):
        while not holds(seen := await scrape(where)):
            await asyncio.sleep(0.05)
    assert seen, what
    return seen


def mode(seen: Scrape) -> str:
    (present,) = [m.value for m in Mode if seen("parkwatt_mode", mode=m.value) == 1]
    return present


def blockers(seen: Scrape) -> set[str]:
    return {
        labels["reason"]
        for labels in seen.labels("parkwatt_blocked")
        if seen("parkwatt_blocked", **labels) == 1
    }


async def status_of(folder: Path) -> dict[str, Any]:
    answer = await asyncio.to_thread(ask, folder / "agent.sock", {"cmd": "status"})
    status: dict[str, Any] = answer["status"]
    return status


def check_agree(seen: Scrape, status: dict[str, Any]) -> None:
    """Everything that both say, while nothing happens."""
    assert mode(seen) == status["mode"]
    assert blockers(seen) == {blocker["name"] for blocker in status["blockers"]}
    assert seen("parkwatt_power_budget_watts") == status["budget_w"]
    assert seen("parkwatt_build_info", version=status["version"]) == 1
    assert seen("parkwatt_link_up") == status["link"]["up"]
    assert seen.total("parkwatt_open_tasks") == len(status["tasks"])
    assert seen("parkwatt_store_inbox_tasks") == status["store"]["open_tasks"]
    assert seen("parkwatt_store_outbox_results") == status["store"]["unsettled_results"]
    assert seen("parkwatt_store_used_bytes") == status["store"]["bytes_used"]
    free_bytes = status["store"]["bytes_max"] - status["store"]["bytes_used"]
    assert seen("parkwatt_store_free_bytes") == free_bytes
    preemptions = status["preemptions"]
    assert seen.total("parkwatt_preemptions_total") == preemptions["count"]
    assert seen("parkwatt_preemption_kill_seconds_count") == preemptions["count"]


async def quiet(where: Where, folder: Path) -> tuple[Scrape, dict[str, Any]]:
    """A page and a status between which nothing has happened on disk."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            before = await status_of(folder)
            await asyncio.sleep(FRESH_S)
            seen, after = await scrape(where), await status_of(folder)
            if all(before[part] == after[part] for part in ("mode", "tasks", "preemptions", "store")):
                return seen, after


async def test_prometheus_sees_work_and_a_preemption_as_status_and_fleet_do(
    tmp_path: Path, iotcore: Broker
) -> None:
    config = write_config(tmp_path, iotcore.port, run_us=SLOW_US, extra=MODELLED + on_socket(tmp_path))
    where = tmp_path / "metrics.sock"
    async with wire_fleet(iotcore.port, TOPICS) as fleet, running_agent(takes_pushes(config)) as agent:
        with vehicle_os(tmp_path / "agent.sock") as car, car.pushing():
            await fleet.until(fleet.last_state, "a state")
            fleet.send(task("quick", count=8))
            await fleet.until(lambda: fleet.is_final("quick"), "the answer")
            fleet.send(task("refused", count=8, audience="veh-2"))
            await fleet.heard_event("refused", TaskState.REJECTED)
            fleet.send(task("long", count=400))
            working = await until(
                where, lambda seen: seen("parkwatt_rows_total", backend="null") > 12, "work"
            )
            assert (mode(working), blockers(working)) == ("working", set())
            assert working.total("parkwatt_open_tasks") == 1
            await asyncio.to_thread(car.push, vss.DRIVER_DOOR, True)
            await fleet.heard_event("long", TaskState.PREEMPTED)
            await agent.until_no_worker()
            seen, status = await quiet(where, tmp_path)
            check_agree(seen, status)
            check_work(seen, status, fleet)
            check_preemption(seen, status)
        assert await agent.stop() == 0
    assert not where.exists()


def check_work(seen: Scrape, status: dict[str, Any], fleet: WireFleet) -> None:
    (long,) = status["tasks"]
    assert seen("parkwatt_rows_total", backend="null") == 8 + long["rows_done"]
    assert seen("parkwatt_tasks_total", outcome="done", reason="") == 1
    assert seen("parkwatt_tasks_total", outcome="rejected", reason="wrong_audience") == 1
    assert seen("parkwatt_refused_messages_total", reason="wrong_audience") == 1
    answered_j = sum(result.usage.energy_j or 0.0 for result, _ in fleet.results)
    assert seen("parkwatt_energy_joules_total", backend="null", source="model") == pytest.approx(answered_j)
    taken_s = sum(result.usage.device_s for result, _ in fleet.results)
    assert seen("parkwatt_device_seconds_total", backend="null") == pytest.approx(taken_s)
    assert seen("parkwatt_store_commits_total") > 3
    assert seen("process_resident_memory_bytes") > 10e6


def check_preemption(seen: Scrape, status: dict[str, Any]) -> None:
    told = status["preemptions"]
    assert blockers(seen) >= {"owner_present"}
    assert seen("parkwatt_preemptions_total", reason="owner_present") == told["count"] == 1
    assert seen("parkwatt_preemption_kill_seconds_sum") == pytest.approx(told["last_kill_ms"] / 1000)
    assert seen("parkwatt_preemption_reaped_seconds_sum") == pytest.approx(told["last_silent_ms"] / 1000)
    assert seen("parkwatt_worker_ends_total", backend="null", by="agent") == 1
    assert seen("parkwatt_worker_ends_total", backend="null", by="itself") == 0
    assert seen("parkwatt_preemptions_total", reason="chip_temperature") == 0


async def test_what_others_choose_is_in_no_label(tmp_path: Path, iotcore: Broker) -> None:
    config = write_config(tmp_path, iotcore.port, extra=MODELLED + on_socket(tmp_path))
    known = {each.value for kind in (Mode, TaskState, EnergySource) for each in kind}
    known |= {reason.label for reason in Reason} | {"", "null", "itself", "agent"}
    async with agent(config) as car, wire_fleet(iotcore.port, TOPICS) as fleet:
        for number in range(20):
            model = ModelRef(f"model-{number}", f"version-{number}", NULL_SHA256, ModelFormat.ONNX)
            fleet.send(task(f"task-{number}", count=1, model=model))
            fleet.publish(TOPICS.task, f"garbage-{number}".encode())
        await fleet.until(lambda: all(fleet.is_final(f"task-{n}") for n in range(20)), "answers")
        await car.until_settled()
        seen = await scrape(tmp_path / "metrics.sock")
    assert seen("parkwatt_tasks_total", outcome="done", reason="") == 20
    for name in seen.samples:
        for labels in seen.labels(name):
            open_ended = {labels.pop("le", ""), labels.pop("version", "")}
            assert set(labels.values()) <= known, (name, labels, open_ended)
    assert not any(word in seen.text for word in ("task-", "model-", "version-1", NULL_SHA256, "veh-1"))


@pytest.mark.skipif(PROMTOOL is None, reason="no promtool on the PATH: apt-get install prometheus")
async def test_prometheus_has_nothing_against_names_and_units(tmp_path: Path, iotcore: Broker) -> None:
    config = write_config(tmp_path, iotcore.port, extra=MODELLED + on_socket(tmp_path))
    async with agent(config) as car, wire_fleet(iotcore.port, TOPICS) as fleet:
        fleet.send(task("quick"))
        await fleet.until(lambda: fleet.is_final("quick"), "the answer")
        car.car.set(vss.DRIVER_DOOR, True)
        await car.until_preempted()
        seen = await scrape(tmp_path / "metrics.sock")
    assert PROMTOOL is not None
    checked = await asyncio.to_thread(
        subprocess.run,
        [PROMTOOL, "check", "metrics"],
        input=seen.text,
        capture_output=True,
        text=True,
        check=False,
        timeout=WITHIN_S,
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


async def test_a_port_of_this_computer_serves_as_well(tmp_path: Path, iotcore: Broker) -> None:
    where = "127.0.0.1", free_port()
    metrics = f'\n[metrics]\nlisten = "127.0.0.1:{where[1]}"\n'
    async with agent(write_config(tmp_path, iotcore.port, extra=metrics)):
        assert (await scrape(where))("parkwatt_link_up") == 1
        assert (await answered(where, b"GET /metrics HTTP/1.1\r\nHost: evil.example\r\n\r\n"))[0] == 421


async def test_a_disk_that_hangs_is_told_and_not_waited_for(tmp_path: Path, iotcore: Broker) -> None:
    config = write_config(tmp_path, iotcore.port, extra=on_socket(tmp_path))
    async with agent(config) as car:
        hangs = threading.Event()
        stuck = car.service.store.run(lambda _: hangs.wait(WITHIN_S))
        try:
            seen = await scrape(tmp_path / "metrics.sock")
            assert seen("parkwatt_store_answers") == 0
            assert "parkwatt_store_inbox_tasks" not in seen.samples
            assert seen("parkwatt_store_busy_seconds") > 0.5
        finally:
            hangs.set()
        assert await stuck
        back = await until(
            tmp_path / "metrics.sock", lambda seen: seen("parkwatt_store_answers"), "the disk is back"
        )
        assert back("parkwatt_store_inbox_tasks") == 0


async def test_without_the_library_the_car_works_and_says_what_to_do(
    tmp_path: Path, iotcore: Broker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    config = write_config(tmp_path, iotcore.port, extra=on_socket(tmp_path))
    async with agent(config) as car, wire_fleet(iotcore.port, TOPICS) as fleet:
        fleet.send(task("quick"))
        await fleet.until(lambda: fleet.is_final("quick"), "the answer")
        assert car.rows_done == 8
    said = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert said == [f"no metrics: prometheus_client is not installed: {switch.INSTALL}"]


async def test_a_port_that_is_taken_does_not_stop_the_car(
    tmp_path: Path, iotcore: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = f'\n[metrics]\nlisten = "127.0.0.1:{iotcore.port}"\n'
    async with agent(write_config(tmp_path, iotcore.port, extra=metrics)) as car:
        await car.until_ready()
    (said,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert said.startswith(f"no metrics on 127.0.0.1:{iotcore.port}: ")
    assert said.endswith("; free it or set metrics.listen")
