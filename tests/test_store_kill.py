"""SIGKILL in the middle of the work: what was acknowledged is on disk, what was not is whole or absent."""

import asyncio
import random
import sys
from pathlib import Path

from agent.protocol.messages import TaskState
from agent.store import Ledger, Store, TaskRow

AGENT = """
import asyncio, itertools, sys
from pathlib import Path
from offers import offer
from agent.store import Store

async def lane(store, name):
    for number in itertools.count():
        task = f"boot{store.boot}-{name}-{number}"
        await store.run(lambda ledger: ledger.accept(offer(task, body=bytes(3_000))))
        print("accepted", task, flush=True)
        await store.run(lambda ledger: ledger.commit_rows(task, 1, 0, 4, outputs=bytes(500), usage=b"{}"))
        print("committed", task, flush=True)
        await store.run(lambda ledger: ledger.emit(task, 1, 0, 8, bytes(1_000), final=True))
        print("answered", task, flush=True)
        if number % 2:
            await store.run(lambda ledger: ledger.settle([(task, 1, 0, 8)]))
            print("settled", task, flush=True)

async def main():
    store = Store.open(Path(sys.argv[1]), max_bytes=500_000_000)
    print("boot", store.boot, flush=True)
    await asyncio.gather(*(lane(store, name) for name in range(8)))

asyncio.run(main())
"""
STEPS = ("accepted", "committed", "answered", "settled")


async def said_before_the_kill(path: Path, lines: int) -> list[tuple[str, str]]:
    agent = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        AGENT,
        str(path),
        stdout=asyncio.subprocess.PIPE,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert agent.stdout is not None
    said = [await agent.stdout.readline() for _ in range(lines)]
    agent.kill()
    said += (await agent.stdout.read()).splitlines(keepends=True)
    await agent.wait()
    words = [line.decode().split() for line in said if line.endswith(b"\n")]
    return [(step, task) for step, task in words]


def furthest(said: list[tuple[str, str]]) -> dict[str, int]:
    return {task: STEPS.index(step) for step, task in said if step in STEPS}


def reached(ledger: Ledger, row: TaskRow | None, unsettled: set[str]) -> int:
    """How far a task has come, as an index of STEPS; -1 for a task that is not known."""
    if row is None:
        return -1
    if row.state is TaskState.DONE:
        return STEPS.index("answered" if row.id in unsettled else "settled")
    if ledger.rows_done(row.id, 1):
        assert ledger.missing(row.id, 1) == [(4, 8)]
        return STEPS.index("committed")
    assert len(ledger.body(row.id, 1)) == 3_000
    return STEPS.index("accepted")


async def test_nothing_acknowledged_is_lost_by_ten_kills(tmp_path: Path) -> None:
    chance = random.Random(20_261_122)  # noqa: S311 - a seed, so that a run can be repeated
    path = tmp_path / "agent.db"
    acknowledged: dict[str, int] = {}
    for kill in range(1, 11):
        said = await said_before_the_kill(path, chance.randrange(1, 600))
        assert ("boot", str(kill)) in said
        acknowledged |= furthest(said)
    async with Store.open(path, max_bytes=500_000_000) as store:
        unsettled = {result.id for result in await store.run(lambda ledger: ledger.unsettled(0, 1_000_000))}
        found = await store.run(
            lambda ledger: {task: reached(ledger, ledger.task(task, 1), unsettled) for task in acknowledged}
        )
        intact = await store.run(
            lambda ledger: ledger.connection.execute("PRAGMA integrity_check").fetchall()
        )
    behind = {task: (STEPS[step], found[task]) for task, step in acknowledged.items() if found[task] < step}
    assert not behind
    assert len(acknowledged) > 100
    assert intact == [("ok",)]
