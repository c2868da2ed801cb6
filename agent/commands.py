"""What the vehicle's operating system can ask of the agent and tell it: CONTRACT section 7 as a table of functions."""

import asyncio
import datetime as dt
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Final

import msgspec

from agent.control_server import Answer, CommandRefused, CommandTable, Request
from agent.guard import Guard
from agent.policy.orders import Orders
from agent.portrait import Portrait
from agent.reports import utc_now
from agent.status import Status, news
from agent.store import Counts, KeptOrders, Store, StoreFull
from firmware_shims.pushed import PushedSignals, shown

WATCH_EVERY_S: Final = 0.1
"""How often it is looked for news while somebody watches: bursts become one line."""
Time = Annotated[dt.datetime, msgspec.Meta(tz=True)]


@dataclass(frozen=True, slots=True)
class Commands:
    """The commands over the parts of the service that they read and change. `pushed`: the sources that take pushes."""

    guard: Guard
    store: Store
    portrait: Portrait
    pushed: Sequence[PushedSignals]

    @property
    def table(self) -> CommandTable:
        """What the control socket serves."""
        return CommandTable(
            prompt={"signals": self.signals},
            asked={
                "status": self.status,
                "pause": self.pause,
                "resume": self.resume,
                "consent": self.consent,
                "departure": self.departure,
            },
            streams={"watch": self.watch},
            on_caught_up=self.caught_up if self.pushed else None,
        )

    async def restore(self) -> None:
        """Let the orders stand that stood when the agent ended."""
        kept = await self.store.run(lambda ledger: ledger.facts.orders())
        self.guard.follow(replace(self.guard.orders, **kept._asdict()))

    def signals(self, request: Request) -> Answer:
        """Deliver `values`; what they preempt has been sent its signal when this returns.

        Every value that is good is taken, also beside one that is not: an open door must not wait for a
        correct line. See `PushedSignals.push`.
        """
        values = request.get("values")
        if not isinstance(values, dict):
            fix = 'send {"cmd": "signals", "values": {path: value, ...}}'
            raise CommandRefused(f"{_seen(request, 'values')}: it must be an object", fix)
        if not self.pushed:
            fix = 'add a [[signals]] section with shim = "socket" to agent.toml, and start the agent again'
            raise CommandRefused("no configured source takes pushed signals", fix)
        problems = [problem for source in self.pushed for problem in source.push(values)]
        declared = {path for source in self.pushed for path in source.stale_after_s}
        problems += [
            f"{shown(path)} is declared by no socket source: add it to signals.options.signals"
            for path in values
            if path not in declared
        ]
        if problems:
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            fix = "correct that; it reads as unknown, and the good values of the line have been taken"
            raise CommandRefused(problems[0] + more, fix)
        return {}

    def caught_up(self, now_ns: int) -> None:
        """Every signal that was sent up to `now_ns` has been pushed."""
        for source in self.pushed:
            source.caught_up(now_ns)

    async def status(self, _: Request) -> Answer:
        """Everything that the agent says of itself."""
        return _answer(self.portrait.status(await self._counts()))

    async def watch(self, _: Request) -> AsyncGenerator[Answer, None]:
        """The status now and after each change."""
        counts = await self._counts()
        told = None
        while True:
            if news(self.portrait.status(counts)) != told:
                counts = await self._counts()
                status = self.portrait.status(counts)
                told = news(status)
                yield _answer(status)
            await asyncio.sleep(WATCH_EVERY_S)

    async def pause(self, _: Request) -> Answer:
        """Give the computer back at once, until `resume`."""
        return await self._follow(replace(self.guard.orders, paused=True))

    async def resume(self, _: Request) -> Answer:
        """End a pause. A drain by the fleet goes on."""
        return await self._follow(replace(self.guard.orders, paused=False))

    async def consent(self, request: Request) -> Answer:
        """Take the owner's word."""
        value = request.get("value")
        if not isinstance(value, bool):
            fix = 'send {"cmd": "consent", "value": true} or false'
            raise CommandRefused(f"{_seen(request, 'value')}: it must be true or false", fix)
        return await self._follow(replace(self.guard.orders, consent=value))

    async def departure(self, request: Request) -> Answer:
        """Take when the owner means to leave; null for nobody knows."""
        departure_s = _departure_s(request)
        return await self._follow(replace(self.guard.orders, departure_s=departure_s))

    async def _follow(self, orders: Orders) -> Answer:
        """Let `orders` stand from now on; it is answered when they are on disk."""
        self.guard.follow(orders)

        kept = KeptOrders(orders.paused, orders.consent, orders.departure_s)
        try:
            await self.store.run(lambda ledger: ledger.facts.keep_orders(kept))
        except StoreFull as error:
            fix = "raise store.max_bytes or free the disk, and say it again"
            raise CommandRefused(f"it holds now, and is lost at the next start: {error}", fix) from error
        return {}

    async def _counts(self) -> Counts:
        return await self.store.run(lambda ledger: ledger.counts())


def _answer(status: Status) -> Answer:
    return {"status": msgspec.to_builtins(status)}


def _seen(request: Request, name: str) -> str:
    return f"{name} is {shown(request[name])}" if name in request else f"{name} is missing"


def _departure_s(request: Request) -> float | None:
    """Unix seconds."""
    fix = 'send {"cmd": "departure", "at": "2026-11-22T07:30:00Z"} with the time that you mean, or null for none'
    if request.get("at", "") is None:
        return None
    try:
        time = msgspec.convert(request.get("at"), Time)
    except msgspec.ValidationError as error:
        problem = "it must be RFC 3339 with a time zone, or null"
        raise CommandRefused(f"{_seen(request, 'at')}: {problem}", fix) from error
    now = utc_now()
    if time <= now:
        passed = f"that has passed, it is {now:%Y-%m-%dT%H:%M:%SZ} here"
        raise CommandRefused(f"{_seen(request, 'at')}: {passed}", fix)
    return time.timestamp()
