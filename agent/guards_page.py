"""The table of guards for people, made from the policy: `python -m agent.guards_page docs/guards.md`."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.policy import owner
from agent.policy.condition import Cause, Condition
from agent.policy.conditions import CONDITIONS
from agent.policy.pack_use import READING_STEP_PCT
from agent.policy.settings import PolicySettings
from firmware_shims.vss import OVERLAY

Words = Callable[[PolicySettings], str]
JUDGEMENT: Final = "judgement"
COMPUTE: Final = "need of the backends"
ENDS: Final = {
    Cause.OWNER: "at once",
    Cause.SAFETY: "at once",
    Cause.ECONOMIC: "the batch ends, within drain_s",
}


@dataclass(frozen=True, slots=True)
class Row:
    """What starts and stops work by one condition, in words with the figures of the settings, and their source."""

    start: Words
    stop: Words
    source: str


def _same(words: Words, source: str, stop: str = "when that is no longer so") -> Row:
    return Row(words, lambda _: stop, source)


ROWS: Final[dict[str, Row]] = {
    "owner away": _same(
        lambda _: (
            f"power state {' or '.join(sorted(owner.AWAY_STATES))}, doors closed, seat empty, brake released"
        ),
        "opening a door gives ACC, the brake gives ON: the earliest cue wins (Tesla party CAN)",
    ),
    "locked": _same(lambda s: "locked" if s.require_locked else "not asked for", JUDGEMENT, "unlocked"),
    "parked": _same(
        lambda _: f"gear park, speed within {owner.STANDSTILL_KMH:g} km/h", "VSS: SelectedGear 126"
    ),
    "not paused": _same(lambda _: "the vehicle OS has not paused", "control socket", "paused"),
    "consent": _same(
        lambda s: "consent given" if s.require_consent else "consent not withdrawn",
        "control socket",
        "withdrawn",
    ),
    "grid power": Row(
        lambda s: f"AC power >= {s.grid_ac_factor:g} x {COMPUTE} and pack current >= {s.grid_pack_min_a:g} A",
        lambda _: "less than that",
        "wallboxes cut the supply at the charge target, the car then draws on its pack (evcc issues 26086, 31136); "
        "numbers are a judgement",
    ),
    "cable in": _same(
        lambda _: "charging cable connected", "a plug proves nothing, its absence does", "cable out"
    ),
    "pack energy": Row(
        lambda s: _pack(s, f"SoC >= {s.pack_soc_start_pct:g} %"),
        lambda s: _pack(s, f"SoC <= {s.pack_soc_stop_pct:g} %"),
        "V2L's usual range is 20-80 %",
    ),
    "charge, floor": Row(
        lambda s: f"SoC >= {s.soc_floor_pct:g} %",
        lambda s: f"SoC < {s.soc_floor_pct:g} %",
        "minimum that sentry, climate and V2L keep in cars on the road",
    ),
    "charge": Row(
        lambda s: f"SoC >= {s.soc_start_pct:g} %", lambda s: f"SoC < {s.soc_stop_pct:g} %", JUDGEMENT
    ),
    "pack temperature": Row(
        lambda s: f"{s.pack_start_c[0]:g}..{s.pack_start_c[1]:g} °C",
        lambda s: f"< {s.pack_stop_c[0]:g} or > {s.pack_stop_c[1]:g} °C",
        "cell limits; heat is what ages a pack: +10 °C always costs 2-5 points in 8 years",
    ),
    "ambient temperature": Row(
        lambda s: f"{s.ambient_start_c[0]:g}..{s.ambient_start_c[1]:g} °C",
        lambda s: f"> {s.ambient_stop_c:g} °C",
        "owner manuals",
    ),
    "chip temperature": Row(
        lambda s: f"<= {s.chip_resume_c:g} °C; less power from {s.chip_derate_c:g} °C",
        lambda s: f">= {s.chip_stop_c:g} °C",
        "Orin trips at 99 / 104.5 °C: 9 °C below the trip; a hot-soaked car waits (openpilot)",
    ),
    "12 V, floor": Row(
        lambda s: f">= {s.lv_floor_v:g} V, unfiltered", lambda s: f"< {s.lv_floor_v:g} V", "openpilot"
    ),
    "12 V": Row(
        lambda s: f">= {s.lv_start_v:g} V behind a low-pass of {s.lv_filter_s:g} s: a converter feeds it",
        lambda s: f"< {s.lv_stop_v:g} V",
        "the filter is openpilot's, the volts are common practice",
    ),
    "own power rail": _same(
        lambda _: "ON", "Tesla party CAN, das1 and das2 HighCurrentLVState", "going down, fault, off"
    ),
    "region": _same(
        lambda _: "position inside vehicle.region_file and its margin, or not known; no file: not looked at",
        "where data may be computed; a position that is lost changes nothing",
        "seen outside, until seen inside",
    ),
    "grid limit": Row(
        lambda _: "limit >= need of the smallest backend; it also limits the power",
        lambda _: "limit < that",
        "the car's signal, policy.grid_limit_w, or the smaller of both",
    ),
    "schedule": _same(
        lambda s: "inside a weekly window, on local clocks" if s.schedule else "no windows set: always",
        "the owner",
        "outside",
    ),
    "departure": Row(
        lambda s: f"more than {s.departure_lead_s:g} s and 1.1 x the charge still to come before it",
        lambda s: f"less than {s.departure_lead_s:g} s and the charge still to come",
        JUDGEMENT,
    ),
    "no drain": _same(lambda _: "the fleet has not ordered a drain", "control topic", "drain"),
    "rested": Row(
        lambda s: f"fewer than {s.starts_per_hour} starts in the last hour", lambda _: "never", JUDGEMENT
    ),
}


def _pack(settings: PolicySettings, charge: str) -> str:
    if settings.require_grid_proof:
        return "never without grid power (opt-in)"
    left = f"{settings.pack_budget_pct_per_day - READING_STEP_PCT:g} % in any 24 h"
    return f"{charge}, and at most {left} taken"


HEAD: Final = """\
# Guards

Made by `make docs` from `agent/policy`; do not edit. Every figure is a setting of `[policy]`, shown with its default.
All must hold at once. What is unknown blocks, and ends running work at once, whatever the cause.

| guard | code | start when | for | stop when | after | how work ends | signals | source |
|---|---|---|---|---|---|---|---|---|
"""
FOOT: Final = """

Signals in *italics* are judged only where a configured source offers them. (o): not a VSS name but of parkwatt's
overlay. After a guard that is neither the owner's nor one of safety has ended work, it must hold for {resume_s:g} s.
"""


def page(settings: PolicySettings) -> str:
    """The whole page in Markdown, for these settings."""
    lines = [_line(condition, settings) for condition in CONDITIONS]
    return HEAD + "\n".join(lines) + FOOT.format(resume_s=settings.resume_economic_s)


def _line(condition: Condition, settings: PolicySettings) -> str:
    row = ROWS[condition.name]
    signals = [
        *(_signal(path) for path in condition.required),
        *(f"*{_signal(path)}*" for path in condition.optional),
    ]
    cells = (
        condition.name,
        f"{condition.reason.value} {condition.reason.label}",
        row.start(settings),
        f"{condition.window_s(settings):g} s",
        row.stop(settings),
        f"{condition.grace_s(settings):g} s",
        ENDS[condition.cause],
        ", ".join(signals) or "-",
        row.source,
    )
    return f"| {' | '.join(cells)} |"


def _signal(path: str) -> str:
    return path.removeprefix("Vehicle.") + (" (o)" if path in OVERLAY else "")


def main() -> None:
    """Write the page to the file that the command line names."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m agent.guards_page FILE")
    Path(sys.argv[1]).write_text(page(PolicySettings()))


if __name__ == "__main__":
    main()
