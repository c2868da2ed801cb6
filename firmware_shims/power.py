"""Power meters. A meter says where its joules come from; a model is never a measurement."""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class CpuModelMeter:
    """Active energy as CPU seconds times a configured power per core: an estimate for want of a meter."""

    watts_per_core: float
    source: ClassVar[str] = "model"

    def active_j(self, cpu_s: float) -> float:
        """Joules of `cpu_s` seconds of one core."""
        return cpu_s * self.watts_per_core
