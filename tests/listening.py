"""An agent's ear for tests: what a source delivers is kept, and can be waited for."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from firmware_shims.reading import Quality, Reading, Source, Value

WITHIN_S = 30.0
"""Long, because the machine may be busy; a test that passes never waits for it."""


class Ear:
    """A sink that remembers."""

    urgent = True

    def __init__(self) -> None:
        self.readings: list[Reading] = []
        self.heard_ns: list[int] = []
        self._news = threading.Condition()

    def update(self, readings: Sequence[Reading]) -> None:
        with self._news:
            self.readings.extend(readings)
            self._news.notify_all()

    def heard(self, source: str, now_ns: int) -> None:
        del source
        with self._news:
            self.heard_ns.append(now_ns)
            self._news.notify_all()

    def wait_until(self, holds: Callable[[], bool], what: str) -> None:
        with self._news:
            assert self._news.wait_for(holds, WITHIN_S), f"not within {WITHIN_S} s: {what}"

    def wait_for(self, path: str, value: Value | None, after: int = 0) -> Reading:
        """The first reading of `path` with this value among those after the first `after` ones."""

        def found() -> list[Reading]:
            return [r for r in self.readings[after:] if r.path == path and r.value == value]

        self.wait_until(lambda: bool(found()), f"{path} = {value}")
        return found()[0]

    def latest(self, path: str) -> Reading:
        with self._news:
            return next(r for r in reversed(self.readings) if r.path == path)

    def has_all(self, paths: Sequence[str]) -> bool:
        return set(paths) <= {r.path for r in self.readings if r.quality is Quality.GOOD}


@contextmanager
def listening(source: Source, ear: Ear) -> Iterator[threading.Thread]:
    """Run a source in its thread; the thread must end soon after it is told to."""
    stop = threading.Event()
    thread = threading.Thread(target=source.run, args=(ear, stop), name=f"source-{source.name}")
    thread.start()
    try:
        yield thread
    finally:
        stop.set()
        thread.join(WITHIN_S)
        assert not thread.is_alive(), "the source does not stop"
