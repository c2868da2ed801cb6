"""Feeds the service manager's watchdog from the event loop, and only while every part is alive that has to be.

A part is asked where it stands, not for a sign that only means that it can give signs: what asks is called a look. A
loop that hangs feeds nobody. Whatever is found is logged before the manager ends the process (SIGABRT).
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final, NoReturn

from agent.executor import Executor
from agent.guard import Guard
from agent.notify import Notices
from agent.store.writer import Writer
from agent.threads import Threads
from firmware_shims.clock import Clock

NS: Final = 1_000_000_000
MEALS: Final = 3
"""In the time that the manager allows: two may be lost."""
COMMIT_MOST_S: Final = 10.0
"""A flash disk that tidies up takes a second or two."""
IDLE_MOST_S: Final = 60.0

Look = Callable[[], str]
"""Why a part is not alive, in words; empty while it is. Called on the event loop."""

log = logging.getLogger(__name__)


async def feed(notices: Notices, looks: Sequence[Look], period_s: float) -> NoReturn:
    """Feed until cancelled. What one look finds may pass: only a part that two in a row find dead is."""
    before = said = ""
    while True:
        trouble = next(filter(None, (look() for look in looks)), "")
        if not (trouble and before):
            notices.alive()
        elif trouble.partition(" for ")[0] != said.partition(" for ")[0]:
            log.critical("the watchdog is not fed: %s", trouble)
            said = trouble
        before = trouble
        await asyncio.sleep(period_s / MEALS)


def store(writer: Writer, clock: Clock) -> Look:
    """The store's thread lives, and no commit takes for ever."""

    def look() -> str:
        if not writer.alive:
            return "the store's thread has ended"
        busy_ns = 0 if (since_ns := writer.busy_since_ns) is None else clock() - since_ns
        if busy_ns > COMMIT_MOST_S * NS:
            return f"the store has been writing for {busy_ns / NS:.0f} s, {COMMIT_MOST_S:g} s are its limit"
        return ""

    return look


def guard(watching: Guard) -> Look:
    """The guard's thread looks at the time."""
    return lambda: "" if watching.watches else "the guard does not look at the time any more"


def threads(running: Threads, names: Sequence[str]) -> Look:
    """The threads of these names run."""
    return lambda: next((f"thread {name} has ended" for name in names if not running.runs(name)), "")


class Progress:
    """The executor does something about the work that it has: for use as a look."""

    def __init__(self, executor: Executor, now_s: Callable[[], float]) -> None:
        self._executor = executor
        self._now_s = now_s
        self._rows_done = executor.rows_done
        self._since_s = now_s()

    def __call__(self) -> str:
        """Why it does not; it has to be asked all the time, because each single moment may be one between two runs."""
        rows_done, now_s = self._executor.rows_done, self._now_s()
        if rows_done != self._rows_done or not self._executor.idles:
            self._rows_done, self._since_s = rows_done, now_s
        idle_s = now_s - self._since_s
        if idle_s <= IDLE_MOST_S:
            return ""
        return f"work waits that is allowed, and none has been done for {idle_s:.0f} s, {IDLE_MOST_S:g} s are the limit"
