"""Temperatures and the low-voltage supply."""

from agent.policy.condition import (
    DOES_NOT_APPLY,
    Judged,
    View,
    at_least,
    at_most,
    below,
    every,
    judged,
    unknown,
    within,
)
from firmware_shims import vss


def pack_temperature(view: View, held: bool) -> Judged:
    """The coldest and the hottest place of the pack."""
    low_c, high_c = view.settings.pack_stop_c if held else view.settings.pack_start_c
    return every(
        (
            judged(view, vss.PACK_TEMPERATURE_MAX, at_most(high_c), high_c),
            judged(view, vss.PACK_TEMPERATURE_MIN, at_least(low_c), low_c),
        )
    )


def ambient_temperature(view: View, held: bool) -> Judged:
    """The air outside; cold ends no work that warms its own computer."""
    if vss.AMBIENT_TEMPERATURE not in view.declared:
        return DOES_NOT_APPLY
    if held:
        return judged(
            view, vss.AMBIENT_TEMPERATURE, at_most(view.settings.ambient_stop_c), view.settings.ambient_stop_c
        )
    low_c, high_c = view.settings.ambient_start_c
    return judged(view, vss.AMBIENT_TEMPERATURE, within(low_c, high_c), f"{low_c:g}..{high_c:g}")


def chip_temperature(view: View, held: bool) -> Judged:
    """The computer itself; one that soaked in the sun waits."""
    if held:
        return judged(view, vss.CHIP_TEMPERATURE, below(view.settings.chip_stop_c), view.settings.chip_stop_c)
    return judged(
        view, vss.CHIP_TEMPERATURE, at_most(view.settings.chip_resume_c), view.settings.chip_resume_c
    )


def supply_floor(view: View, _: bool) -> Judged:
    """The low-voltage supply as it is read, unfiltered."""
    if vss.LOW_VOLTAGE_BATTERY not in view.declared:
        return DOES_NOT_APPLY
    return judged(view, vss.LOW_VOLTAGE_BATTERY, at_least(view.settings.lv_floor_v), view.settings.lv_floor_v)


def supply(view: View, held: bool) -> Judged:
    """The filtered low-voltage supply: above `lv_start_v` a converter feeds it, not a battery."""
    if vss.LOW_VOLTAGE_BATTERY not in view.declared:
        return DOES_NOT_APPLY
    if view.supply_v is None:
        return unknown(vss.LOW_VOLTAGE_BATTERY, view.snapshot[vss.LOW_VOLTAGE_BATTERY].quality)
    limit_v = view.settings.lv_stop_v if held else view.settings.lv_start_v
    filtered_v = view.supply_v.value
    return Judged(filtered_v >= limit_v, round(filtered_v, 2), limit_v, view.supply_v.crosses_s(limit_v))


def own_rail(view: View, _: bool) -> Judged:
    """The supply of this computer: going down is the last warning."""
    if vss.COMPUTE_RAIL not in view.declared:
        return DOES_NOT_APPLY
    return judged(view, vss.COMPUTE_RAIL, lambda value: value == "ON", "ON")
