from pathlib import Path

from offers import offer

from agent.housekeeping import PAGE, forget_old_tasks
from agent.protocol.messages import TaskState
from agent.reports import utc_now
from agent.store import Ledger, Store

DAY_S = 86_400


async def test_tasks_that_ended_and_expired_a_day_ago_are_forgotten_and_no_others(tmp_path: Path) -> None:
    now_at = utc_now().timestamp()
    old, fresh = now_at - DAY_S - 60, now_at - 60
    tasks = [offer(f"old-{number}", expires_at=old) for number in range(PAGE + 3)]
    tasks += [offer("fresh", expires_at=fresh), offer("open", expires_at=old)]

    def fill(ledger: Ledger) -> None:
        for task in tasks:
            ledger.accept(task)
        for task in tasks[:-1]:
            ledger.set_state(task.id, 1, TaskState.CANCELLED, at=now_at)
            ledger.told(task.id, 1)

    async with Store.open(tmp_path / "agent.db", max_bytes=100_000_000) as store:
        await store.run(fill)
        assert await forget_old_tasks(store) == PAGE + 3
        known = await store.run(lambda ledger: [ledger.task(task.id, 1) for task in tasks])
        assert [row.id for row in known if row] == ["fresh", "open"]
