"""What the agent makes of a disk or a file that fails it: nothing acknowledged is lost, and one line says what is wrong."""

import asyncio
import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest
from agents import TOPICS, agent, write_config
from running import WITHIN_S, parkwatt, service
from small_disk import MIB, small_disk
from stored_tasks import overwrite, pages_of
from wire_fleet import task, wire_fleet

from agent.control import ask
from agent.protocol.messages import TaskState
from agent.store import StoreFailed
from agent.store.database import connect
from agent.store.schema import MIGRATIONS
from fleet.broker import Broker

NO_LIBFIU = "no fiu-run on the PATH: install the Debian packages fiu-utils and libfiu0"


def refusal(config: Path) -> str:
    """The line with which `parkwatt run` ends."""
    ended = parkwatt("run", "--config", config, "--log-format", "text")
    assert ended.returncode == 1
    line = ended.stderr.splitlines()[-1]
    assert line.startswith("parkwatt: store.path ")
    assert "Traceback" not in ended.stderr
    return line


async def test_a_disk_that_cannot_sync_ends_the_agent_and_what_it_had_not_acknowledged_comes_again(
    tmp_path: Path, iotcore: Broker
) -> None:
    if shutil.which("fiu-run") is None:
        pytest.skip(NO_LIBFIU)
    config = write_config(tmp_path, iotcore.port)
    control = tmp_path / "fiu"
    async with wire_fleet(iotcore.port, TOPICS) as fleet:
        with service(tmp_path, config, under=["fiu-run", "-x", "-f", control]) as process:
            await fleet.until(fleet.last_state, "the agent is there")
            fails = ["fiu-ctrl", "-f", str(control), "-c", "enable name=posix/io/sync/*", str(process.pid)]
            await asyncio.to_thread(subprocess.run, fails, check=True)
            fleet.send(task("night-1"))
            _, said = await asyncio.to_thread(process.communicate, timeout=WITHIN_S)
        assert process.returncode == 1
        line = said.splitlines()[-1]
        assert line.startswith(
            f"parkwatt: store.path {tmp_path}/agent.db: disk I/O error (SQLITE_IOERR_FSYNC)"
        )
        assert line.endswith("; check its disk")
        assert "Traceback" not in said
        assert not fleet.states_of("night-1")
        async with agent(config):
            await fleet.until(lambda: fleet.is_final("night-1"), "the answer")
        assert fleet.rows("night-1") == [(0, 8)]


async def test_a_store_that_turns_read_only_ends_the_agent(tmp_path: Path, iotcore: Broker) -> None:
    config = write_config(tmp_path, iotcore.port)
    with pytest.raises(StoreFailed, match=r"readonly database \(SQLITE_READONLY\)"):
        await read_only_while_it_runs(config, iotcore.port)


async def read_only_while_it_runs(config: Path, port: int) -> None:
    async with agent(config) as car, wire_fleet(port, TOPICS) as fleet:
        await car.service.store.run(lambda ledger: ledger.connection.execute("PRAGMA query_only = ON"))
        fleet.send(task("night-1"))
        await car.until(car.service._failed.done, "it has failed")
        assert not fleet.events


def test_a_read_only_disk_is_refused_in_one_line(tmp_path: Path, iotcore: Broker) -> None:
    with small_disk(tmp_path / "disk", 8 * MIB) as disk:
        config = write_config(tmp_path, iotcore.port)
        config.write_text(config.read_text().replace(f"{tmp_path}/agent.db", f"{disk.folder}/agent.db"))
        disk.remount("ro")
        line = refusal(config)
        disk.remount("rw")
    assert line.endswith(
        "agent.db.lock: Read-only file system; make it and its folder writable for the agent's user"
    )


def test_a_newer_store_is_refused_in_one_line(tmp_path: Path, iotcore: Broker) -> None:
    config = write_config(tmp_path, iotcore.port)
    connection = connect(tmp_path / "agent.db", 10 * MIB)
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    connection.close()
    assert "install the parkwatt that wrote it" in refusal(config)


async def test_a_second_agent_is_refused_in_one_line(tmp_path: Path, iotcore: Broker) -> None:
    config = write_config(tmp_path, iotcore.port)
    async with agent(config):
        assert "in use by process" in await asyncio.to_thread(refusal, config)


async def test_an_empty_file_is_a_new_store(tmp_path: Path, iotcore: Broker) -> None:
    config = write_config(tmp_path, iotcore.port)
    (tmp_path / "agent.db").touch()
    async with agent(config), wire_fleet(iotcore.port, TOPICS) as fleet:
        fleet.send(task("night-1"))
        await fleet.until(lambda: fleet.is_final("night-1"), "the answer")


def bytes_of(name: str) -> bytes:
    """The inputs of 4,000 rows that no other task has; the null backend answers with the same."""
    return hashlib.shake_256(name.encode()).digest(4_000 * 16)


async def test_an_agent_whose_store_broke_in_its_sleep_says_what_is_left_of_it(
    tmp_path: Path, iotcore: Broker
) -> None:
    """Of three answers that the fleet has not confirmed one is gone: its task is given back."""
    config = write_config(tmp_path, iotcore.port)
    async with wire_fleet(iotcore.port, TOPICS, settles=False) as fleet:
        async with agent(config):
            for name in ("night-1", "night-2", "night-3"):
                fleet.send((task(name, 4_000)[0], bytes_of(name)))
            await fleet.until(lambda: len(fleet.results) == 3, "three answers")
        store = tmp_path / "agent.db"
        overwrite(store, pages_of(store, bytes_of("night-2")[-16:]))
        fleet.results.clear()
        fleet.settles = True
        async with agent(config) as car:
            await fleet.heard_event("night-2", TaskState.RELEASED)
            await car.until_settled()
            assert {result.id for result, _ in fleet.results} == {"night-1", "night-3"}
            answer = await asyncio.to_thread(ask, tmp_path / "agent.sock", {"cmd": "status"})
            text = await asyncio.to_thread(parkwatt, "status", "--config", config)
        assert "saved 2 results" in answer["status"]["store"]["salvage"]
        assert answer["status"]["store"]["salvage"] in text.stdout
