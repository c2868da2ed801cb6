import asyncio
import io
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from rich.console import Console

from agent.demo import config, play
from agent.demo.chart import bars
from agent.demo.conditions import conditions_of
from agent.demo.plain import Plain
from agent.demo.record import Record
from agent.demo.stage import Stage
from agent.demo.view import frame
from agent.demo.workload import Tally
from agent.service import Service
from agent.store import Store
from firmware_shims import vss
from firmware_shims.clock import boottime_ns
from firmware_shims.scenario import PARKED_AND_CHARGING, Scenario, load
from fleet.broker import free_port

SIZES = [(1, 1), (20, 5), (63, 24), (64, 20), (80, 19), (80, 24), (120, 40), (250, 20), (300, 100)]


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """A car that has settled, with an agent that has not been started."""
    settings = config.write(tmp_path, port=free_port(), models=tmp_path)
    car = Scenario("scenario", load(PARKED_AND_CHARGING), boottime_ns)
    async with Store.open(settings.store.path, max_bytes=settings.store.max_bytes) as store:
        service = Service(settings, store, sources=[car])
        yield Stage(settings, service, car, Tally(), Record(boottime_ns), Plain(), 100)


def drawn(stage: Stage, width: int, height: int) -> list[str]:
    console = Console(width=width, height=height, file=io.StringIO(), record=True, legacy_windows=False)
    console.print(frame(stage, width, height), height=height)
    return console.export_text().splitlines()


@pytest.mark.parametrize(("width", "height"), SIZES)
async def test_the_view_fits_every_screen(stage: Stage, width: int, height: int) -> None:
    for number in range(12):
        stage.tell(f"something {number} has happened that takes more words than there is room for" * 2)
        stage.look()
    lines = drawn(stage, width, height)
    assert len(lines) <= height
    assert max(map(len, lines)) <= width


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40)])
async def test_the_view_shows_every_condition_and_what_happened_last(
    stage: Stage, width: int, height: int
) -> None:
    stage.look()
    stage.tell("the owner opens the driver's door")
    text = "\n".join(drawn(stage, width, height))
    for line in conditions_of(stage):
        assert line.name in text
    assert "the owner opens the driver's door" in text
    assert "0 of 100 rows" in text


async def test_a_car_that_says_nothing_has_unknown_conditions(stage: Stage) -> None:
    shown = conditions_of(stage)
    assert {line.holds for line in shown} == {None}
    assert {"owner away", "parked", "grid power", "chip temperature"} <= {line.name for line in shown}


async def test_an_open_door_is_shown_as_the_condition_that_fails(tmp_path: Path) -> None:
    settings = config.write(tmp_path, port=free_port(), models=tmp_path)
    async with play._agent(settings) as (service, car):
        stage = Stage(settings, service, car, Tally(), Record(boottime_ns), Plain(), 100)
        async with asyncio.timeout(30):
            while not all(line.holds for line in conditions_of(stage)):
                await asyncio.sleep(0.01)
        car.set(vss.SOC, 27)  # too little to begin, enough to go on
        held = next(line for line in conditions_of(stage) if line.name == "charge")
        assert (held.holds, held.limit) == (True, "limit 25")
        car.open_door()
        failing = [line for line in conditions_of(stage) if not line.holds]
    assert [(line.name, line.value) for line in failing] == [("owner away", "yes")]
    assert "DriverSide.IsOpen" in failing[0].limit


def test_the_largest_bar_fills_the_chart() -> None:
    assert bars([0, 1, 2, 4], 2) == ["   █", " ▄██"]
    assert bars([0, 0], 1) == ["  "]
    assert bars([], 2) == ["", ""]
