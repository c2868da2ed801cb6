"""INA3221 power monitors: watts of named rails as bus voltage times current.

A module's input rail already holds what its other rails carry: name that one, or the others.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from firmware_shims.clock import Clock
from firmware_shims.power.hwmon import summed
from firmware_shims.power.meter import Scope
from firmware_shims.power.sampled import SampledMeter

INPUT_RAILS: Final = frozenset({"VDD_IN", "VDD_5V_IN", "POM_5V_IN"})
"""What NVIDIA calls the rail that feeds a whole Jetson module."""
STEP_W: Final = 0.04
"""40 uV over the usual 5 mOhm shunt at 5 V: one step of the converter (TI SBOS576, section 7.5)."""


def ina3221(rails: Sequence[str], clock: Clock, root: Path = Path("/sys")) -> SampledMeter:
    """A meter over the rails of these labels; ValueError where they would count something twice."""
    twice = [rail for rail in rails if rail in INPUT_RAILS]
    if len(set(rails)) < len(rails) or (twice and len(rails) > 1):
        raise ValueError(
            f"rails {', '.join(rails)}: {(twice or rails)[0]} would count twice; name it alone, or the others"
        )
    return SampledMeter(
        f"ina3221 {', '.join(rails)}",
        Scope.COMPUTER if twice else Scope.RAILS,
        summed([f"ina3221:{rail}" for rail in rails], root),
        clock,
        resolution_w=STEP_W,
    )
