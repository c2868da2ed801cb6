"""Forgets what nobody asks for any more: identities of tasks that ended and expired a day ago."""

import asyncio

from agent.reports import utc_now
from agent.store import Store

PERIOD_S = 600.0
PAGE = 1000


async def forget_old_tasks(store: Store) -> int:
    """Prune in small transactions, so that nobody waits long for the disk; returns how many are forgotten."""
    now_at = utc_now().timestamp()
    forgotten = 0
    while pruned := await store.run(lambda ledger: ledger.prune(now_at, limit=PAGE)):
        forgotten += pruned
    return forgotten


async def keep_house(store: Store) -> None:
    """Look every ten minutes until cancelled."""
    while True:
        await forget_old_tasks(store)
        await asyncio.sleep(PERIOD_S)
