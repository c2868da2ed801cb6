"""A thread of its own for what waits on the network or the disk."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def in_thread(name: str, work: Callable[[], T]) -> asyncio.Future[T]:
    """Run `work` in a daemon thread; the future completes with what it returns or raises.

    Not from the loop's pool: slow servers would take every place in it, and a stop of the agent waits for the pool,
    so for a name server that does not answer, too. Whoever cancels the future sees to it that `work` ends.
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()
    outcome.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may be left to look

    def tell(set_outcome: Callable[[], None]) -> None:
        if not outcome.done():
            set_outcome()

    def run() -> None:
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - it is raised where the future is awaited
            told: Callable[[], None] = _raising(outcome, error)
        else:
            told = _returning(outcome, result)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is there to hear it
            loop.call_soon_threadsafe(tell, told)

    threading.Thread(target=run, name=name, daemon=True).start()
    return outcome


def _raising(outcome: asyncio.Future[T], error: BaseException) -> Callable[[], None]:
    return lambda: outcome.set_exception(error)


def _returning(outcome: asyncio.Future[T], result: T) -> Callable[[], None]:
    return lambda: outcome.set_result(result)
