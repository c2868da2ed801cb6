"""Whose joules a row reports: one source for all of its turns, the best that there was for every one of them.

What a device says of its own runs comes first, counted or predicted: of an emulated chip the machine's meter knows
nothing. Then the machine's meter, then `--power-model`; otherwise there are none.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, cast

from msgspec import structs

from benchmarks.throughput import figures, histogram, intervals
from benchmarks.throughput.energy import Idle, Metering
from benchmarks.throughput.results import Energy, JouleSource, Round, Turn
from benchmarks.throughput.turns import RawRound, RawTurn
from firmware_shims.power.model import CpuModelMeter

RESOLUTION_STEPS: Final = 5
"""A turn of fewer steps of the meter is said to lie below its resolution."""
DRIFT_SHARE: Final = 0.05
"""Of the active power: a larger change of the idle power is told."""


@dataclass(frozen=True, slots=True)
class Account:
    """The rounds with their joules, and where those come from."""

    rounds: tuple[Round, ...]
    energy: Energy
    marks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Metered:
    """What could say something about energy in one row."""

    device: str
    """For example "fsd emulator"."""
    metering: Metering | None
    idle_before: Idle | None
    idle_after: Idle | None
    model: CpuModelMeter | None

    @property
    def idle_w(self) -> float | None:
        """The baseline: halfway between before and after."""
        if self.idle_before is None or self.idle_after is None:
            return None
        return (self.idle_before.watts + self.idle_after.watts) / 2


def account(raw: Sequence[RawRound], metered: Metered) -> Account:
    """Settle the turns of a row."""
    turns = [turn for each in raw for turn in (each.ours, each.bare) if turn is not None]
    ours = [each.ours for each in raw]
    sources = {turn.played.joules_source for turn in ours}
    if all(turn.played.joules is not None for turn in ours) and len(sources) == 1:
        energy = Energy(cast("JouleSource", sources.pop()), metered.device)
        return _filled(_rounds(raw, lambda turn: turn.played.joules), energy, ())
    idle_w = metered.idle_w
    if metered.metering is not None and idle_w is not None and all(turn.counted for turn in turns):
        return _of_the_meter(raw, metered, metered.metering, idle_w)
    if metered.model is not None:
        model = metered.model
        energy = Energy("model", f"{model.watts_per_core:g} W x CPU seconds")
        return _filled(_rounds(raw, lambda turn: model.active_j(turn.played.cpu_s)), energy, ())
    return Account(_rounds(raw, lambda _: None), Energy("none", ""))


def _of_the_meter(raw: Sequence[RawRound], metered: Metered, metering: Metering, idle_w: float) -> Account:
    used = metering.used
    energy = Energy(
        used.source,
        used.name,
        resolution_j=used.resolution_j,
        resolution_s=used.resolution_s,
        idle_before_w=metered.idle_before.watts if metered.idle_before else None,
        idle_after_w=metered.idle_after.watts if metered.idle_after else None,
    )
    rounds = _rounds(raw, lambda turn: turn.counted.active_j(idle_w) if turn.counted else None)
    active_j = [turn.joules or 0.0 for turn in (each.ours for each in rounds)]
    active_w = sum(active_j) / sum(each.ours.seconds for each in rounds)
    marks = []
    if sum(active_j) / len(active_j) < RESOLUTION_STEPS * used.resolution_j:
        marks.append(
            f"below meter resolution: {sum(active_j) / len(active_j):.2g} J a turn, "
            f"steps of {used.resolution_j:.2g} J"
        )
    if abs(energy.drift_w or 0.0) > DRIFT_SHARE * abs(active_w):
        marks.append(
            f"idle drift: {energy.drift_w:+.2g} W beside {active_w:.3g} W of work, "
            f"limit {DRIFT_SHARE:.0%}: let the machine come to rest"
        )
    return _filled(rounds, energy, tuple(marks))


def _rounds(raw: Sequence[RawRound], joules: Callable[[RawTurn], float | None]) -> tuple[Round, ...]:
    return tuple(
        Round(
            _turn(each.ours, joules(each.ours), each.ours.driver_cpu_s),
            _turn(each.bare, joules(each.bare), 0.0) if each.bare is not None else None,
            each.others_share,
        )
        for each in raw
    )


def _turn(raw: RawTurn, joules: float | None, driver_cpu_s: float) -> Turn:
    played = raw.played
    return Turn(
        inferences=played.inferences,
        seconds=played.seconds,
        cpu_s=played.cpu_s,
        latency=histogram.collected(played.latencies_ns),
        joules=joules,
        driver_cpu_s=driver_cpu_s,
    )


def _filled(rounds: tuple[Round, ...], energy: Energy, marks: tuple[str, ...]) -> Account:
    ours = intervals.signed_interval(rounds, figures.joules_per_inference)
    has_bare = all(each.bare is not None and each.bare.joules is not None for each in rounds)
    whole = structs.replace(
        energy,
        joules_per_inference=ours,
        inferences_per_joule=intervals.reciprocal(ours),
        bare_joules_per_inference=intervals.signed_interval(rounds, _bare_joules) if has_bare else None,
    )
    return Account(rounds, whole, marks)


def _bare_joules(rounds: Sequence[Round]) -> float:
    return figures.joules_per_inference(rounds, figures.bare)
