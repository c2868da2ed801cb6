"""`parkwatt history`: of an agent that runs, of one that has ended, and of one that was killed."""

import asyncio
import json
import os
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest
from agent_process import running_agent
from agents import TOPICS, agent, write_config
from matplotlib.figure import Figure
from running import PARKWATT, WITHIN_S, parkwatt, service
from stored_tasks import MAX_BYTES, overwrite, owed, pages_of, result_body, worked
from test_history import HOUR, day_sums, history
from vehicle_os import vehicle_os
from wire_fleet import task, wire_fleet

from agent.history import names
from agent.history.plot import draw, figure
from agent.store import Store
from agent.store.history import DaySum
from agent.store.reading import reading
from fleet.broker import Broker, free_port

METER = '\n[meter]\nuse = "model"\n[meter.options]\nwatts_per_core = 10\n'


async def told(folder: Path, **members: object) -> dict[str, Any]:
    with vehicle_os(folder / "agent.sock") as car:
        return await car.does("history", **members)


async def command(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    """The command line beside an agent that lives in this process."""
    return await asyncio.to_thread(parkwatt, *arguments)


async def test_a_night_of_work_is_told_alike_by_the_agent_and_by_what_it_left(
    tmp_path: Path, iotcore: Broker
) -> None:
    config = write_config(tmp_path, iotcore.port, run_us=20_000, extra=METER)
    async with agent(config) as car, wire_fleet(iotcore.port, TOPICS) as fleet:
        await car.until_ready()
        fleet.send(task("night-1"))
        fleet.send(task("night-2", count=200))
        await fleet.until(lambda: fleet.is_final("night-1"), "the first answer")
        await car.until_rows(12)
        car.car.open_door()
        await car.until_preempted()
        await car.until(lambda: not car.service.executor.running, "the end of work")
        running = (await told(tmp_path))["history"]["total"]
        shown = await command("history", "--config", config, "--json")
        assert json.loads(shown.stdout)["total"]["rows"] == running["rows"] == car.rows_done
    rested = json.loads((await command("history", "--config", config, "--json")).stdout)
    total = rested["total"]
    assert (rested["vehicle"], rested["time_zone"]) == ("veh-1", "UTC")
    assert total["rows"] == running["rows"]
    assert total["tasks"] == {"done": 1, "released": 1}, "what is open at the end goes back to the fleet"
    assert total["preemptions"] == {"owner_present": 1}
    assert [energy["source"] for energy in total["energy"]] == ["model"]
    assert total["working_s"] > 0
    assert total["blocked_s"] > 0
    assert {lost["name"] for lost in total["lost"]} >= {"owner_present"}


async def test_an_agent_that_is_killed_has_kept_its_account_to_the_end_of_work(
    tmp_path: Path, iotcore: Broker
) -> None:
    config = write_config(tmp_path, iotcore.port)
    async with wire_fleet(iotcore.port, TOPICS) as fleet, running_agent(config) as process:
        await fleet.until(fleet.last_state, "the agent is connected")
        fleet.send(task("night-1"))
        await fleet.until(lambda: fleet.is_final("night-1"), "the answer")
        with vehicle_os(tmp_path / "agent.sock") as car:
            await car.does("pause")
            await car.does("pause")  # answered behind the commit that the first brought about
        await process.crash()
    found = json.loads((await command("history", "--config", config, "--json")).stdout)["total"]
    assert (found["rows"], found["tasks"]) == (8, {"done": 1})


async def test_the_status_has_the_day_so_far(tmp_path: Path) -> None:
    async with agent(write_config(tmp_path, free_port()), wait_for_link=False) as car:
        await car.until_ready()
        with vehicle_os(tmp_path / "agent.sock") as os_:
            today = (await os_.does("status"))["status"]["today"]
    assert today["ready_s"] + today["settling_s"] > 0
    assert today["length_s"] >= today["ready_s"] + today["settling_s"]


@pytest.mark.parametrize("days", [0, 401, "7", 1.5, True, None])
async def test_days_that_cannot_be_meant_are_refused_with_what_can(tmp_path: Path, days: object) -> None:
    async with agent(write_config(tmp_path, free_port()), wait_for_link=False):
        answer = await told(tmp_path, days=days)
    assert answer["error"] == f"days is {json.dumps(days)}: it must be a whole number from 1 to 400"
    assert answer["fix"] == 'send {"cmd": "history", "days": 7}, or leave it out'


def test_without_an_agent_and_without_a_store_there_is_nothing_to_tell(tmp_path: Path) -> None:
    config = write_config(tmp_path, free_port())
    done = parkwatt("history", "--config", config)
    assert done.returncode == 3
    nobody, nothing = done.stderr.splitlines()
    assert nobody.startswith(f"parkwatt: no agent answers: {tmp_path}/agent.sock: No such file or directory")
    assert "no agent has had a store here yet" in nothing


# What lies on the disk


async def test_reading_an_agents_store_leaves_every_byte_and_makes_no_file(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    await worked(path, ["night-1"])
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with reading(path) as ledger:
        assert len(ledger.listing.open()) == 0
        assert len(ledger.listing.ended(10)) == 1
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


async def test_a_killed_agents_last_commits_are_read_from_its_log(tmp_path: Path) -> None:
    path, copy = tmp_path / "agent.db", tmp_path / "copy"
    copy.mkdir()
    async with Store.open(path, max_bytes=MAX_BYTES) as store:
        await store.run(lambda ledger: ledger.history.add(day_sums("2026-11-22", ready=1)))
        for file in tmp_path.glob("agent.db*"):
            shutil.copy(file, copy)
    with reading(copy / "agent.db") as ledger:
        assert [each.amount for each in ledger.history.since("")] == [HOUR]


async def test_the_account_is_saved_out_of_a_broken_store(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    await worked(path, [f"night-{number}" for number in range(8)])
    async with Store.open(path, max_bytes=MAX_BYTES) as store:
        await store.run(lambda ledger: ledger.history.add(day_sums("2026-11-22", ready=1, blocked=2)))
    overwrite(path, pages_of(path, result_body("night-0")[-16:])[-1:])
    async with Store.open(path, max_bytes=MAX_BYTES) as store:
        assert store.salvage
        assert await store.run(owed)
        found = await store.run(lambda ledger: ledger.history.since(""))
    assert sorted(found) == sorted(day_sums("2026-11-22", ready=1, blocked=2))


# The picture

SUMS = [
    *day_sums("2026-11-20", working=4, ready=2, blocked=10, asleep=7),
    *day_sums("2026-11-21", working=1, ready=2, blocked=3, asleep=7),
    DaySum("2026-11-20", names.FIRST, "1004", 10 * HOUR),
    DaySum("2026-11-20", names.ANY, "1004", 10 * HOUR),
    DaySum("2026-11-21", names.FIRST, "1003", 3 * HOUR),
    DaySum("2026-11-21", names.ANY, "1003", 3 * HOUR),
    DaySum("2026-11-20", names.ROWS, "counter", 900),
    DaySum("2026-11-20", names.ENERGY, "counter", 7200.0),
    DaySum("2026-11-20", names.ROWS, "model", 100),
    DaySum("2026-11-20", names.ENERGY, "model", 3600.0),
]


def legends(picture: Figure) -> list[list[str]]:
    return [
        [text.get_text() for text in legend.get_texts()]
        for axes in picture.axes
        if (legend := axes.get_legend()) is not None
    ]


def test_the_picture_shows_the_hours_of_each_day_the_reasons_and_each_source_by_itself() -> None:
    picture = figure(history(SUMS))
    hours, reasons, rows, energy = picture.axes
    assert [bar.get_height() for bar in hours.containers[0]] == [4, 1, 0]
    assert "charge low, 10.0 h" in legends(picture)[1]
    assert [bar.get_height() for bar in rows.containers[0]] == [1000, 0, 0]
    assert [[bar.get_height() for bar in part] for part in energy.containers] == [[2, 0, 0], [1, 0, 0]]
    sides = [part[0].get_x() for part in energy.containers]
    assert sides[0] != sides[1], "joules of two sources are not stacked"
    assert legends(picture)[3] == ["a model, not measured:\n1 Wh", "counted by hardware:\n2 Wh"]
    assert len(reasons.containers) == 2


def test_four_hundred_days_make_a_picture_and_so_does_none(tmp_path: Path) -> None:
    many = [
        DaySum(f"2026-{month:02}-{day:02}", names.MODE, "ready", HOUR)
        for month in range(1, 11)
        for day in range(1, 29)
    ]
    for sums in (many, []):
        draw(history(sums, days=400), tmp_path / "out.png")
        width, height = struct.unpack(">II", (tmp_path / "out.png").read_bytes()[16:24])
        assert (width, height) == (1540, 1045)


async def test_the_picture_is_drawn_by_the_command(tmp_path: Path) -> None:
    config = write_config(tmp_path, free_port())
    async with Store.open(tmp_path / "agent.db", max_bytes=MAX_BYTES) as store:
        await store.run(lambda ledger: ledger.history.add(SUMS))
    done = await command("history", "--config", config, "--days", "400", "--plot", tmp_path / "out.png")
    assert done.returncode == 0
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    refused = await command("history", "--config", config, "--plot", tmp_path / "nowhere/out.png")
    assert refused.returncode == 1
    assert refused.stderr.endswith("name another file with --plot\n")


async def test_without_matplotlib_the_table_needs_none_and_the_picture_says_what_to_install(
    tmp_path: Path,
) -> None:
    config = write_config(tmp_path, free_port())
    async with Store.open(tmp_path / "agent.db", max_bytes=MAX_BYTES):
        pass
    missing = tmp_path / "without/matplotlib"
    missing.mkdir(parents=True)
    (missing / "__init__.py").write_text(
        "raise ModuleNotFoundError('No module named matplotlib', name='matplotlib')\n"
    )
    paths = os.pathsep.join([str(missing.parent), os.environ.get("PYTHONPATH", "")])
    table = parkwatt("history", "--config", config, PYTHONPATH=paths)
    assert table.returncode == 0
    assert table.stdout.startswith("history of veh-1, days by UTC")
    picture = parkwatt("history", "--config", config, "--plot", tmp_path / "out.png", PYTHONPATH=paths)
    assert picture.returncode == 1
    assert picture.stderr == (
        "parkwatt: --plot needs matplotlib: install the extra, pip install 'parkwatt[plot]'\n"
    )


# Side by side with a client that watches


def test_watching_on_a_terminal_is_redrawn_every_second(tmp_path: Path) -> None:
    config = write_config(tmp_path, free_port())
    outer, inner = os.openpty()

    with service(tmp_path, config), os.fdopen(outer, "rb", buffering=0) as screen:
        watcher = subprocess.Popen([*PARKWATT, "status", "--watch", "--config", str(config)], stdout=inner)
        os.close(inner)
        try:
            seen = b""
            while seen.count(b"\x1b[H\x1b[2J") < 3:
                seen += screen.read(65_536)
        finally:
            watcher.terminate()
            watcher.wait(WITHIN_S)
    assert seen.count(b"mode      ") >= 2
