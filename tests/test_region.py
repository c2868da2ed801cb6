"""A car that is seen outside of the region in its configuration blocks itself, until it is seen inside again."""

import json
import logging
import math
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from agents import TOPICS, served, write_config
from cars import FULLY_EQUIPPED
from config_files import MINIMAL, config_file
from guard_bench import Bench
from hypothesis import assume, given
from hypothesis import strategies as st
from vehicle_os import vehicle_os
from wire_fleet import WireFleet, task, wire_fleet

from agent import policy_note, region_file
from agent.check import sources as check
from agent.guard import Guard
from agent.policy.area import METRES_A_DEGREE, STRETCH, Area, Position
from agent.policy.memory import Lasting
from agent.policy.region import UNSEEN, Region, position
from agent.policy.verdict import Blocker
from agent.protocol.messages import TaskState
from agent.protocol.reasons import Reason
from agent.settings import ConfigError, load
from firmware_shims import vss
from firmware_shims.clock import boottime_ns
from firmware_shims.reading import Quality
from fleet.broker import Broker

READY_S = 61.0
SQUARE: list[Position] = [(-60, -30), (-40, -30), (-40, -5), (-60, -5), (-60, -30)]
HOLE: list[Position] = [(-52, -20), (-48, -20), (-48, -16), (-52, -16), (-52, -20)]
BRAZIL = Region("BR", Area([SQUARE]), margin_m=1000)
HOME = {vss.LATITUDE: -23.5, vss.LONGITUDE: -46.6}
INSIDE, OUTSIDE = -46.6, -61.0


def parked_at_home(region: Region | None = BRAZIL) -> Bench:
    bench = Bench({**FULLY_EQUIPPED, **HOME}, region=region)
    bench.drive(READY_S)
    assert bench.guard.verdict.allowed
    return bench


def the_blocker(guard: Guard) -> Blocker:
    (blocker,) = guard.verdict.blockers
    return blocker


# The car


def test_a_car_across_the_border_blocks_itself_and_tells_nobody_where_it_is() -> None:
    bench = parked_at_home()
    bench.show(vss.LONGITUDE, OUTSIDE)
    blocker = the_blocker(bench.guard)
    assert (blocker.reason, blocker.value, blocker.limit) == (Reason.REGION_MISMATCH, "outside", "inside BR")
    assert bench.guard.verdict.urgent


def test_a_position_that_is_lost_changes_nothing() -> None:
    for longitude, allowed in ((INSIDE, True), (OUTSIDE, False)):
        bench = parked_at_home()
        bench.show(vss.LONGITUDE, longitude)
        bench.mute.update(HOME)
        bench.drive(READY_S)
        assert bench.guard.snapshot[vss.LONGITUDE].quality is Quality.STALE
        assert bench.guard.verdict.allowed is allowed
        bench.show(vss.LATITUDE, 0.0)
        bench.show(vss.LONGITUDE, 0.0)  # what a receiver says that has not found itself
        assert bench.guard.verdict.allowed is allowed


def test_a_car_that_was_never_seen_is_where_its_configuration_says() -> None:
    bench = Bench({**FULLY_EQUIPPED, **HOME}, region=BRAZIL, mute=set(HOME))
    bench.drive(READY_S)
    assert bench.guard.verdict.allowed


def test_back_inside_the_car_works_again_after_it_has_settled() -> None:
    bench = parked_at_home()
    bench.show(vss.LONGITUDE, OUTSIDE)
    bench.show(vss.LONGITUDE, INSIDE)
    assert bench.reasons() == {Reason.SETTLING}
    bench.drive(READY_S)
    assert bench.guard.verdict.allowed


def test_within_the_margin_a_car_is_still_inside() -> None:
    bench = parked_at_home()
    margin_deg = 1000 / METRES_A_DEGREE / math.cos(math.radians(HOME[vss.LATITUDE]))
    bench.show(vss.LONGITUDE, -40 + 0.98 * margin_deg)
    assert bench.guard.verdict.allowed
    bench.show(vss.LONGITUDE, -40 + 1.02 * margin_deg)
    assert bench.reasons() == {Reason.REGION_MISMATCH}


def test_without_an_outline_or_without_a_position_nobody_looks() -> None:
    bench = parked_at_home(region=None)
    bench.show(vss.LONGITUDE, OUTSIDE)
    assert bench.guard.verdict.allowed
    bench = Bench(FULLY_EQUIPPED, region=BRAZIL)
    bench.guard.recall(Lasting(outside=True))
    bench.drive(READY_S)
    assert bench.guard.verdict.allowed


def test_a_car_that_was_outside_is_outside_after_a_restart_until_it_is_seen_inside() -> None:
    bench = parked_at_home()
    bench.show(vss.LONGITUDE, OUTSIDE)
    note = policy_note.written(bench.guard.lasting, bench.clock(), bench.wall())
    assert b"61" not in note
    restarted = Bench({**FULLY_EQUIPPED, **HOME}, region=BRAZIL, mute=set(HOME))
    restarted.guard.recall(policy_note.read(note, restarted.clock(), restarted.wall()))
    restarted.drive(READY_S)
    assert restarted.reasons() == {Reason.REGION_MISMATCH}
    restarted.mute.clear()
    restarted.drive(READY_S)
    assert restarted.guard.verdict.allowed


def test_a_note_of_an_agent_that_did_not_look_yet_can_be_read() -> None:
    note = policy_note.written(Lasting(outside=True), 0, 1e9)
    assert note[0] == 0x95, "five members"
    older = bytes([0x94]) + note[1:-1]
    assert policy_note.read(older, 0, 1e9) == Lasting()


async def test_a_car_that_crosses_the_border_ends_its_work_and_tells_nobody_where_it_is(
    tmp_path: Path, iotcore: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    outline = geojson(tmp_path, {"type": "Polygon", "coordinates": [SQUARE]})
    config = write_config(tmp_path, iotcore.port, run_us=60_000)
    text = config.read_text().replace("[vehicle]\n", f'[vehicle]\nregion_file = "{outline}"\n')
    pushed = f'[[signals]]\nshim = "socket"\noptions = {{ signals = {json.dumps(list(HOME))} }}\n'
    config.write_text(text + pushed)
    async with served(config) as car, wire_fleet(iotcore.port, TOPICS) as fleet:
        with vehicle_os(tmp_path / "agent.sock") as vehicle:
            await vehicle.does("signals", values=HOME)
            fleet.send(task("night-1", count=50))
            await car.until_rows(2)
            await vehicle.does("signals", values={vss.LONGITUDE: -61.234})
        preempted = await fleet.heard_event("night-1", TaskState.PREEMPTED)
        assert preempted.reason is not None
        assert preempted.reason.code is Reason.REGION_MISMATCH
        await fleet.until(lambda: blocked_by(fleet) == [Reason.REGION_MISMATCH], "the state says so")
        said = f"{fleet.states} {fleet.events} {caplog.text}"
        assert [number for number in ("46.6", "23.5", "61.234") if number in said] == []


def blocked_by(fleet: WireFleet) -> list[Reason]:
    state = fleet.last_state()
    return [blocker.code for blocker in state.blockers] if state else []


def test_check_says_whether_anybody_looks(tmp_path: Path) -> None:
    outline = tmp_path / "region.geojson"
    outline.write_text(json.dumps({"type": "Polygon", "coordinates": [SQUARE]}))
    without = load(config_file(tmp_path), {})
    assert "not compared" in check.region(without, without.open_signals(boottime_ns)).text
    blind = load(config_file(tmp_path), {"PARKWATT_VEHICLE__REGION_FILE": str(outline)})
    finding = check.region(blind, blind.open_signals(boottime_ns))
    assert not finding.ok
    assert vss.LATITUDE in finding.text
    source = f'[[signals]]\nshim = "socket"\n[signals.options]\nsignals = {json.dumps(list(HOME))}\n'
    seeing = load(
        config_file(tmp_path, base=MINIMAL + source), {"PARKWATT_VEHICLE__REGION_FILE": str(outline)}
    )
    assert check.region(seeing, seeing.open_signals(boottime_ns)).ok


# The file


def geojson(tmp_path: Path, content: Any) -> Path:
    path = tmp_path / "region.geojson"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


POLYGON = {"type": "Polygon", "coordinates": [SQUARE, HOLE]}
ISLAND = [[(-30, -4), (-29, -4), (-29, -3), (-30, -3), (-30, -4)]]
FEATURE = {"type": "Feature", "properties": {"name": "Brazil"}, "geometry": POLYGON}


@pytest.mark.parametrize(
    "content",
    [
        POLYGON,
        {"type": "MultiPolygon", "coordinates": [[SQUARE, HOLE], ISLAND]},
        FEATURE,
        {"type": "FeatureCollection", "features": [FEATURE], "name": "regions"},
    ],
    ids=lambda content: content["type"],
)
def test_an_outline_is_any_geojson_with_polygons(tmp_path: Path, content: Any) -> None:
    area = region_file.load(geojson(tmp_path, content))
    assert area.inside_m(-46.6, -23.5) > 0
    assert area.inside_m(-50.0, -18.0) < 0, "in the hole"
    assert (area.inside_m(-29.5, -3.5) > 0) is (content["type"] == "MultiPolygon")


def ring(*positions: Any) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": [positions]}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "is no GeoJSON"),
        ("[" * 100_000, "is no GeoJSON"),
        ('{"type": "Polygon", "coordinates": [[[NaN, 0], [1, 0], [1, 1], [0, 0]]]}', "is no GeoJSON"),
        ({"type": "Point", "coordinates": [0, 0]}, "is no GeoJSON"),
        ({"type": "Polygon", "coordinates": []}, "is no GeoJSON"),
        ({"type": "FeatureCollection", "features": []}, "is no GeoJSON"),
        (ring([0, 0], [1, 0], [0, 0]), "is no GeoJSON"),
        (ring([0], [1, 0], [1, 1], [0]), "is no GeoJSON"),
        (ring([0, 0], [1, 0], [1, 1], [0, 1]), "close it"),
        (ring([0, 0], [181, 0], [181, 1], [0, 0]), "not on the globe"),
        (ring([-23, -146], [-22, -146], [-22, -145], [-23, -146]), "longitude -180..180 first"),
        (ring([179, 0], [-179, 0], [-179, 1], [179, 0]), "cut the polygon at the antimeridian"),
        (ring(*([[0, 0], [1, 0], [1, 1]] * 3334), [0, 0]), "at most 10000"),
        (" " * 2_000_001, "simplify"),
    ],
)
def test_a_file_that_is_no_outline_is_refused_in_one_line(tmp_path: Path, content: Any, problem: str) -> None:
    path = geojson(tmp_path, content)
    with pytest.raises(ConfigError) as error:
        load(config_file(tmp_path), {"PARKWATT_VEHICLE__REGION_FILE": str(path)})
    (line,) = error.value.problems
    assert problem in line
    assert "\n" not in line


def test_a_file_that_is_not_there_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load(config_file(tmp_path), {"PARKWATT_VEHICLE__REGION_FILE": "/nowhere"})


# The geometry


def test_distances_are_metres_to_the_nearest_edge() -> None:
    area = Area([SQUARE, HOLE])
    degree_east_m = METRES_A_DEGREE * math.cos(math.radians(18))
    assert area.inside_m(-59.0, -18.0) == pytest.approx(degree_east_m, rel=1e-6)
    assert area.inside_m(-61.0, -18.0) == pytest.approx(-degree_east_m, rel=1e-6)
    assert area.inside_m(-50.0, -17.0) == pytest.approx(-METRES_A_DEGREE, rel=1e-6), "in the hole"
    assert area.inside_m(-60.5, -4.5) == pytest.approx(
        -math.hypot(0.5 * METRES_A_DEGREE * math.cos(math.radians(4.5)), 0.5 * METRES_A_DEGREE), rel=1e-6
    ), "at a corner"


def test_a_region_that_is_cut_at_the_antimeridian_is_one_region() -> None:
    east = [(177.0, -20.0), (180.0, -20.0), (180.0, -15.0), (177.0, -15.0), (177.0, -20.0)]
    west = [(-180.0, -20.0), (-178.0, -20.0), (-178.0, -15.0), (-180.0, -15.0), (-180.0, -20.0)]
    fiji = Area([east, west])
    assert fiji.inside_m(179.9, -17.0) > 0
    assert fiji.inside_m(-179.9, -17.0) > 0
    assert fiji.inside_m(-177.9, -17.0) < 0
    half = Area([east])
    assert half.inside_m(-179.999, -17.0) == pytest.approx(
        -0.001 * METRES_A_DEGREE * math.cos(math.radians(17)), rel=1e-3
    ), "not once round the world"


CENTRE = st.tuples(st.floats(-170, 170), st.floats(-80, 80))


def circle(centre: Position, radius_deg: float, corners: int) -> list[Position]:
    longitude, latitude = centre
    angles = [2 * math.pi * corner / corners for corner in range(corners)]
    positions = [
        (longitude + radius_deg * math.cos(angle), latitude + radius_deg * math.sin(angle))
        for angle in angles
    ]
    return [*positions, positions[0]]


@given(CENTRE, st.floats(0.1, 5), st.integers(3, 4 * STRETCH), st.floats(0, 10), st.floats(0, 2 * math.pi))
def test_a_point_is_inside_a_circle_that_reaches_further(
    centre: Position, radius_deg: float, corners: int, away_deg: float, angle: float
) -> None:
    """However many stretches the ring has; a polygon lies between its two circles."""
    longitude, latitude = centre
    area = Area([circle(centre, radius_deg, corners)])
    inner_deg = radius_deg * math.cos(math.pi / corners)
    assume(not inner_deg * 0.999 < away_deg < radius_deg * 1.001)
    here = longitude + away_deg * math.cos(angle), latitude + away_deg * math.sin(angle)
    assume(abs(here[0]) <= 180)
    assume(abs(here[1]) <= 90)
    assert (area.inside_m(*here) > 0) is (away_deg < inner_deg)


@given(CENTRE, st.randoms(use_true_random=False), CENTRE)
def test_the_nearest_edge_is_found_in_whichever_stretch_of_the_ring_it_is(
    centre: Position, dice: random.Random, away: Position
) -> None:
    corners = 4 * STRETCH
    angles = [2 * math.pi * corner / corners for corner in range(corners)]
    ring = [
        (centre[0] + radius_deg * math.cos(angle), centre[1] + radius_deg * math.sin(angle))
        for angle, radius_deg in ((angle, dice.uniform(1, 9)) for angle in angles)
    ]
    ring.append(ring[0])
    here = centre[0] + away[0] / 20, centre[1] + away[1] / 10
    nearest_m = min(abs(Area([edge]).inside_m(*here)) for edge in pairwise(ring))
    assert abs(Area([ring]).inside_m(*here)) == pytest.approx(nearest_m)


@given(st.lists(st.tuples(st.floats(-60.2, -59.8), st.floats(-30.2, -29.8)), min_size=1, max_size=30))
def test_what_is_remembered_gives_the_same_answer_as_a_fresh_look(path: list[Position]) -> None:
    """Around a corner of the region, some 20 km each way."""
    whereabouts = UNSEEN
    for here in path:
        whereabouts = whereabouts.followed(BRAZIL, *here)
        inside_m = BRAZIL.area.inside_m(*here) + BRAZIL.margin_m
        assert whereabouts.outside is (inside_m < 0)


def test_a_parked_car_whose_receiver_is_restless_is_measured_once() -> None:
    home = UNSEEN.followed(BRAZIL, -46.6, -23.5)
    assert home.followed(BRAZIL, -46.6001, -23.5001) is home


@pytest.mark.parametrize(
    ("longitude", "latitude"),
    [(None, 1.0), (1.0, None), (0.0, 0.0), (math.nan, 1.0), (181.0, 1.0), (1.0, -91.0)],
)
def test_what_is_no_position_is_none(longitude: float | None, latitude: float | None) -> None:
    assert position(longitude, latitude) is None
