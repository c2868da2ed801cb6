"""What the vehicle's operating system can ask of the agent and tell it: CONTRACT section 7 as a table of functions."""

import asyncio
import datetime as dt
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Final

import msgspec

from agent.control_server import Answer, CommandRefused, CommandTable, Request
from agent.guard import Guard
from agent.history.logbook import Logbook
from agent.history.report import DAYS_SHOWN, Day, day_of, first_possible, reported, so_far_s
from agent.policy.orders import Orders
from agent.portrait import Portrait
from agent.reports import utc_now
from agent.status import Status, news
from agent.store import Counts, KeptOrders, Store, StoreFull
from agent.store.history import KEPT_DAYS
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
    logbook: Logbook
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
                "tasks": self.tasks,
                "history": self.history,
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
        return _answer(self.portrait.status(await self._counts(), await self._today()))

    async def watch(self, _: Request) -> AsyncGenerator[Answer, None]:
        """The status now and after each change."""
        counts, today = await self._counts(), await self._today()
        told = None
        while True:
            if news(self.portrait.status(counts, today)) != told:
                counts, today = await self._counts(), await self._today()
                status = self.portrait.status(counts, today)
                told = news(status)
                yield _answer(status)
            await asyncio.sleep(WATCH_EVERY_S)

    async def tasks(self, request: Request) -> Answer:
        """What waits, what runs, and the `ended` that ended last."""
        # a blocked car is seldom asked: its memory does without until then
        from agent.task_list import ENDED_MOST, ENDED_SHOWN, listed, task_list  # noqa: PLC0415

        ended = _number(request, "ended", ENDED_SHOWN, (0, ENDED_MOST))
        found = await self.store.run(lambda ledger: listed(ledger, ended))
        vehicle = self.portrait.vehicle
        jobs = self.portrait.executor.jobs
        told = task_list(found, jobs, vehicle=vehicle, at=utc_now(), live=True)
        return {"tasks": msgspec.to_builtins(told)}

    async def history(self, request: Request) -> Answer:
        """The account of the last `days` days."""
        days = _number(request, "days", DAYS_SHOWN, (1, KEPT_DAYS))
        at = utc_now()
        self.logbook.look()
        told = reported(
            await self.logbook.sums_since(first_possible(days, at)),
            vehicle=self.portrait.vehicle,
            time_zone=self.logbook.zone.key,
            at=at,
            days=days,
        )
        return {"history": msgspec.to_builtins(told)}

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

    async def _today(self) -> Day | None:
        """The day so far."""
        self.logbook.look()
        today = self.logbook.today
        if today is None:
            return None
        sums = await self.logbook.sums_since(today.isoformat())
        return day_of(sums, today, so_far_s(today, self.logbook.zone, utc_now()))

    async def _counts(self) -> Counts:
        return await self.store.run(lambda ledger: ledger.counts())


def _answer(status: Status) -> Answer:
    return {"status": msgspec.to_builtins(status)}


def _seen(request: Request, name: str) -> str:
    return f"{name} is {shown(request[name])}" if name in request else f"{name} is missing"


def _number(request: Request, name: str, default: int, bounds: tuple[int, int]) -> int:
    """A whole number of the request; `default` where it says none."""
    value = request.get(name, default)
    least, most = bounds
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        fix = f'send {{"cmd": "{request["cmd"]}", "{name}": {default}}}, or leave it out'
        problem = f"it must be a whole number from {least} to {most}"
        raise CommandRefused(f"{_seen(request, name)}: {problem}", fix)
    return value


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
