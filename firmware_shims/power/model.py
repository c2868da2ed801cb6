"""An estimate for want of a meter, and told as one."""

from dataclasses import dataclass
from typing import ClassVar

from firmware_shims.power.meter import JouleSource


@dataclass(frozen=True, slots=True)
class CpuModelMeter:
    """Active energy as CPU seconds times a configured power per core. It knows of single runs only."""

    watts_per_core: float
    source: ClassVar[JouleSource] = JouleSource.MODEL

    def active_j(self, cpu_s: float) -> float:
        """Joules of `cpu_s` seconds of one core."""
        return cpu_s * self.watts_per_core
