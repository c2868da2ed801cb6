"""The setting of a backend that gives most inferences for a joule, at a rate, under a latency and a preemption bound.

What cannot keep the bounds is left out (tune_looks), the rest races at the asked rate (tune_search), then the batches
race at full load. At last the setting is measured anew beside the defaults, in turn: what luck it may have had in the
race is no part of the gain that is told.
"""

import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from backends.registry import find
from benchmarks.throughput import tune_turns
from benchmarks.throughput.processes import Busy, others_share
from benchmarks.throughput.results import Round, Turn
from benchmarks.throughput.tune_cores import allowed_here, kinds
from benchmarks.throughput.tune_cost import Costing
from benchmarks.throughput.tune_looks import FAILURES, Bounds, looks, split
from benchmarks.throughput.tune_search import Measure, Race, SettingFailedError, Trial, search
from benchmarks.throughput.tune_sides import Sides
from benchmarks.throughput.tune_space import Setting, space
from benchmarks.throughput.tune_turns import Side

ANY_LATENCY_MS: Final = float("inf")

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Effort:
    """How long turns are, at the rate and at full load, and how many rounds: of each race at most, and of the end."""

    turn_s: float
    full_s: float
    rounds: int


@dataclass(slots=True)
class Confirmed:
    """The setting (ours) beside the defaults (bare), measured anew, by round.

    At full load it runs its best batch: against single rows of the defaults, and against the same batch where that is
    larger. `precision`: the same setting with the model in another precision (ours) and in this one (bare).
    """

    at_rate: list[Round] = field(default_factory=list)
    full: list[Round] = field(default_factory=list)
    full_same_batch: list[Round] = field(default_factory=list)
    precision: list[Round] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Tuned:
    """What came of it; without a `taken` none has kept the bounds."""

    trials: Sequence[Trial]
    left_out: Sequence[str]
    taken: Trial | None = None
    full_trials: Sequence[Trial] = ()
    full_taken: Trial | None = None
    confirmed: Confirmed | None = None
    others_share: float = 0.0
    """Of the machine's processor time meanwhile, what went to processes that are none of ours."""

    @property
    def full_batch(self) -> int:
        """Rows of a run at full load."""
        return self.full_taken.setting.batch if self.full_taken else 1


@dataclass(frozen=True, slots=True)
class Tuning:
    """`other` has the same model in another precision, where there is one."""

    sides: Sides
    rate_per_s: float
    bounds: Bounds
    effort: Effort
    costing: Costing
    say: Say
    other: Sides | None = None

    async def run(self) -> Tuned:
        """Search, then compare. Raises what a side raises where none of the settings runs, and MeterFailed."""
        before = _busy()
        tuned = await self._run()
        return replace(tuned, others_share=others_share(before, _busy()))

    async def _run(self) -> Tuned:
        metered = self.costing.metering is not None
        tried = space(find(self.sides.use).Options, kinds(allowed_here()), metered, self.sides.held)
        self.say(f"a look at {len(tried.options)} sets of options")
        found = await looks(self.sides, tried.options, self.bounds)
        settings, refused = split(found, self.bounds, self.rate_per_s)
        trials, taken = await self._race(
            f"{self.rate_per_s:g} requests/s", settings, self._at_rate, self.bounds.latency_ms
        )
        if taken is None:
            return Tuned([*trials, *refused], tried.left_out)
        same = [look for look in found if look.options == taken.setting.options]
        batches, _ = split(same, self.bounds, None)
        full_trials, fullest = await self._race("full load", batches, self._at_full_load, ANY_LATENCY_MS)
        full_batch = fullest.setting.batch if fullest else 1
        confirmed = await self._confirm(taken.setting, full_batch)
        return Tuned([*trials, *refused], tried.left_out, taken, full_trials, fullest, confirmed)

    async def _race(
        self, what: str, settings: Sequence[Setting], measure: Measure, latency_bound_ms: float
    ) -> tuple[list[Trial], Trial | None]:
        began_s, turns = time.monotonic(), 0

        def on_round(number: int, running: int) -> None:
            nonlocal turns
            turns_left = running * (self.effort.rounds - number)
            self.say(
                f"{what}: round {number + 1}, {running} settings{_time_left(began_s, turns, turns_left)}"
            )
            turns += running

        race = Race(self.costing.per_inference, latency_bound_ms, self.effort.rounds)
        return await search(settings, measure, race, on_round)

    async def _at_rate(self, setting: Setting) -> Turn:
        async with self._dropping_out(), self.sides.ours(setting.options) as side:
            return await self._rate_turn(side, setting.batch)

    async def _at_full_load(self, setting: Setting) -> Turn:
        async with self._dropping_out(), self.sides.ours(setting.options) as side:
            return await self._full_turn(side, setting.batch)

    @contextlib.asynccontextmanager
    async def _dropping_out(self) -> AsyncIterator[None]:
        """A setting that fails in the race leaves it; the others go on."""
        try:
            yield
        except FAILURES as error:
            raise SettingFailedError(str(error)) from error

    async def _rate_turn(self, side: Side, batch: int) -> Turn:
        await tune_turns.warm_up(side, batch)
        return await self.costing.of(tune_turns.at_rate(side, self.rate_per_s, self.effort.turn_s, batch))

    async def _full_turn(self, side: Side, batch: int) -> Turn:
        await tune_turns.warm_up(side, batch)
        return await self.costing.of(tune_turns.at_full_load(side, self.effort.full_s, batch))

    async def _confirm(self, setting: Setting, full_batch: int) -> Confirmed:
        confirmed, rounds, began_s = Confirmed(), self.effort.rounds, time.monotonic()
        for number in range(rounds):
            left = _time_left(began_s, number, rounds - number)
            self.say(f"beside {self.sides.reference}: round {number + 1} of {rounds}{left}")
            if number % 2:
                ours, theirs = await self._ours(setting, full_batch), await self._theirs(full_batch)
            else:
                theirs, ours = await self._theirs(full_batch), await self._ours(setting, full_batch)
            confirmed.at_rate.append(Round(ours[0], theirs[0]))
            confirmed.full.append(Round(ours[1], theirs[1]))
            if full_batch > 1:
                confirmed.full_same_batch.append(Round(ours[1], theirs[2]))
            if self.other is not None:
                async with self.other.ours(setting.options) as side:
                    confirmed.precision.append(Round(await self._rate_turn(side, setting.batch), ours[0]))
        return confirmed

    async def _ours(self, setting: Setting, full_batch: int) -> list[Turn]:
        """At the rate, and at full load."""
        async with self.sides.ours(setting.options) as side:
            return [await self._rate_turn(side, setting.batch), await self._full_turn(side, full_batch)]

    async def _theirs(self, full_batch: int) -> list[Turn]:
        """Row by row at the rate and at full load, and in the batch of ours where that is larger."""
        async with self.sides.defaults() as side:
            turns = [await self._rate_turn(side, 1), await self._full_turn(side, 1)]
            return [*turns, await self._full_turn(side, full_batch)] if full_batch > 1 else turns


def _time_left(began_s: float, done: int, left: int) -> str:
    """At most; empty before anything is done."""
    return f", at most {(time.monotonic() - began_s) / done * left:.0f} s left" if done else ""


def _busy() -> Busy:
    """With the sides as ours: they have ended and been waited for, so the times of our children hold them."""
    return replace(Busy.now(), ours_s=sum(os.times()[:4]))
