"""Requests that a worker has not answered yet: who waits for what, and for how long."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from backends import wire
from backends.kernel import CODES, Cancelled, Cost, KernelError
from backends.slots import Slot, layout

HUNG_FACTOR: Final = 10
HUNG_FLOOR_S: Final = 5.0
UNMEASURED_RUN_S: Final = 60.0

R = TypeVar("R", bound=wire.Message)


class ProtocolBroken(Exception):  # noqa: N818 - what the worker did
    """An answer that no worker of ours gives: nothing that it says counts any more."""


@dataclass(slots=True)
class _Call:
    """A request on its way: who waits, for what kind of reply, for how long, and the slot that it holds."""

    future: "asyncio.Future[Any]"
    expects: type[wire.Message]
    patience_s: float
    slot: Slot | None
    waited_s: float = 0.0


class Calls:
    """In the order in which they were sent, which is that in which a worker answers. Belongs to one event loop."""

    def __init__(self) -> None:
        self._calls: dict[int, _Call] = {}

    @property
    def pending(self) -> bool:
        """Whether a worker owes an answer."""
        return bool(self._calls)

    @property
    def slots(self) -> Iterator[Slot]:
        """The slots of runs that are under way or wait."""
        yield from [call.slot for call in self._calls.values() if call.slot is not None]

    def begin(
        self, call_id: int, expects: type[R], patience_s: float, slot: Slot | None = None
    ) -> "asyncio.Future[R]":
        """The future that `answer` or `fail` resolves."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._calls[call_id] = _Call(future, expects, patience_s, slot)
        if slot is not None:
            slot.run_id = call_id
        return future

    def answer(self, reply: wire.Reply) -> None:
        """Resolve the call that this is the answer to, or raise `ProtocolBroken`."""
        call = self._calls.get(reply.id)
        if call is None or not isinstance(reply, (call.expects, wire.Failed, wire.Cancelled)):
            raise ProtocolBroken(f"an answer that nobody waits for: {type(reply).__name__} {reply.id}")
        _check(reply)
        del self._calls[reply.id]
        if call.slot is not None:
            call.slot.settle()
        if call.future.done():  # its waiter was cancelled
            return
        if isinstance(reply, wire.Failed):
            call.future.set_exception(KernelError(reply.code, reply.text))
        elif isinstance(reply, wire.Cancelled):
            call.future.set_exception(Cancelled())
        else:
            call.future.set_result(reply)

    def overdue(self, passed_s: float, grace_s: float) -> str:
        """Let the first call wait for so much longer; what hangs, once it has waited too long, else empty.

        It waits by its own count: a loop that stood still finds the answers first.
        """
        first = next(iter(self._calls.values()), None)
        if first is None:
            return ""
        first.waited_s += passed_s
        patience_s = first.patience_s + grace_s
        return f"no {first.expects.__name__} for {patience_s:.3g} s" if first.waited_s > patience_s else ""

    def fail(self, error: Callable[[], Exception]) -> None:
        """Nobody will answer any more; each waiter gets an `error` of its own."""
        calls, self._calls = self._calls, {}
        for call in calls.values():
            if call.slot is not None:
                call.slot.settle()
            if not call.future.done():
                call.future.set_exception(error())


def _check(reply: wire.Reply) -> None:
    if isinstance(reply, wire.Failed) and reply.code not in CODES:
        raise ProtocolBroken(f"code {reply.code} is none of {sorted(CODES)}: {reply.text}")
    if isinstance(reply, wire.Loaded):
        try:
            layout((*reply.inputs, *reply.outputs), rows=1)
        except ValueError as error:
            raise ProtocolBroken(str(error)) from error


def patience_s(cost: Cost, rows: int) -> float:
    """Seconds after which a run of so many rows counts as hung."""
    return HUNG_FLOOR_S + HUNG_FACTOR * expected_s(cost, rows)


def expected_s(cost: Cost, rows: int) -> float:
    """Seconds that a run of `rows` rows takes, at most, going by the nearest batch that was measured."""
    if not cost.run_s:
        return UNMEASURED_RUN_S
    if rows in cost.run_s:
        return cost.run_s[rows]
    nearest = max((batch for batch in cost.run_s if batch <= rows), default=min(cost.run_s))
    return cost.run_s[nearest] * max(1.0, rows / nearest)
