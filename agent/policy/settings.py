"""The guards of the policy with their defaults, and where the figures come from.

Wallboxes cut the supply at the charge target, and a car that is plugged in then draws on its pack (evcc issues
26086 and 31136): so grid power is proven by AC power and pack current, never by a plug bit. The floor of 20 % is
what sentry modes, climate control and V2L keep in cars on the road; the pack's temperatures are cell limits; 90 C
lies 9 C below where the hottest of common vehicle computers trips (Orin, 99 C). The other figures are judgements.
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Seconds = Annotated[float, Field(ge=0, le=86_400)]
Percent = Annotated[float, Field(ge=0, le=100)]
Celsius = Annotated[float, Field(ge=-60, le=150)]


class PolicySettings(BaseModel):
    """Section `[policy]` of agent.toml. `start` thresholds let work begin, `stop` thresholds end it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    require_grid_proof: Literal[True] = True
    settle_s: Seconds = 60
    """How long every condition must have held without a break before work starts."""
    grid_proof_s: Seconds = 30
    grid_lost_s: Annotated[float, Field(ge=0, le=30)] = 3
    grid_ac_factor: Annotated[float, Field(ge=1, le=10)] = 1.1
    grid_pack_min_a: Annotated[float, Field(ge=-5, le=5)] = -0.5
    drain_s: Annotated[float, Field(ge=0, le=60)] = 5
    """How long running work may take to end when the cause is not the owner's nor one of safety."""

    soc_floor_pct: Annotated[float, Field(ge=20, le=100)] = 20
    soc_start_pct: Percent = 30
    soc_stop_pct: Percent = 25
    pack_start_c: tuple[Celsius, Celsius] = (5, 35)
    pack_stop_c: tuple[Celsius, Celsius] = (0, 40)
    chip_derate_c: Celsius = 80
    chip_stop_c: Annotated[float, Field(ge=0, le=90)] = 90
    chip_resume_c: Celsius = 75

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        low, high = self.pack_stop_c
        rules = (
            (
                self.soc_floor_pct <= self.soc_stop_pct < self.soc_start_pct,
                "soc_floor_pct <= soc_stop_pct < soc_start_pct",
            ),
            (
                low <= self.pack_start_c[0] < self.pack_start_c[1] <= high,
                "pack_start_c lies inside pack_stop_c",
            ),
            (
                self.chip_resume_c <= self.chip_derate_c < self.chip_stop_c,
                "chip_resume_c <= chip_derate_c < chip_stop_c",
            ),
        )
        for holds, rule in rules:
            if not holds:
                raise ValueError(f"the guards must satisfy {rule}")
        return self
