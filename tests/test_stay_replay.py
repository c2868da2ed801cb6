"""The forecast over 27,407 real charging sessions: the figures that the project set itself."""

from dataclasses import replace

import msgspec
import pytest

from agent.policy.stay import Arrival, StayModel
from agent.stay_prior import load
from benchmarks import charging_sessions, stay
from benchmarks.charging_sessions import Session
from benchmarks.stay import Prediction, Score
from benchmarks.wheels import WheelMissingError


@pytest.fixture(scope="module")
def sessions() -> list[Session]:
    try:
        return charging_sessions.load()
    except WheelMissingError as error:
        pytest.skip(str(error))


def scores(predictions: list[Prediction]) -> dict[str, Score]:
    return {line.period: line for line in stay.by_year("", predictions)}


def test_all_the_sessions_are_there(sessions: list[Session]) -> None:
    assert len(sessions) == 27_407
    assert {session.site for session in sessions} == {"caltech", "jpl"}
    assert min(session.stay_s for session in sessions) > 0


def test_a_car_that_is_still_parked_teaches_nothing_yet() -> None:
    model = StayModel(stay.KNOWING_NOTHING)
    parked, beside, after = (
        Session(str(number), "here", 2019, Arrival(at_s, 0, 8), stay_s=3600.0)
        for number, at_s in enumerate((0.0, 3599.0, 3600.0))
    )
    said = stay.Replay(lambda _: model).over([parked, beside, after])
    first, second, third = (prediction.forecast.curve() for prediction in said)
    assert first == second != third


def test_no_prediction_changes_with_what_comes_after_it(sessions: list[Session]) -> None:
    short = stay.pooled(sessions[:1000])[:500]
    long = stay.pooled(sessions[:500])
    assert [said.forecast.curve() for said in short] == [said.forecast.curve() for said in long]


def test_pooled(sessions: list[Session]) -> None:
    found = scores(stay.pooled(sessions))
    assert found["2019"].error_min <= 112
    assert max(score.calibration for score in found.values()) <= 0.02
    assert found["2019"].missed_pct <= 5
    assert found["2021"].missed_pct <= 6.5
    assert found["all"].missed_parked_pct <= 5
    assert found["all"].admitted_pct > 80
    assert found["all"].error_min <= 116


def test_the_minute_of_the_arrival_makes_the_forecast_better(sessions: list[Session]) -> None:
    first = sessions[:6000]
    hours_only = [replace(session, arrival=_in_the_middle(session.arrival)) for session in first]
    by_minute, by_hour = (scores(stay.pooled(found))["all"] for found in (first, hours_only))
    assert by_minute.error_min < by_hour.error_min - 0.4
    assert by_minute.missed_pct <= by_hour.missed_pct
    assert by_minute.missed_parked_pct < by_hour.missed_parked_pct


def _in_the_middle(arrival: Arrival) -> Arrival:
    return msgspec.structs.replace(arrival, minute=30)


def test_as_one_car_with_the_prior_of_its_site(sessions: list[Session]) -> None:
    found = scores(stay.one_car(sessions, stay.own))
    assert found["all"].missed_pct <= 6
    assert found["all"].admitted_pct > 80


def test_as_one_car_with_a_foreign_prior(sessions: list[Session]) -> None:
    found = scores(stay.one_car(sessions, stay.foreign))
    assert found["all"].missed_pct <= 7
    assert found["all"].missed_parked_pct <= 7
    assert found["all"].admitted_pct > 80


def test_the_prior_that_ships_is_what_its_command_makes(sessions: list[Session]) -> None:
    file = load(None)
    made = stay.prior_of(sessions)
    assert file.sessions == len(sessions)
    for ships, curve in zip(file.prior.curves, made.curves, strict=True):
        assert ships == pytest.approx(curve, rel=1e-3)
