"""Forgets what nobody asks for any more, identities of tasks that ended and expired a day ago; sooner for lack of room."""

import asyncio
import logging

from agent.reports import utc_now
from agent.store import Ledger, Store
from agent.store.ledger import KEEP_S

PERIOD_S = 600.0
LOOK_S = 10.0
PAGE = 1000

log = logging.getLogger(__name__)


async def forget_old_tasks(store: Store, *, signed: bool, keep_s: float = KEEP_S) -> int:
    """Prune in small transactions, so that nobody waits long for the disk; returns how many are forgotten.

    Where messages are signed it goes by the time floor: what is forgotten has then expired for good, so that a replay
    is refused whatever the wall clock will say.
    """
    now_at = utc_now().timestamp()

    def prune(ledger: Ledger) -> int:
        return ledger.prune(ledger.facts.time_floor() if signed else now_at, keep_s, limit=PAGE)

    forgotten = 0
    while pruned := await store.owe(prune, lane=prune):
        forgotten += pruned
    return forgotten


async def keep_house(store: Store, *, signed: bool) -> None:
    """Forget every ten minutes until cancelled, and look for room every ten seconds."""
    while True:
        await forget_old_tasks(store, signed=signed)
        for _ in range(round(PERIOD_S / LOOK_S)):
            await make_room(store, signed=signed)
            await asyncio.sleep(LOOK_S)


async def make_room(store: Store, *, signed: bool) -> None:
    """Lay the ballast again once the disk has room, and forget what has just expired while the store has not."""
    if store.ballast.missing and await asyncio.to_thread(store.ballast.lay):
        log.info("the disk has room again: new tasks are taken")
    if await store.run(lambda ledger: ledger.room.is_short):
        await forget_old_tasks(store, signed=signed, keep_s=0)
