"""What an inference costs, in the best coin there is here: joules, or processor seconds for want of them."""

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from benchmarks.throughput import figures
from benchmarks.throughput.energy import Metering
from benchmarks.throughput.results import Round, Turn
from firmware_shims.power.model import CpuModelMeter


@dataclass(frozen=True, slots=True)
class Costing:
    """What the device itself counts or predicts comes first, then a meter's active joules, then a model's.

    `device` says which kind of joules the device gives, empty for none; `idle_w` is taken off what the meter counts.
    """

    device: str = ""
    metering: Metering | None = None
    idle_w: float = 0.0
    model: CpuModelMeter | None = None

    @property
    def coin(self) -> str:
        """What inferences are counted by; joules never without their source."""
        if self.device:
            return f"joule ({self.device})"
        if self.metering is not None:
            used = self.metering.used
            return f"joule ({used.source}: {used.name})"
        if self.model is not None:
            return f"joule (model: {self.model.watts_per_core:g} W x CPU seconds)"
        return "CPU second (no meter)"

    async def of(self, work: Awaitable[Turn]) -> Turn:
        """The turn with its joules, where there are any; raises MeterFailed."""
        if self.device:
            return await work
        if self.metering is not None:
            turn, span = await self.metering.during(work)
            return replace(turn, joules=span.active_j(self.idle_w))
        turn = await work
        return turn if self.model is None else replace(turn, joules=self.model.active_j(turn.cpu_s))

    def per_inference(self, rounds: Sequence[Round], side: figures.Side = figures.ours) -> float:
        """In this coin. Raises `TooSmallError` where the meter cannot tell the work from nothing."""
        if not self.device and self.metering is None and self.model is None:
            return figures.cpu_s_per_inference(rounds, side)
        joules = figures.joules_per_inference(rounds, side)
        if joules <= 0:
            raise TooSmallError(
                f"{self.coin}: {joules:.3g} J an inference above idle: the meter's noise is larger than the work; "
                "lengthen the turns (--turn-s), raise --rate, or go by processor seconds (--meter none)"
            )
        return joules


class TooSmallError(Exception):
    """The meter cannot tell the work from nothing; one line with what to do."""
