"""Tasks that live as long as the service: the end of one ends it, and one that does not go on is noticed."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

Duty = Callable[[], Coroutine[Any, Any, None]]


class Pulse(Coroutine[Any, Any, None]):
    """`duty` as it is, with a stamp of when it last went on. `now_s` does not count suspend: nobody went on then."""

    def __init__(self, duty: Coroutine[Any, Any, None], now_s: Callable[[], float]) -> None:
        self.beat_s = now_s()
        self._duty = duty
        self._now_s = now_s

    def send(self, value: Any) -> Any:
        """Let it go on."""
        self.beat_s = self._now_s()
        return self._duty.send(value)

    def throw(self, *error: Any) -> Any:
        """Let it go on with an exception."""
        self.beat_s = self._now_s()
        return self._duty.throw(*error)

    def close(self) -> None:
        """End it."""
        self._duty.close()

    def __await__(self) -> Any:
        return self._duty.__await__()


@dataclass(frozen=True, slots=True)
class Bound:
    """How long a duty may take to go on, while it is `due`."""

    name: str
    pulse: Pulse
    within_s: float
    due: Callable[[], bool]


class Duties:
    """Runs coroutines as tasks inside `async with`; at the end the last is cancelled first, one after another."""

    def __init__(self) -> None:
        self.tasks: list[asyncio.Task[None]] = []
        self._loop = asyncio.get_running_loop()
        self._bounds: list[Bound] = []

    def start(
        self,
        name: str,
        duty: Coroutine[Any, Any, None],
        *,
        within_s: float | None = None,
        due: Callable[[], bool] = lambda: True,
    ) -> asyncio.Task[None]:
        """Run `duty`. With `within_s` it is expected to go on, from one `await` to another, at least so often."""
        pulse = Pulse(duty, self._loop.time)
        if within_s is not None:
            self._bounds.append(Bound(name, pulse, within_s, due))
        task = self._loop.create_task(pulse, name=name)
        self.tasks.append(task)
        return task

    def stuck(self) -> str:
        """Which of them has ended or has not gone on in time; empty while all are well."""
        for task in self.tasks:
            if task.done():
                return f"task {task.get_name()} has ended"
        for bound in self._bounds:
            still_s = self._loop.time() - bound.pulse.beat_s
            if still_s > bound.within_s and bound.due():
                return f"task {bound.name} has not gone on for {still_s:.0f} s, {bound.within_s:g} s are its limit"
        return ""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in reversed(self.tasks):
            task.cancel()
            await asyncio.wait([task])  # what it raised has been seen, or is one more of what ends us
