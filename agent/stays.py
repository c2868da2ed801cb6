"""Follows the car's stays: since when it is parked, how long it will stay, and what its earlier stays taught.

A stay begins when the car is first known to be parked after it was known not to be, and ends when it is next known not
to be. Not to know begins and ends nothing: a parked car sleeps and is silent, and a drive wakes its computer. Durations
are those of the boot-time clock; the wall clock only says at what hour of the week a stay began.
"""

import asyncio
import datetime as dt
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import msgspec

from agent.guard import Guard
from agent.kept_notes import KeptNotes
from agent.policy.conditions import CONDITIONS, PARKED
from agent.policy.stay import Arrival, Forecast, Prior, StayModel
from agent.policy.survival import Tally
from agent.policy.times import MISSED_S
from agent.policy.verdict import Verdict
from agent.store import Store
from firmware_shims.clock import Clock

log = logging.getLogger(__name__)
NS: Final = 1_000_000_000
LOOK_S: Final = 60.0
KEEP_NS: Final = 600 * NS
"""How often a stay that goes on is written: flash wears."""
ABSENT_S: Final = 12 * 3600.0
"""An agent that was away for longer cannot say that nobody drove meanwhile: a judgement, it spans a night."""
LONGEST_S: Final = 60 * 86_400.0
"""A car that stood for longer was stored, not parked: nothing is learned of it."""
OPEN_NOTE: Final = "stay"
HISTORY_NOTE: Final = "stay_history"


class Kept(msgspec.Struct, frozen=True):
    """The open stay on disk: `stayed_s` long at `seen_at` (unix seconds, None: the clock was wrong).

    `whole`: its beginning was seen.
    """

    seen_at: float | None
    stayed_s: float
    whole: bool


@dataclass(frozen=True, slots=True)
class Stay:
    """The open stay: since `begun_ns` on the boot-time clock, or, where it is not `whole`, seen since then."""

    begun_ns: int
    whole: bool


@dataclass(frozen=True, slots=True)
class _Outlook:
    """What is expected of the open stay now. `left_s`: until the announced departure."""

    forecast: Forecast
    stayed_s: float
    left_s: float


@dataclass(slots=True, eq=False)
class Stays:
    """The open stay and the model that has learned from earlier ones. Everything runs on the event loop.

    `zone`: the clocks of the place where the car lives. `wall`: unix seconds, None when they cannot be trusted.
    """

    guard: Guard
    store: Store
    prior: Prior
    zone: dt.tzinfo
    clock: Clock
    wall: Callable[[], float | None]
    on_store_error: Callable[[BaseException], None]
    stay: Stay | None = None
    _model: StayModel = field(init=False)
    _notes: KeptNotes = field(init=False)
    _moved: bool = False
    """Known not to be parked, and not known to be since."""
    _departure_s: float | None = None
    _kept_ns: int = 0
    _curve: tuple[tuple[int, int], Forecast] | None = None
    """The forecast of the open stay, with the group and the minute of its arrival."""

    def __post_init__(self) -> None:
        self._model = StayModel(self.prior)
        self._notes = KeptNotes(self.store, self.on_store_error)

    async def restore(self) -> None:
        """Take up what an earlier start of the agent left on disk; before the first look."""
        learned = await self._notes.read(HISTORY_NOTE, self._learned)
        if learned is not None:
            self._model = learned
        kept = await self._notes.read(OPEN_NOTE, msgspec.json.Decoder(Kept | None).decode)
        if kept is not None:
            self._take_up(kept)

    def look(self) -> bool:
        """Notice what became of the car; True when the forecast changed otherwise than by the passing of time."""
        parked, now_ns = _parked(self.guard.verdict), self.clock()
        before = self.stay, self._departure_s
        self._departure_s = self.guard.orders.departure_s
        if parked and self.stay is None:
            self._open(Stay(now_ns, whole=self._moved))
        elif parked is False and self.stay is not None:
            self._close(self.stay, now_ns)
        elif self.stay is not None and now_ns - self._kept_ns >= KEEP_NS:
            self._keep()
        if parked is not None:
            self._moved = not parked
        return before != (self.stay, self._departure_s)

    async def watch(self, on_change: Callable[[], None]) -> None:
        """Look every minute until cancelled: also where no verdict brings a change."""
        while True:
            await asyncio.sleep(LOOK_S)
            if self.look():
                on_change()

    @property
    def expected_s(self) -> int | None:
        """Seconds that the car stays on, as often longer as not; None while it is not parked or nothing is known."""
        outlook = self._outlook()
        if outlook is None:
            return None
        return round(min(outlook.forecast.expected_s(outlook.stayed_s), outlook.left_s))

    def likely(self, further_s: float) -> float | None:
        """P(the car stays at least `further_s` more); None while it is not parked or nothing is known."""
        outlook = self._outlook()
        if outlook is None:
            return None
        if further_s > outlook.left_s:
            return 0.0
        return outlook.forecast.survival(outlook.stayed_s, further_s)

    def _outlook(self) -> _Outlook | None:
        now_s = self.wall()
        if self.stay is None or now_s is None:
            return None
        stayed_s = self._stayed_s(self.stay)
        arrival = self._arrival(now_s - stayed_s)
        place = arrival.group, arrival.minute
        if self._curve is None or self._curve[0] != place:
            self._curve = place, self._model.forecast(arrival)
        departure_s = self.guard.orders.departure_s
        left_s = math.inf
        if departure_s is not None and departure_s - now_s >= -MISSED_S:
            left_s = max(0.0, departure_s - now_s)
        return _Outlook(self._curve[1], stayed_s, left_s)

    def _arrival(self, at_s: float) -> Arrival:
        local = dt.datetime.fromtimestamp(at_s, self.zone)
        return Arrival(at_s, local.weekday(), local.hour, local.minute)

    def _stayed_s(self, stay: Stay) -> float:
        return (self.clock() - stay.begun_ns) / NS

    # Beginning and end

    def _open(self, stay: Stay) -> None:
        self.stay, self._curve = stay, None
        log.info("the car is parked%s", "" if stay.whole else ", nobody saw since when")
        self._keep()

    def _close(self, stay: Stay, now_ns: int) -> None:
        self.stay = None
        stayed_s = (now_ns - stay.begun_ns) / NS
        log.info("the car has left after %.0f s", stayed_s)
        self._learn(Kept(self.wall(), stayed_s, stay.whole), left=True)
        self._keep()

    def _take_up(self, kept: Kept) -> None:
        """Go on with a stay, or learn what was seen of it if the agent has been away for too long."""
        now_s = self.wall()
        absent_s = math.inf if now_s is None or kept.seen_at is None else now_s - kept.seen_at
        if 0 <= absent_s <= ABSENT_S:
            self.stay = Stay(self.clock() - round((kept.stayed_s + absent_s) * NS), kept.whole)
            return
        log.info("nobody has looked after the car for %g h by the clock: its stay is over", absent_s / 3600)
        self._learn(kept, left=False)
        self._keep()

    def _learn(self, ended: Kept, *, left: bool) -> None:
        """Learn a stay that is over; of an unknown length, or at an unknown time, it teaches nothing."""
        if ended.whole and ended.seen_at is not None and 0 <= ended.stayed_s <= LONGEST_S:
            arrival = self._arrival(ended.seen_at - ended.stayed_s)
            self._model.learn(arrival, ended.stayed_s, left=left)

    # The disk

    def _learned(self, body: bytes) -> StayModel:
        return StayModel(self.prior, msgspec.json.decode(body, type=dict[int, Tally]))

    def _keep(self) -> None:
        """Write the open stay; where there is none, what the model has learned from the last one too."""
        self._kept_ns = self.clock()
        if self.stay is None:
            self._notes.write({OPEN_NOTE: b"null", HISTORY_NOTE: msgspec.json.encode(self._model.history)})
        else:
            kept = Kept(self.wall(), self._stayed_s(self.stay), self.stay.whole)
            self._notes.write({OPEN_NOTE: msgspec.json.encode(kept)})


_PARKED: Final = CONDITIONS.index(PARKED)


def _parked(verdict: Verdict) -> bool | None:
    """What the policy itself saw of gear and speed; None when it does not know."""
    return verdict.judged[_PARKED].holds
