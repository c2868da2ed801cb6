"""Where the energy comes from: proven grid power, never the plug's word, and how much the pack may give."""

from agent.policy.condition import DOES_NOT_APPLY, Judged, View, above, at_least, every, judged, number
from agent.policy.pack_use import READING_STEP_PCT
from firmware_shims import vss


def grid_powered(view: View, _: bool) -> Judged:
    """AC power that carries the computer, and a pack that is not discharging."""
    needed_w = view.settings.grid_ac_factor * view.compute_w
    pack_a = view.settings.grid_pack_min_a
    looks = (
        judged(view, vss.CHARGE_LINE_POWER, at_least(needed_w), f"charge line >= {needed_w:g} W"),
        judged(view, vss.PACK_CURRENT, at_least(pack_a), f"pack current >= {pack_a:g} A"),
    )
    # What is false has its grace, what is unknown has none: it must not hide behind the other.
    return next((look for look in looks if look.holds is None), every(looks))


def cable_in(view: View, _: bool) -> Judged:
    """A cable that is out proves that there is no grid power; one that is in proves nothing."""
    if vss.CABLE_CONNECTED not in view.declared:
        return DOES_NOT_APPLY
    return judged(view, vss.CABLE_CONNECTED, lambda value: value in (True, 1), "the charging cable in")


def pack_may_give(view: View, _: bool) -> Judged:
    """Without grid power, and only for who has opted in: enough charge, and something left of the budget.

    What is shown may be a whole reading's step above the truth, so the last step is not given away.
    """
    settings = view.settings
    if settings.require_grid_proof or view.grid_proven:
        return DOES_NOT_APPLY
    fits, limit_pct = (
        (above(settings.pack_soc_stop_pct), settings.pack_soc_stop_pct)
        if view.on_pack
        else (at_least(settings.pack_soc_start_pct), settings.pack_soc_start_pct)
    )
    left_pct = settings.pack_budget_pct_per_day - view.pack_use.used_pct(view.now_ns)
    text = f"{READING_STEP_PCT:g} % of the pack budget left"
    return every(
        (
            judged(view, vss.SOC, fits, limit_pct),
            Judged(left_pct >= READING_STEP_PCT, round(left_pct, 1), text),
        )
    )


def above_floor(view: View, _: bool) -> Judged:
    """The charge below which nothing ever runs."""
    limit_pct = view.settings.soc_floor_pct
    return judged(view, vss.SOC, at_least(limit_pct), limit_pct)


def charged(view: View, held: bool) -> Judged:
    """Enough charge for the owner."""
    limit_pct = view.settings.soc_stop_pct if held else view.settings.soc_start_pct
    return judged(view, vss.SOC, at_least(limit_pct), limit_pct)


def grid_leaves_enough(view: View, _: bool) -> Judged:
    """What the grid leaves for this computer carries at least its smallest backend."""
    limit_w = grid_limit_w(view)
    if limit_w is None:
        if vss.GRID_LIMIT in view.declared:
            return judged(view, vss.GRID_LIMIT, at_least(view.least_w), view.least_w)
        return DOES_NOT_APPLY
    return Judged(limit_w >= view.least_w, limit_w, view.least_w)


def grid_limit_w(view: View) -> float | None:
    """Watts that the grid leaves for this computer; None: no limit, or one that is not known."""
    fixed_w = view.settings.grid_limit_w
    if vss.GRID_LIMIT not in view.declared:
        return fixed_w
    sent_w = number(view.snapshot, vss.GRID_LIMIT)
    if sent_w is None or fixed_w is None:
        return sent_w
    return min(sent_w, fixed_w)
