"""Read by every Python that starts with this folder on its path: the part that $HANG names hangs for good.

Some do from the start, the others when SIGUSR1 comes.
"""

import gc
import os
import signal
import socket
import sys
import threading
import time
import tomllib
from collections.abc import Callable
from typing import Any

FOR_GOOD_S = 3600.0


def found(kind: str) -> Any:
    """The one object of that class."""
    return next(each for each in gc.get_objects() if type(each).__name__ == kind)


def loop() -> None:
    time.sleep(FOR_GOOD_S)


def store() -> None:
    from agent import watchdog  # noqa: PLC0415 - it has been loaded by then

    watchdog.COMMIT_MOST_S = 0.5  # type: ignore[misc]  # a test does not wait for a slow disk's sake
    found("Store").run(lambda _ledger: time.sleep(FOR_GOOD_S))


def guard() -> None:
    """Somebody holds its lock, and never lets go."""
    held = threading.Event()

    def hold() -> None:
        with found("Guard")._lock:
            held.set()
            time.sleep(FOR_GOOD_S)

    threading.Thread(target=hold, daemon=True).start()
    held.wait()


def task() -> None:
    """The task that looks for new keys waits for something that never comes."""
    from agent import trusted_keys  # noqa: PLC0415

    trusted_keys.PERIOD_S = FOR_GOOD_S  # type: ignore[misc]


def sleep(*_: Any, **__: Any) -> None:
    print("hangs", file=sys.stderr, flush=True)  # noqa: T201 - a test waits for it
    time.sleep(FOR_GOOD_S)


def reading() -> None:
    """The configuration lies on a disk that does not answer."""
    tomllib.loads = sleep  # type: ignore[assignment]


def importing() -> None:
    """A module is imported, which makes an ImportError of whatever ends that, as those written in C do."""

    def load(_: str) -> None:
        try:
            sleep()
        except BaseException as error:
            raise ImportError("could not import it") from error

    tomllib.loads = load  # type: ignore[assignment]


def names() -> None:
    """No name server answers, and the resolver waits."""
    socket.getaddrinfo = sleep  # type: ignore[assignment]


def opening() -> None:
    """The store is large, and its disk slow."""
    from agent import serve  # noqa: PLC0415
    from agent.store import Store  # noqa: PLC0415

    serve.LARGE_BYTES = -1  # type: ignore[misc]
    Store.open = sleep  # type: ignore[assignment]


WHEN_ASKED: dict[str, Callable[[], None]] = {each.__name__: each for each in (loop, store, guard, task)}
FROM_THE_START: dict[str, Callable[[], None]] = {
    each.__name__: each for each in (reading, importing, names, opening)
}

if (part := os.environ.get("HANG", "")) in WHEN_ASKED:
    from agent import trusted_keys

    trusted_keys.PERIOD_S = 0.1  # type: ignore[misc]  # what is limited by its period is found in a test's time
    signal.signal(signal.SIGUSR1, lambda *_: WHEN_ASKED[part]())
elif part in FROM_THE_START:
    FROM_THE_START[part]()
