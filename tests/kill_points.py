"""The agent, dead at one exact line: `python kill_points.py POINT N CONFIG`.

The product has no hook for it, so this program wraps the line from outside before it starts the service as
`parkwatt run` does. The N-th time that the service gets there is the last thing that it ever does.
"""

import asyncio
import functools
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.journal import Journal
from agent.link import Inbound
from agent.reports import Reports
from agent.serve import serve
from agent.settings import load
from agent.store import Ledger


class Mark:
    """A line to die at."""

    def __init__(self, nth: int) -> None:
        self._left = nth

    def passed(self) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def ahead_of(owner: type, name: str, mark: Mark, when: Callable[..., bool] = lambda *_: True) -> None:
    """Die in place of the call."""
    inner = getattr(owner, name)

    @functools.wraps(inner)
    def marked(*args: Any, **named: Any) -> Any:
        if when(*args):
            mark.passed()
        return inner(*args, **named)

    setattr(owner, name, marked)


def behind(owner: type, name: str, mark: Mark) -> None:
    """Die when the call has returned; of an operation of the ledger: inside its transaction."""
    inner = getattr(owner, name)

    @functools.wraps(inner)
    def marked(*args: Any, **named: Any) -> Any:
        value = inner(*args, **named)
        mark.passed()
        return value

    setattr(owner, name, marked)


def behind_the_puback(mark: Mark) -> None:
    """Die when the broker has a result and the fleet has not said so."""
    inner = Reports.result

    def answered(answer: "asyncio.Future[None]") -> None:
        if answer.exception() is None:
            mark.passed()

    @functools.wraps(inner)
    def marked(*args: Any) -> "asyncio.Future[None] | None":
        answer = inner(*args)
        if answer is not None:
            answer.add_done_callback(answered)
        return answer

    setattr(Reports, "result", marked)  # noqa: B010 - to a type checker a method is not assignable


def is_task(inbound: Inbound) -> bool:
    return inbound.topic.endswith("/task")


POINTS: dict[str, Callable[[Mark], None]] = {
    "task not committed": lambda mark: behind(Ledger, "accept", mark),
    "task committed, not acknowledged": lambda mark: ahead_of(Inbound, "ack", mark, is_task),
    "rows run, not written": lambda mark: ahead_of(Journal, "keep", mark),
    "rows written, not committed": lambda mark: behind(Ledger, "commit_rows", mark),
    "result written, not committed": lambda mark: behind(Ledger, "emit", mark),
    "result committed, not published": lambda mark: ahead_of(Reports, "result", mark),
    "result published, not settled": behind_the_puback,
    "result settled, not committed": lambda mark: behind(Ledger, "settle", mark),
}


if __name__ == "__main__":
    _, point, nth, config = sys.argv
    POINTS[point](Mark(int(nth)))
    asyncio.run(serve(load(Path(config)), Path(config)))
