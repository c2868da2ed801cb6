"""`parkwatt tasks`: what waits, what runs, and how the last ones ended; with and without an agent."""

import asyncio
import datetime as dt
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from agents import TOPICS, agent, write_config
from offers import NOW, offer
from running import parkwatt
from stored_tasks import MAX_BYTES, ROWS, result_body
from vehicle_os import vehicle_os
from wire_fleet import task, wire_fleet

from agent.protocol.messages import TaskState
from agent.protocol.reasons import Reason
from agent.store import Ledger, Store
from agent.store.reading import reading
from agent.store.spent import Spent
from agent.task_list import TaskList, described, listed, task_list
from fleet.broker import Broker, free_port

METER = '\n[meter]\nuse = "model"\n[meter.options]\nwatts_per_core = 10\n'
AT = dt.datetime.fromtimestamp(NOW + 60, dt.UTC)


async def told(folder: Path, **members: object) -> dict[str, Any]:
    with vehicle_os(folder / "agent.sock") as car:
        return await car.does("tasks", **members)


async def command(*arguments: str | Path) -> dict[str, Any]:
    done = await asyncio.to_thread(parkwatt, "tasks", "--json", *arguments)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


async def test_tasks_are_told_alike_by_the_agent_and_by_what_it_left(tmp_path: Path, iotcore: Broker) -> None:
    config = write_config(tmp_path, iotcore.port, run_us=60_000, extra=METER)
    async with agent(config) as car, wire_fleet(iotcore.port, TOPICS) as fleet:
        await car.until_ready()
        fleet.send(task("night-1"))
        await fleet.until(lambda: fleet.is_final("night-1"), "the first answer")
        fleet.send(task("night-2", count=100))
        await car.until_rows(12)
        running = await command("--config", config)
        assert (running["live"], running["vehicle"]) == (True, "veh-1")
        by_id = {line["id"]: line for line in running["open"]}
        assert by_id["night-2"]["model"] == "null 1"
        assert by_id["night-2"]["rows_total"] == 100
        assert 0 < by_id["night-2"]["rows_done"] < 100
        assert [line["id"] for line in running["ended"]] == ["night-1"]
    rested = await command("--config", config)
    assert (rested["live"], rested["open"]) == (False, [])
    ended = {line["id"]: line for line in rested["ended"]}
    assert ended["night-1"]["state"] == "done"
    assert ended["night-1"]["rows_done"] == ended["night-1"]["rows_total"] == 8
    (spent,) = ended["night-1"]["spent"]
    assert (spent["source"], spent["rows"]) == ("model", 8)
    assert spent["energy_j"] >= 0
    assert ended["night-2"]["state"] == "released"
    assert ended["night-2"]["reason"]["name"] == "restarted"


@pytest.mark.parametrize("ended", [-1, 1001, "7", True])
async def test_a_number_that_cannot_be_meant_is_refused_with_what_can(tmp_path: Path, ended: object) -> None:
    async with agent(write_config(tmp_path, free_port()), wait_for_link=False):
        answer = await told(tmp_path, ended=ended)
        assert answer["error"] == f"ended is {json.dumps(ended)}: it must be a whole number from 0 to 1000"
        assert (await told(tmp_path, ended=0))["tasks"]["ended"] == []


def night(ledger: Ledger) -> None:
    """A night with every end that a task can have, two sources of energy, and two that wait."""
    for name in ("answered", "failed", "half", "waiting"):
        ledger.accept(offer(name, rows=(0, ROWS), priority=5 if name == "waiting" else 0))
    first = ledger.emit("answered", 1, 0, 4, result_body("answered", (0, 4)), final=False)
    ledger.spent.add(first, Spent("counter", 4, 0.5, 6.0, NOW + 20))
    second = ledger.emit("answered", 1, 4, 8, result_body("answered", (4, 8)), final=True)
    ledger.spent.add(second, Spent("model", 4, 0.25, 2.0, NOW + 30))
    ledger.set_state("failed", 1, TaskState.FAILED, Reason.INFERENCE_FAILED, "no such operator", at=NOW + 40)
    ledger.emit("half", 1, 0, 4, result_body("half", (0, 4)), final=False)
    ledger.commit_rows("half", 1, 4, 6, outputs=b"", usage=b"")
    ledger.set_state("half", 1, TaskState.PREEMPTED, Reason.OWNER_PRESENT, "", at=NOW + 50)


async def listed_night(path: Path, ended: int = 20) -> TaskList:
    async with Store.open(path, max_bytes=MAX_BYTES) as store:
        await store.run(night)
    with reading(path) as ledger:
        return task_list(listed(ledger, ended), {}, vehicle="veh-1", at=AT, live=False)


async def test_each_task_has_its_reason_its_rows_and_its_energy_by_source(tmp_path: Path) -> None:
    found = await listed_night(tmp_path / "agent.db")
    assert [(line.id, line.state, line.rows_done) for line in found.open] == [
        ("waiting", TaskState.ACCEPTED, 0),
        ("half", TaskState.PREEMPTED, 6),
    ]
    failed, answered = found.ended
    assert (failed.id, failed.reason and failed.reason.code) == ("failed", Reason.INFERENCE_FAILED)
    assert [(each.source.value, each.rows, each.energy_j) for each in answered.spent] == [
        ("counter", 4, 6.0),
        ("model", 4, 2.0),
    ]
    assert answered.since == dt.datetime.fromtimestamp(NOW + 30, dt.UTC)
    assert (answered.unsettled, answered.rows_done) == (2, 8)
    assert msgspec.convert(msgspec.to_builtins(found), TaskList) == found


async def test_the_table_is_one_that_people_can_read(tmp_path: Path) -> None:
    lines = described(await listed_night(tmp_path / "agent.db"))
    assert [" ".join(line.split()) for line in lines] == [
        "tasks of veh-1 at 2026-11-22 01:21:00Z, from its store, no agent runs",
        "",
        "waiting and running: 2",
        "task attempt state rows energy changed expires",
        "waiting 1 accepted 0/8 - 60 s ago in 4 min",
        "half 1 preempted 6/8 - 10 s ago in 4 min",
        "1001 owner_present; 1 result not yet settled",
        "",
        "ended, newest first: 2",
        "task attempt state rows energy changed expires",
        "failed 1 failed 0/8 - 20 s ago -",
        "160 inference_failed: no such operator",
        "answered 1 done 8/8 6 J counter, 2 J model 30 s ago -",
        "2 results not yet settled",
    ]


async def test_what_a_task_took_is_forgotten_with_it(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "agent.db", max_bytes=MAX_BYTES) as store:
        await store.run(night)
        settled = [("answered", 1, 0, 4), ("answered", 1, 4, 8)]
        await store.run(lambda ledger: ledger.settle(settled))
        assert await store.run(lambda ledger: ledger.prune(NOW + 1e6)) == 1
        left = await store.run(
            lambda ledger: ledger.connection.execute("SELECT count(*) FROM spent").fetchone()
        )
    assert left == (0,)


async def test_rows_whose_joules_are_not_known_leave_those_of_others_as_they_are(tmp_path: Path) -> None:
    def answered(ledger: Ledger) -> None:
        ledger.accept(offer("n", rows=(0, 8)))
        for begin, energy_j in ((0, None), (2, 4.0), (4, None), (6, 1.0)):
            key = ledger.emit("n", 1, begin, begin + 2, b"r", final=begin == 6)
            ledger.spent.add(key, Spent("integrated", 2, 0.1, energy_j, NOW))

    async with Store.open(tmp_path / "agent.db", max_bytes=MAX_BYTES) as store:
        await store.run(answered)
        (found,) = await store.run(lambda ledger: ledger.listing.ended(1))
    assert [(each.rows, each.energy_j) for each in found.spent] == [(8, 5.0)]
