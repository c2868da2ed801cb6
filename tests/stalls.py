"""What a busy machine adds to a time that is measured: how long a thread that was due did not run meanwhile."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

TICK_S: Final = 0.01


@dataclass
class Stalls:
    """The sum of all delays so far, small ones left out."""

    lost_s: float = 0.0


@contextmanager
def stalls() -> Iterator[Stalls]:
    """Count inside `with`."""
    seen, stop = Stalls(), threading.Event()

    def count() -> None:
        at_s = time.monotonic()
        while not stop.wait(TICK_S):
            before_s, at_s = at_s, time.monotonic()
            late_s = at_s - before_s - TICK_S
            if late_s > TICK_S:
                seen.lost_s += late_s

    thread = threading.Thread(target=count, name="stalls")
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()
