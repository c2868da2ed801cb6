"""A disk that somebody else fills: what is owed gets through on the room of the ballast, or waits."""

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from agents import TOPICS, agent, write_config
from offers import offer
from small_disk import MIB, SmallDisk, small_disk
from wire_fleet import WireFleet, task, wire_fleet

from agent import housekeeping
from agent.protocol.messages import TaskState
from agent.protocol.reasons import Reason
from agent.store import Store, StoreFull, StoreUnusable
from agent.store.ballast import Ballast
from fleet.broker import Broker

BALLAST_BYTES = 2 * MIB


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", 24 * MIB) as mounted:
        yield mounted


def store_on(disk: SmallDisk) -> Store:
    return Store.open(disk.folder / "agent.db", max_bytes=16 * MIB, ballast_bytes=BALLAST_BYTES)


async def test_a_full_disk_refuses_new_tasks_and_takes_what_is_owed(disk: SmallDisk) -> None:
    async with store_on(disk) as store:
        await store.run(lambda ledger: ledger.accept(offer("night-1")))
        disk.fill()
        with pytest.raises(StoreFull, match="this car's disk has less than 4194304 bytes left"):
            await store.run(lambda ledger: ledger.accept(offer("night-2")))
        await store.owe(lambda ledger: ledger.emit("night-1", 1, 0, 8, bytes(100_000), final=True), lane=1)
        assert await store.owe(lambda ledger: ledger.settle([("night-1", 1, 0, 8)]), lane=2) == 1


async def test_when_the_ballast_is_used_up_what_is_owed_waits(disk: SmallDisk) -> None:
    async with store_on(disk) as store:
        await store.run(lambda ledger: ledger.accept(offer("night-1")))
        disk.fill()
        await store.owe(lambda ledger: ledger.notes.write("now", b""), lane=0)
        disk.fill()
        answer = store.owe(lambda ledger: ledger.emit("night-1", 1, 0, 8, bytes(900_000), final=True), lane=1)
        async with asyncio.timeout(20):
            while not store.writer.waiting:
                await asyncio.sleep(0.001)
        assert not answer.done()
        disk.free()
        await asyncio.wait_for(answer, 20)


async def test_the_ballast_lies_again_once_there_is_room_for_it_twice(disk: SmallDisk) -> None:
    ballast = Ballast(disk.folder / "ballast", BALLAST_BYTES)
    assert ballast.lay()
    assert (disk.folder / "ballast").stat().st_blocks * 512 >= BALLAST_BYTES
    assert not ballast.give_back(), "the disk has room"
    disk.fill()
    assert ballast.give_back()
    assert ballast.missing
    assert not ballast.lay(), "what was given back is not taken again at once"
    disk.free()
    assert ballast.lay()
    assert not ballast.missing


async def test_an_agent_starts_on_a_full_disk_by_giving_the_ballast_back(disk: SmallDisk) -> None:
    async with store_on(disk) as store:
        await store.run(lambda ledger: ledger.accept(offer("night-1")))
    disk.fill()
    async with store_on(disk) as store:
        assert store.boot == 2
        await store.owe(lambda ledger: ledger.emit("night-1", 1, 0, 8, b"labels", final=True), lane=1)
    disk.fill()
    with pytest.raises(StoreUnusable, match="free space on its disk"):
        store_on(disk)


async def test_a_disk_too_small_for_the_ballast_takes_no_tasks_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with small_disk(tmp_path / "disk", 3 * MIB) as disk:
        async with store_on(disk) as store:
            with pytest.raises(StoreFull, match="has less than 4194304 bytes left"):
                await store.run(lambda ledger: ledger.accept(offer("night-1")))
    assert "no new tasks: this car's disk has less than 4194304 bytes left" in caplog.text


def settle_all(fleet: WireFleet) -> None:
    fleet.settles = True
    for result, _ in fleet.results:
        fleet.settle(result)


async def test_the_agent_lives_through_a_full_disk(
    tmp_path: Path, disk: SmallDisk, iotcore: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "LOOK_S", 0.05)
    config = write_config(tmp_path, iotcore.port, run_us=20_000)
    text = config.read_text().replace(f"{tmp_path}/agent.db", f"{disk.folder}/agent.db")
    config.write_text(text.replace("ballast_bytes = 0", f"ballast_bytes = {BALLAST_BYTES}"))
    names = [f"night-{number}" for number in range(8)]
    async with agent(config) as car, wire_fleet(iotcore.port, TOPICS, settles=False) as fleet:
        for name in names:
            fleet.send(task(name, 20))
        await car.until_rows(30)
        disk.fill()
        fleet.send(task("refused"))
        refused = await fleet.heard_event("refused", TaskState.REJECTED)
        assert refused.reason is not None
        assert refused.reason.code is Reason.STORE_FULL
        disk.fill()
        settle_all(fleet)
        disk.free()
        await fleet.until(lambda: all(map(fleet.is_final, names)), "all are done")
        await car.until_settled()
        answered = sorted((result.id, row) for result, _ in fleet.results for row in range(*result.rows))
        assert answered == sorted((name, row) for name in names for row in range(20))
        await car.until(lambda: not car.service.store.ballast.missing, "the ballast lies again")
        fleet.send(task("refused"))
        await fleet.until(lambda: fleet.is_final("refused"), "new work")
    assert shutil.disk_usage(disk.folder).free > 10 * MIB
