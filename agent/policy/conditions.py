"""The table of conditions: each is true, false or unknown, and has its own reason, windows and hysteresis.

To add a guard: write a `Judge` and add a line here.
"""

from typing import Final

from agent.policy import energy, machine, owner, region, times
from agent.policy.condition import Cause, Condition
from agent.policy.settings import PolicySettings
from agent.protocol.reasons import Reason
from firmware_shims import vss


def _settle_s(settings: PolicySettings) -> float:
    return settings.settle_s


def _resume_s(settings: PolicySettings) -> float:
    return settings.resume_economic_s


def _proof_s(settings: PolicySettings) -> float:
    return settings.grid_proof_s


GRID: Final = Condition(
    "grid power",
    Reason.NOT_GRID_POWERED,
    Cause.SAFETY,
    energy.grid_powered,
    _proof_s,
    grace_s=lambda settings: settings.grid_lost_s,
    required=(vss.CHARGE_LINE_POWER, vss.PACK_CURRENT),
)
CABLE: Final = Condition(
    "cable in",
    Reason.NOT_GRID_POWERED,
    Cause.SAFETY,
    energy.cable_in,
    _proof_s,
    optional=(vss.CABLE_CONNECTED,),
)
PROOF: Final = (GRID, CABLE)
"""Together they prove grid power. Who has opted in to energy from the pack may work without."""
PARKED: Final = Condition(
    "parked", Reason.NOT_PARKED, Cause.OWNER, owner.parked, _settle_s, required=(vss.GEAR, vss.SPEED)
)

CONDITIONS: Final[tuple[Condition, ...]] = (
    Condition(
        "owner away",
        Reason.OWNER_PRESENT,
        Cause.OWNER,
        owner.away,
        _settle_s,
        required=owner.PRESENCE_REQUIRED,
        optional=owner.PRESENCE_OPTIONAL,
    ),
    Condition(
        "locked",
        Reason.OWNER_PRESENT,
        Cause.OWNER,
        owner.locked,
        _settle_s,
        optional=(vss.DRIVER_LOCK,),
    ),
    PARKED,
    Condition("not paused", Reason.PAUSED, Cause.OWNER, owner.not_paused),
    Condition("consent", Reason.CONSENT, Cause.OWNER, owner.consents),
    GRID,
    CABLE,
    Condition(
        "pack energy",
        Reason.PACK_BUDGET,
        Cause.ECONOMIC,
        energy.pack_may_give,
        _settle_s,
        _resume_s,
        required=(vss.SOC,),
    ),
    Condition("charge, floor", Reason.CHARGE_LOW, Cause.SAFETY, energy.above_floor, required=(vss.SOC,)),
    Condition(
        "charge",
        Reason.CHARGE_LOW,
        Cause.ECONOMIC,
        energy.charged,
        _settle_s,
        _resume_s,
        required=(vss.SOC,),
    ),
    Condition(
        "pack temperature",
        Reason.PACK_TEMPERATURE,
        Cause.SAFETY,
        machine.pack_temperature,
        _settle_s,
        required=(vss.PACK_TEMPERATURE_MIN, vss.PACK_TEMPERATURE_MAX),
    ),
    Condition(
        "ambient temperature",
        Reason.AMBIENT_TEMPERATURE,
        Cause.SAFETY,
        machine.ambient_temperature,
        _settle_s,
        optional=(vss.AMBIENT_TEMPERATURE,),
    ),
    Condition(
        "chip temperature",
        Reason.CHIP_TEMPERATURE,
        Cause.SAFETY,
        machine.chip_temperature,
        required=(vss.CHIP_TEMPERATURE,),
    ),
    Condition(
        "12 V, floor",
        Reason.LOW_VOLTAGE,
        Cause.SAFETY,
        machine.supply_floor,
        optional=(vss.LOW_VOLTAGE_BATTERY,),
    ),
    Condition(
        "12 V",
        Reason.LOW_VOLTAGE,
        Cause.SAFETY,
        machine.supply,
        _settle_s,
        grace_s=lambda settings: settings.lv_stop_s,
        optional=(vss.LOW_VOLTAGE_BATTERY,),
    ),
    Condition(
        "own power rail",
        Reason.LOW_VOLTAGE,
        Cause.SAFETY,
        machine.own_rail,
        _settle_s,
        optional=(vss.COMPUTE_RAIL,),
    ),
    Condition(
        "region",
        Reason.REGION_MISMATCH,
        Cause.SAFETY,
        region.in_region,
        _settle_s,
        optional=region.POSITION,
    ),
    Condition(
        "grid limit",
        Reason.GRID_LIMIT,
        Cause.ECONOMIC,
        energy.grid_leaves_enough,
        _settle_s,
        _resume_s,
        optional=(vss.GRID_LIMIT,),
    ),
    Condition("schedule", Reason.OWNER_SCHEDULE, Cause.ECONOMIC, times.in_schedule, _settle_s, _resume_s),
    Condition(
        "departure",
        Reason.DEPARTURE_SOON,
        Cause.ECONOMIC,
        times.not_departing,
        _settle_s,
        _resume_s,
        optional=(vss.TIME_TO_COMPLETE,),
    ),
    Condition("no drain", Reason.DRAINING, Cause.ECONOMIC, times.not_draining),
    Condition("rested", Reason.SETTLING, Cause.ECONOMIC, times.rested),
)


def required_signals(settings: PolicySettings) -> frozenset[str]:
    """Signals without which no car with these settings is ever allowed to work."""
    excused = frozenset() if settings.require_grid_proof else frozenset(PROOF)
    return frozenset(
        path for condition in CONDITIONS if condition not in excused for path in condition.required
    )


def unwatched(declared: frozenset[str]) -> tuple[Condition, ...]:
    """Guards of owner and car that rest only on signals which no source declares: they do not apply to this car."""
    return tuple(
        condition
        for condition in CONDITIONS
        if condition.cause is not Cause.ECONOMIC
        and condition.optional
        and not condition.required
        and not declared & set(condition.optional)
    )
