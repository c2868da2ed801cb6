"""Rows that cannot be stopped half-way are only begun where the car will stay for them."""

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from agents import TOPICS, agent, write_config
from wire_fleet import WireFleet, now, task, wire_fleet

from agent import stay_prior
from agent.admission import Circumstances, admit
from agent.costs import Run
from agent.policy.stay import Arrival, Forecast, StayModel
from agent.program import program_key
from agent.protocol.messages import EnergySource, TaskState
from agent.protocol.reasons import Reason, Refused
from agent.settings import load
from agent.stays import HISTORY_NOTE
from agent.store import Store
from firmware_shims import vss
from fleet.broker import Broker

MINUTE_S = 60.0
HOUR_S = 3600.0


def habit(stay_s: float) -> StayModel:
    """A car that has left after `stay_s` thirty times from every hour of the week, until now."""
    model = StayModel(stay_prior.load(None).prior)
    for weekday in range(7):
        for hour in range(24):
            for _ in range(30):
                model.learn(Arrival(now().timestamp() - stay_s, weekday, hour), stay_s, left=True)
    return model


def offered(tmp_path: Path, row_s: float | None, forecast: Forecast | None) -> Circumstances:
    """A task that nothing else speaks against, right at the car's arrival."""
    return Circumstances(
        settings=load(write_config(tmp_path, port=1883)),
        energy_source=EnergySource.MODEL,
        now=now(),
        open_tasks=0,
        open_bytes=0,
        open_remote_bytes=0,
        queued_s=0.0,
        task_remote_bytes=0,
        task_bytes=128,
        row_s=row_s,
        kills_workers=False,
        stays_for=lambda further_s: None if forecast is None else forecast.survival(0.0, further_s),
    )


def here(model: StayModel) -> Forecast:
    return model.forecast(Arrival(now().timestamp(), now().weekday(), now().hour))


def test_a_row_of_twenty_minutes_is_refused_on_a_car_that_usually_leaves_in_ten(tmp_path: Path) -> None:
    message, _ = task("long")
    with pytest.raises(Refused) as refused:
        admit(message, offered(tmp_path, 20 * MINUTE_S, here(habit(10 * MINUTE_S))))
    assert refused.value.reason is Reason.DEPARTURE_SOON
    assert "one row takes 1200 s, the car stays so long with p = 0." in refused.value.text
    assert refused.value.text.endswith("0.9 is needed")


def test_the_same_row_is_taken_by_a_car_that_stays_overnight(tmp_path: Path) -> None:
    message, _ = task("long")
    admit(message, offered(tmp_path, 20 * MINUTE_S, here(habit(10 * HOUR_S))))


def test_nine_times_in_ten_is_often_enough(tmp_path: Path) -> None:
    message, _ = task("long")
    at = offered(tmp_path, 20 * MINUTE_S, None)
    admit(message, replace(at, stays_for=lambda _: 0.9))
    with pytest.raises(Refused, match=r"p = 0\.890"):
        admit(message, replace(at, stays_for=lambda _: 0.89))


@pytest.mark.parametrize("row_s", [None, 0.001, 300.0])
def test_a_short_row_and_one_that_nobody_has_measured_are_taken_whatever_the_car_does(
    tmp_path: Path, row_s: float | None
) -> None:
    message, _ = task("any")
    for forecast in (here(habit(10 * MINUTE_S)), None):
        admit(message, offered(tmp_path, row_s, forecast))


def test_a_long_row_is_refused_where_nobody_knows_how_long_the_car_stays(tmp_path: Path) -> None:
    message, _ = task("long")
    with pytest.raises(Refused, match=r"1010 departure_soon: .*not known how long the car will stay"):
        admit(message, offered(tmp_path, 301.0, None))


async def test_the_fleet_is_told_how_long_the_car_will_stay(tmp_path: Path, iotcore: Broker) -> None:
    async with agent(write_config(tmp_path, iotcore.port)) as car, wire_fleet(iotcore.port, TOPICS) as fleet:
        await fleet.until(lambda: expected_s(fleet) is not None, "a forecast")
        first = expected_s(fleet)
        assert first
        assert first == round(first)
        car.car.set(vss.GEAR, vss.GEAR_DRIVE)
        await fleet.until(lambda: expected_s(fleet) is None, "a car that has left")
        car.car.set(vss.GEAR, vss.GEAR_PARK)
        await fleet.until(lambda: expected_s(fleet) is not None, "a forecast of the next stay")


async def test_after_a_restart_the_car_still_knows_its_habit_and_refuses_what_would_not_end(
    tmp_path: Path, iotcore: Broker
) -> None:
    config = write_config(tmp_path, iotcore.port)
    history = msgspec.json.encode(habit(10 * MINUTE_S).history)
    async with Store.open(tmp_path / "agent.db", max_bytes=50_000_000) as store:
        await store.run(lambda ledger: ledger.notes.write(HISTORY_NOTE, history))
    async with agent(config) as car, wire_fleet(iotcore.port, TOPICS) as fleet:
        await car.until_ready()
        long = task("long")
        costs = car.service.executor.runs.costs
        costs.ran(program_key(long[0]), "null", "", Run(1, 20 * MINUTE_S, None))
        fleet.send(long)
        rejected = await fleet.heard_event("long", TaskState.REJECTED)
        assert rejected.reason is not None
        assert rejected.reason.code is Reason.DEPARTURE_SOON
        assert rejected.reason.resume_at is None
        assert "one row takes 1200 s" in rejected.reason.text


def expected_s(fleet: WireFleet) -> float | None:
    state = fleet.last_state()
    return state.expected_s if state else None
