from pathlib import Path

import pytest
from offers import offer

from agent.housekeeping import PAGE, forget_old_tasks, make_room
from agent.protocol.messages import TaskState
from agent.reports import utc_now
from agent.store import Ledger, Store

DAY_S = 86_400


@pytest.mark.parametrize("signed", [True, False])
async def test_tasks_that_ended_and_expired_a_day_ago_are_forgotten_and_no_others(
    tmp_path: Path, signed: bool
) -> None:
    """Unsigned messages tell no time: the wall clock has to do."""
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
        if signed:
            ledger.facts.raise_time_floor(now_at)

    async with Store.open(tmp_path / "agent.db", max_bytes=100_000_000) as store:
        await store.run(fill)
        assert await forget_old_tasks(store, signed=signed) == PAGE + 3
        known = await store.run(lambda ledger: [ledger.task(task.id, 1) for task in tasks])
        assert [row.id for row in known if row] == ["fresh", "open"]


@pytest.mark.parametrize("signed", [True, False])
async def test_a_store_short_of_room_forgets_what_has_just_expired(tmp_path: Path, signed: bool) -> None:
    now_at = utc_now().timestamp()

    def fill(ledger: Ledger) -> None:
        for name, expires_at in (("expired", now_at - 60), ("fresh", now_at + 60)):
            ledger.accept(offer(name, expires_at=expires_at))
            ledger.set_state(name, 1, TaskState.CANCELLED, at=now_at)
            ledger.told(name, 1)
        ledger.facts.raise_time_floor(now_at)

    async def known(store: Store) -> list[str]:
        rows = await store.run(lambda ledger: [ledger.task(name, 1) for name in ("expired", "fresh")])
        return [row.id for row in rows if row]

    async with Store.open(tmp_path / "agent.db", max_bytes=1_000_000) as store:
        await store.run(fill)
        await make_room(store, signed=signed)
        assert await known(store) == ["expired", "fresh"], "there is room"
        await store.run(lambda ledger: ledger.notes.write("filler", bytes(300_000)))
        await make_room(store, signed=signed)
        assert await known(store) == ["fresh"]


async def test_a_wall_clock_far_ahead_makes_the_agent_forget_no_signed_task(tmp_path: Path) -> None:
    """Once forgotten, nothing but its expiry stands against a replay; and that has not come."""
    now_at = utc_now().timestamp()

    def fill(ledger: Ledger) -> None:
        ledger.accept(offer("night-1", expires_at=now_at - 3 * DAY_S))
        ledger.set_state("night-1", 1, TaskState.CANCELLED, at=now_at)
        ledger.told("night-1", 1)
        ledger.facts.raise_time_floor(now_at - 3 * DAY_S)

    async with Store.open(tmp_path / "agent.db", max_bytes=100_000_000) as store:
        await store.run(fill)
        assert await forget_old_tasks(store, signed=True) == 0
        await store.run(lambda ledger: ledger.facts.raise_time_floor(now_at))
        assert await forget_old_tasks(store, signed=True) == 1
