"""What the car believes about how long it will stay."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.policy.stay import EDGES_S, GROUPS, HALF_LIFE_S, Arrival, Prior, StayModel
from agent.policy.survival import Tally
from agent.stay_prior import load

HOUR_S = 3600.0
DAY_S = 24 * HOUR_S
FOREVER_S = float("inf")
PRIOR = Prior.exponential(mean_s=6 * HOUR_S)
MONDAY_8 = Arrival(0.0, 0, 8)
MONDAY_20 = Arrival(0.0, 0, 20)

stays_s = st.floats(0, 4 * DAY_S)
arrivals = st.builds(
    Arrival, st.floats(0, 400 * DAY_S), st.integers(0, 6), st.integers(0, 23), st.integers(0, 59)
)
histories = st.lists(st.tuples(arrivals, stays_s, st.booleans()), max_size=40)


def model_of(history: list[tuple[Arrival, float, bool]]) -> StayModel:
    model = StayModel(PRIOR)
    for arrival, stay_s, left in history:
        model.learn(arrival, stay_s, left=left)
    return model


def later(arrival: Arrival, days: float) -> Arrival:
    return msgspec.structs.replace(arrival, at_s=arrival.at_s + days * DAY_S)


def test_a_new_car_believes_the_prior() -> None:
    prior = load(None).prior
    for weekday in (0, 6):
        arrival = Arrival(0.0, weekday, 8)
        curve = StayModel(prior).forecast(arrival).curve()
        assert curve == pytest.approx(prior.curves[arrival.group])


def test_after_as_many_sessions_as_the_prior_weighs_the_car_itself_counts_half_at_every_hour() -> None:
    model = StayModel(PRIOR, half_life_s=FOREVER_S)
    for _ in range(30):
        model.learn(MONDAY_20, 600.0, left=True)
    before = StayModel(PRIOR).forecast(MONDAY_8).survival(0.0, 2 * HOUR_S)
    assert model.forecast(MONDAY_8).survival(0.0, 2 * HOUR_S) == pytest.approx(before / 2)


def test_the_heavier_the_prior_the_less_the_car_changes_it() -> None:
    stays = []
    for weight in (5.0, 30.0, 300.0):
        model = StayModel(Prior.exponential(6 * HOUR_S, weight))
        for day in range(10):
            model.learn(later(MONDAY_20, day), 600.0, left=True)
        stays.append(model.forecast(later(MONDAY_8, 10)).survival(0.0, HOUR_S))
    assert stays == sorted(stays)
    assert stays[0] < stays[2] - 0.2


def test_a_car_learns_its_own_mornings_apart_from_its_evenings() -> None:
    model = StayModel(PRIOR)
    for day in range(40):
        model.learn(later(MONDAY_8, day), 9 * HOUR_S, left=True)
        model.learn(later(MONDAY_20, day), 0.5 * HOUR_S, left=True)
    assert model.forecast(later(MONDAY_8, 40)).survival(0.0, HOUR_S) > 0.8
    assert model.forecast(later(MONDAY_20, 40)).survival(0.0, HOUR_S) < 0.2


def test_an_hour_that_is_new_to_the_car_is_like_the_hours_beside_it() -> None:
    model = StayModel(PRIOR)
    for day in range(20):
        model.learn(later(MONDAY_8, day), 600.0, left=True)
    after = [
        model.forecast(Arrival(20 * DAY_S, weekday, hour)).survival(0.0, HOUR_S)
        for weekday, hour in ((0, 8), (0, 9), (0, 10), (0, 11), (5, 9))
    ]
    assert after[0] < after[1] < after[2] < after[3] == pytest.approx(after[4])


def test_the_hour_before_midnight_is_beside_the_one_after_it() -> None:
    model = StayModel(PRIOR)
    for day in range(20):
        model.learn(Arrival(day * DAY_S, 0, 23), 600.0, left=True)
    night, noon = (model.forecast(Arrival(20 * DAY_S, 0, hour)).survival(0.0, HOUR_S) for hour in (0, 12))
    assert night < noon - 0.1


def at_minute(hour: int, minute: int) -> Arrival:
    return Arrival(20 * DAY_S, 0, hour, minute)


def test_no_full_hour_changes_a_forecast_at_a_stroke() -> None:
    model = StayModel(PRIOR)
    for day in range(20):
        model.learn(Arrival(day * DAY_S, 0, 7), 600.0, left=True)
    clock = [(7, 30), (7, 45), (7, 59), (8, 0), (8, 15), (8, 30)]
    hour = [model.forecast(at_minute(*time)).survival(0.0, HOUR_S) for time in clock]
    assert hour == sorted(hour)
    assert hour[3] == pytest.approx((hour[0] + hour[5]) / 2)
    assert hour[3] - hour[2] == pytest.approx((hour[5] - hour[0]) / 60)


@pytest.mark.parametrize(("minute", "share"), [(30, 0.0), (45, 0.25), (59, 29 / 60)])
def test_who_comes_shortly_before_the_hour_teaches_the_next_one_too(minute: int, share: float) -> None:
    model = StayModel(PRIOR)
    model.learn(Arrival(0.0, 0, 8, minute), 600.0, left=True)
    weights = {group: sum(tally.left.values()) for group, tally in model.history.items()}
    assert weights == pytest.approx({8: 1 - share, 9: share} if share else {8: 1.0})


def test_midnight_is_between_two_hours_of_the_same_kind_of_day() -> None:
    model = StayModel(PRIOR)
    model.learn(Arrival(0.0, 6, 0, 0), 600.0, left=True)
    model.learn(Arrival(0.0, 4, 23, 45), 600.0, left=True)
    assert set(model.history) == {GROUPS // 2, GROUPS - 1, 23, 0}


def test_weekends_are_learned_apart() -> None:
    assert Arrival(0.0, 4, 8).group == MONDAY_8.group
    assert Arrival(0.0, 5, 8).group == Arrival(0.0, 6, 8).group != MONDAY_8.group


def test_what_was_long_ago_is_forgotten() -> None:
    model = model_of([(MONDAY_8, 600.0, True)] * 50)
    hour = [model.forecast(later(MONDAY_8, days)).survival(0.0, HOUR_S) for days in (1, 30, 90, 3000)]
    assert hour == sorted(hour)
    assert hour[0] < 0.3
    believed = StayModel(PRIOR).forecast(MONDAY_8).survival(0.0, HOUR_S)
    assert hour[3] == pytest.approx(believed)
    beside = model.forecast(Arrival(3000 * DAY_S, 0, 9)).survival(0.0, HOUR_S)
    assert beside == pytest.approx(believed)


def test_a_half_life_later_two_sessions_are_one() -> None:
    two = model_of([(MONDAY_8, 600.0, True)] * 2)
    one = model_of([(MONDAY_8, 600.0, True)])
    after = 600.0 + HALF_LIFE_S
    expected = one.forecast(Arrival(600.0, 0, 8)).curve()
    assert two.forecast(Arrival(after, 0, 8)).curve() == pytest.approx(expected)


def test_a_car_that_went_out_of_sight_is_not_taken_for_one_that_left() -> None:
    seen = model_of([(MONDAY_8, 2.1 * HOUR_S, False)] * 30).forecast(later(MONDAY_8, 1))
    gone = model_of([(MONDAY_8, 2.1 * HOUR_S, True)] * 30).forecast(later(MONDAY_8, 1))
    fresh = StayModel(PRIOR).forecast(MONDAY_8)
    for forecast in (seen, gone):
        assert forecast.survival(0.0, 2 * HOUR_S) > fresh.survival(0.0, 2 * HOUR_S) + 0.1
    assert seen.survival(2.5 * HOUR_S, 5 * HOUR_S) == pytest.approx(fresh.survival(2.5 * HOUR_S, 5 * HOUR_S))
    assert gone.survival(2 * HOUR_S, HOUR_S) < fresh.survival(2 * HOUR_S, HOUR_S) / 2


@given(histories, arrivals, stays_s, stays_s, stays_s)
def test_longer_is_never_likelier_and_conditions_chain(
    history: list[tuple[Arrival, float, bool]],
    arrival: Arrival,
    stayed_s: float,
    more_s: float,
    then_s: float,
) -> None:
    forecast = model_of(history).forecast(arrival)
    whole = forecast.survival(stayed_s, more_s + then_s)
    first = forecast.survival(stayed_s, more_s)
    assert 0 <= whole <= first <= 1
    assert first * forecast.survival(stayed_s + more_s, then_s) == pytest.approx(whole, abs=1e-9)
    assert forecast.survival(stayed_s, 0.0) == 1


@given(histories, arrivals, stays_s)
def test_the_expected_rest_is_the_median(
    history: list[tuple[Arrival, float, bool]], arrival: Arrival, stayed_s: float
) -> None:
    forecast = model_of(history).forecast(arrival)
    assert forecast.survival(stayed_s, forecast.expected_s(stayed_s)) == pytest.approx(0.5)


def test_between_two_edges_and_beyond_the_last_the_curve_goes_on() -> None:
    forecast = StayModel(PRIOR).forecast(MONDAY_8)
    assert forecast.survival(0.0, 150.0) == pytest.approx(
        2 ** (-150 / (6 * HOUR_S) / 0.6931471805599453), rel=1e-3
    )
    assert forecast.survival(EDGES_S[-1] + DAY_S, DAY_S) == pytest.approx(0.5)
    assert forecast.expected_s(5 * DAY_S) == pytest.approx(DAY_S)
    assert forecast.survival(HOUR_S, float("inf")) == 0


def test_a_car_that_stays_for_weeks_is_learned_as_one_that_outstays_the_curve() -> None:
    model = model_of([(MONDAY_8, 14 * DAY_S, True)] * 100)
    assert model.forecast(later(MONDAY_8, 14)).survival(0.0, EDGES_S[-1]) > 0.5


@given(histories, arrivals)
def test_a_restart_changes_no_forecast(history: list[tuple[Arrival, float, bool]], arrival: Arrival) -> None:
    history = sorted(history, key=lambda session: session[0].at_s + session[1])  # as they departed
    model = model_of(history)
    kept = msgspec.json.decode(msgspec.json.encode(model.history), type=dict[int, Tally])
    restarted = StayModel(PRIOR, kept)
    # weights that were dropped as forgotten from one view and not from the other make the difference
    assert restarted.forecast(arrival).curve() == pytest.approx(model.forecast(arrival).curve(), abs=1e-4)


def test_a_restarted_model_leaves_what_it_was_given_alone() -> None:
    kept = model_of([(MONDAY_8, 600.0, True)]).history
    before = msgspec.json.encode(kept)
    StayModel(PRIOR, kept).learn(MONDAY_8, 900.0, left=True)
    assert msgspec.json.encode(kept) == before


def test_what_a_model_knows_can_be_another_cars_prior() -> None:
    teacher = model_of([(MONDAY_8, 9 * HOUR_S, True)] * 200)
    prior = teacher.as_prior(DAY_S)
    assert StayModel(prior).forecast(MONDAY_8).curve() == pytest.approx(
        teacher.forecast(Arrival(DAY_S, 0, 8)).curve()
    )
    assert msgspec.convert(msgspec.to_builtins(prior), Prior) == prior


def test_a_fleet_of_which_every_car_leaves_within_minutes_makes_a_prior() -> None:
    model = StayModel(PRIOR, half_life_s=FOREVER_S)
    for hour in range(24):
        for _ in range(3000):
            model.learn(Arrival(0.0, 0, hour), 600.0, left=True)
    assert StayModel(model.as_prior(0.0)).forecast(MONDAY_8).survival(0.0, HOUR_S) < 0.01


def test_the_prior_that_ships_names_its_source_and_licence() -> None:
    file = load(None)
    assert "ACN-Data" in file.source
    assert file.licence.startswith("CC BY 4.0")
    workday = StayModel(file.prior).forecast(MONDAY_8)
    assert 4 * HOUR_S < workday.expected_s(0.0) < 10 * HOUR_S


CURVE = PRIOR.curves[0]


@pytest.mark.parametrize(
    ("curves", "weight", "words"),
    [
        ([CURVE] * 47, 30, "48 curves, this one has 47"),
        ([CURVE[:-1], *[CURVE] * 47], 30, "curve 0"),
        ([*[CURVE] * 47, (0.9, *CURVE[1:])], 30, "curve 47"),
        ([*[CURVE] * 47, (*CURVE[:-1], 0.5)], 30, "curve 47"),
        ([*[CURVE] * 47, (*CURVE[:-1], 0.0)], 30, "curve 47"),
        ([*[CURVE] * 47, (*CURVE[:50], float("nan"), *CURVE[51:])], 30, "curve 47"),
        ([CURVE] * GROUPS, 0, "1 to 10,000 sessions, not 0"),
        ([CURVE] * GROUPS, float("nan"), "not nan"),
    ],
)
def test_a_prior_that_is_none_is_refused(curves: list[tuple[float, ...]], weight: float, words: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=words):
        msgspec.convert({"curves": curves, "weight_sessions": weight}, Prior)


@pytest.mark.parametrize("stay_s", [-1.0, float("nan"), float("inf")])
def test_a_stay_that_is_none_is_refused(stay_s: float) -> None:
    model = StayModel(PRIOR)
    forecast = model.forecast(MONDAY_8)
    with pytest.raises(ValueError, match="0 s or longer"):
        model.learn(MONDAY_8, stay_s, left=True)
    with pytest.raises(ValueError, match="0 s or longer"):
        forecast.survival(stay_s, 1.0)
    with pytest.raises(ValueError, match="0 s or longer"):
        forecast.expected_s(stay_s)
    assert model.history == {}


@pytest.mark.parametrize(
    ("weekday", "hour", "minute", "at_s"),
    [
        (7, 0, 0, 0.0),
        (0, 24, 0, 0.0),
        (-1, 0, 0, 0.0),
        (0, 0, 60, 0.0),
        (0, 0, -1, 0.0),
        (0, 0, 0, float("nan")),
    ],
)
def test_an_arrival_that_is_no_time_of_a_week_is_refused(
    weekday: int, hour: int, minute: int, at_s: float
) -> None:
    with pytest.raises(ValueError, match="weekday 0-6, hour 0-23, minute 0-59"):
        Arrival(at_s, weekday, hour, minute)


@pytest.mark.parametrize(
    "history",
    [
        {48: Tally(0.0, {0: 1.0}, {})},
        {0: Tally(0.0, {len(EDGES_S) - 1: 1.0}, {})},
        {0: Tally(0.0, {}, {len(EDGES_S): 1.0})},
        {0: Tally(0.0, {0: -1.0}, {})},
        {0: Tally(0.0, {-1: 1.0}, {})},
    ],
)
def test_a_history_of_another_shape_is_refused(history: dict[int, Tally]) -> None:
    with pytest.raises(ValueError, match="history of group"):
        StayModel(PRIOR, history)
