"""The guards of the policy with their defaults, and where the figures come from.

Wallboxes cut the supply at the charge target, and a car that is plugged in then draws on its pack (evcc issues
26086 and 31136): so grid power is proven by AC power and pack current, never by a plug bit. The floor of 20 % is
what sentry modes, climate control and V2L keep in cars on the road, and V2L's usual range of 20-80 % is behind the
figures for energy from the pack. The pack's temperatures are cell limits; the ambient ones stand in owner's manuals;
90 C lies 9 C below where the hottest of common vehicle computers trips (Orin, 99 C). The filter of the low-voltage
supply is openpilot's, its volts are common practice. The other figures are judgements.
"""

from typing import Annotated, Final, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from agent.policy.pack_use import READING_STEP_PCT
from agent.policy.schedule import spans

Seconds = Annotated[float, Field(ge=0, le=86_400)]
Percent = Annotated[float, Field(ge=0, le=100)]
Celsius = Annotated[float, Field(ge=-60, le=150)]
TRIP_MARGIN_C: Final = 9
Volts = Annotated[float, Field(ge=8, le=60)]


def _window(text: str) -> str:
    list(spans(text))  # raises ValueError for what is no window
    return text


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:  # "Europe" is a folder
        raise ValueError(f'{name!r} is no IANA time zone, such as "America/Sao_Paulo"') from error
    return name


class PolicySettings(BaseModel):
    """Section `[policy]` of agent.toml. `start` thresholds let work begin, `stop` thresholds end it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    require_grid_proof: bool = True
    """False lets work take energy from the traction battery, within `pack_budget_pct_per_day`."""
    settle_s: Seconds = 60
    """How long every condition must have held without a break before work starts."""
    resume_economic_s: Seconds = 180
    """The same after a cause that is neither the owner's nor one of safety has ended work."""
    starts_per_hour: Annotated[int, Field(ge=1)] = 6
    grid_proof_s: Seconds = 30
    grid_lost_s: Annotated[float, Field(ge=0, le=30)] = 3
    grid_ac_factor: Annotated[float, Field(ge=1, le=10)] = 1.1
    grid_pack_min_a: Annotated[float, Field(ge=-5, le=5)] = -0.5
    grid_limit_w: Annotated[float, Field(gt=0, le=100_000)] | None = None
    """Most that this computer may take from the grid; a limit that the car sends holds beside it."""
    drain_s: Annotated[float, Field(ge=0, le=60)] = 5
    """How long running work may take to end when the cause is not the owner's nor one of safety."""

    soc_floor_pct: Annotated[float, Field(ge=20, le=100)] = 20
    soc_start_pct: Percent = 30
    soc_stop_pct: Percent = 25
    pack_budget_pct_per_day: Annotated[float, Field(ge=0, le=5)] = 0
    """Charge that work may take from the traction battery in any 24 hours. 0: none."""
    pack_soc_start_pct: Percent = 60
    pack_soc_stop_pct: Percent = 50

    pack_start_c: tuple[Celsius, Celsius] = (5, 35)
    pack_stop_c: tuple[Celsius, Celsius] = (0, 40)
    ambient_start_c: tuple[Celsius, Celsius] = (-10, 38)
    ambient_stop_c: Celsius = 42
    chip_derate_c: Celsius = 80
    chip_stop_c: Annotated[float, Field(ge=0, le=90)] = 90
    chip_resume_c: Celsius = 75
    chip_trip_c: Celsius = 99
    """Where this computer switches itself off."""

    lv_start_v: Volts = 13.2
    lv_stop_v: Volts = 12.8
    lv_stop_s: Annotated[float, Field(ge=0, le=60)] = 10
    lv_filter_s: Annotated[float, Field(ge=0, le=600)] = 45
    """Time constant of the low-pass in front of the two thresholds above; the floor is read without it."""
    lv_floor_v: Annotated[float, Field(ge=11.8, le=60)] = 11.8

    require_locked: bool = True
    """Whether an unlocked car counts as one whose owner is there, where a source tells."""
    require_consent: bool = False
    """Whether work waits for the owner's consent; one that is withdrawn always ends it."""
    schedule: tuple[Annotated[str, AfterValidator(_window)], ...] = ()
    """The owner's weekly windows, such as "mon-fri 22:00-06:00"; none: at any time."""
    time_zone: Annotated[str, AfterValidator(_zone)] = "UTC"
    """IANA name of the clocks that the schedule, and the habits of the car, go by."""
    departure_lead_s: Seconds = 900

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        low, high = self.pack_stop_c
        cold, hot = self.ambient_start_c
        rules = (
            (
                self.soc_floor_pct <= self.soc_stop_pct < self.soc_start_pct,
                "soc_floor_pct <= soc_stop_pct < soc_start_pct",
            ),
            (
                self.soc_stop_pct <= self.pack_soc_stop_pct < self.pack_soc_start_pct,
                "soc_stop_pct <= pack_soc_stop_pct < pack_soc_start_pct",
            ),
            (
                low <= self.pack_start_c[0] < self.pack_start_c[1] <= high,
                "pack_start_c lies inside pack_stop_c",
            ),
            (cold < hot < self.ambient_stop_c, "ambient_start_c rises and lies below ambient_stop_c"),
            (
                self.chip_resume_c <= self.chip_derate_c < self.chip_stop_c,
                "chip_resume_c <= chip_derate_c < chip_stop_c",
            ),
            (
                self.chip_stop_c <= self.chip_trip_c - TRIP_MARGIN_C,
                f"chip_stop_c <= chip_trip_c - {TRIP_MARGIN_C}",
            ),
            (
                self.lv_floor_v < self.lv_stop_v < self.lv_start_v,
                "lv_floor_v < lv_stop_v < lv_start_v",
            ),
        )
        for holds, rule in rules:
            if not holds:
                raise ValueError(f"the guards must satisfy {rule}")
        return self

    @model_validator(mode="after")
    def _pack_by_choice_only(self) -> Self:
        budget_pct = self.pack_budget_pct_per_day
        if not self.require_grid_proof and budget_pct <= READING_STEP_PCT:
            raise ValueError(
                "require_grid_proof = false takes energy from the pack: say how much of it with"
                f" pack_budget_pct_per_day, which is {budget_pct:g} and should be above {READING_STEP_PCT:g}"
            )
        if self.require_grid_proof and budget_pct:
            raise ValueError(
                f"pack_budget_pct_per_day = {budget_pct:g} has no effect with require_grid_proof = true:"
                " remove it, or set that to false"
            )
        return self
