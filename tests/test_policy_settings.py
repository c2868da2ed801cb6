"""Section [policy]: every rule on both sides of its border."""

import math
from typing import Any

import pytest
from pydantic import ValidationError

from agent.policy.settings import PolicySettings

ON_PACK = {"require_grid_proof": False}

BORDERS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("floor at least 20", {"soc_floor_pct": 20}, {"soc_floor_pct": 19.9}),
    ("floor not above stop", {"soc_floor_pct": 25}, {"soc_floor_pct": 25.1}),
    ("stop below start", {"soc_stop_pct": 29.9}, {"soc_stop_pct": 30}),
    ("stop not under the floor", {"soc_stop_pct": 20}, {"soc_stop_pct": 19.9}),
    ("start at most 100", {"soc_start_pct": 100}, {"soc_start_pct": 100.1}),
    ("pack stop below start", {"pack_soc_stop_pct": 59.9}, {"pack_soc_stop_pct": 60}),
    ("pack stop not under stop", {"pack_soc_stop_pct": 25}, {"pack_soc_stop_pct": 24.9}),
    ("opt-in with a budget", ON_PACK | {"pack_budget_pct_per_day": 1.1}, ON_PACK),
    (
        "budget above what a reading hides",
        ON_PACK | {"pack_budget_pct_per_day": 1.01},
        ON_PACK | {"pack_budget_pct_per_day": 1},
    ),
    (
        "budget at most 5",
        ON_PACK | {"pack_budget_pct_per_day": 5},
        ON_PACK | {"pack_budget_pct_per_day": 5.01},
    ),
    ("no budget without opt-in", {"pack_budget_pct_per_day": 0}, {"pack_budget_pct_per_day": 0.1}),
    ("pack cold", {"pack_start_c": (0, 35)}, {"pack_start_c": (-0.1, 35)}),
    ("pack hot", {"pack_start_c": (5, 40)}, {"pack_start_c": (5, 40.1)}),
    ("pack range", {"pack_start_c": (34.9, 35)}, {"pack_start_c": (35, 35)}),
    ("pack range upside down", {"pack_stop_c": (5, 35)}, {"pack_stop_c": (40, 0)}),
    ("ambient range", {"ambient_start_c": (37.9, 38)}, {"ambient_start_c": (38, 38)}),
    ("ambient stop above start", {"ambient_stop_c": 38.1}, {"ambient_stop_c": 38}),
    ("chip resume not above derate", {"chip_resume_c": 80}, {"chip_resume_c": 80.1}),
    ("chip derate below stop", {"chip_derate_c": 89.9}, {"chip_derate_c": 90}),
    (
        "chip stop at most 90",
        {"chip_stop_c": 90, "chip_trip_c": 120},
        {"chip_stop_c": 90.1, "chip_trip_c": 120},
    ),
    ("chip stop 9 below the trip", {"chip_trip_c": 99}, {"chip_trip_c": 98.9}),
    ("12 V floor below stop", {"lv_floor_v": 12.7}, {"lv_floor_v": 12.8}),
    ("12 V stop below start", {"lv_stop_v": 13.1}, {"lv_stop_v": 13.2}),
    ("grid grace at most 30 s", {"grid_lost_s": 30}, {"grid_lost_s": 30.1}),
    ("AC carries the computer", {"grid_ac_factor": 1}, {"grid_ac_factor": 0.99}),
    ("pack current", {"grid_pack_min_a": -5}, {"grid_pack_min_a": -5.1}),
    ("grid limit", {"grid_limit_w": 0.1}, {"grid_limit_w": 0}),
    ("drain at most a minute", {"drain_s": 60}, {"drain_s": 60.1}),
    ("12 V delay at most a minute", {"lv_stop_s": 60}, {"lv_stop_s": 60.1}),
    ("no negative time", {"settle_s": 0}, {"settle_s": -0.001}),
    ("at most a day", {"departure_lead_s": 86_400}, {"departure_lead_s": 86_400.1}),
    ("one start", {"starts_per_hour": 1}, {"starts_per_hour": 0}),
    ("whole starts", {"starts_per_hour": 2}, {"starts_per_hour": 2.5}),
    ("a window", {"schedule": ("mon 22:00-06:00",)}, {"schedule": ("mon 22:00",)}),
    ("a zone", {"time_zone": "Europe/Berlin"}, {"time_zone": "Europe"}),
    ("a known key", {}, {"settle": 60}),
]


@pytest.mark.parametrize(
    ("right", "wrong"), [each[1:] for each in BORDERS], ids=[each[0] for each in BORDERS]
)
def test_each_rule_holds_on_its_side_of_the_border(right: dict[str, Any], wrong: dict[str, Any]) -> None:
    PolicySettings.model_validate(right)
    with pytest.raises(ValidationError) as refused:
        PolicySettings.model_validate(wrong)
    (error,) = refused.value.errors()
    assert "\n" not in error["msg"]


NUMBERS = [
    name
    for name, field in PolicySettings.model_fields.items()
    if isinstance(field.default, int | float) and not isinstance(field.default, bool)
]


@pytest.mark.parametrize("name", [*NUMBERS, "grid_limit_w"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "much"])
def test_no_figure_is_a_number_that_is_none(name: str, value: float | str) -> None:
    with pytest.raises(ValidationError):
        PolicySettings.model_validate({name: value})


@pytest.mark.parametrize("name", ["pack_start_c", "pack_stop_c", "ambient_start_c"])
def test_no_range_has_an_end_that_is_no_number(name: str) -> None:
    for span in ((math.nan, 35), (5, math.nan), (-math.inf, math.inf), (5,), (5, 10, 35)):
        with pytest.raises(ValidationError):
            PolicySettings.model_validate({name: span})


def test_the_defaults_are_those_of_the_table_of_guards() -> None:
    guards = PolicySettings()
    assert guards.require_grid_proof
    assert (guards.grid_ac_factor, guards.grid_pack_min_a) == (1.1, -0.5)
    assert (guards.grid_proof_s, guards.grid_lost_s) == (30, 3)
    assert (guards.soc_floor_pct, guards.soc_start_pct, guards.soc_stop_pct) == (20, 30, 25)
    assert (guards.pack_soc_start_pct, guards.pack_soc_stop_pct, guards.pack_budget_pct_per_day) == (
        60,
        50,
        0,
    )
    assert (guards.pack_start_c, guards.pack_stop_c) == ((5, 35), (0, 40))
    assert (guards.ambient_start_c, guards.ambient_stop_c) == ((-10, 38), 42)
    assert (guards.chip_derate_c, guards.chip_stop_c, guards.chip_resume_c) == (80, 90, 75)
    assert (guards.lv_start_v, guards.lv_stop_v, guards.lv_floor_v) == (13.2, 12.8, 11.8)
    assert (guards.lv_stop_s, guards.lv_filter_s) == (10, 45)
    assert (guards.settle_s, guards.resume_economic_s) == (60, 180)
    assert (guards.departure_lead_s, guards.starts_per_hour) == (900, 6)
