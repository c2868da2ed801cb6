"""How well the remaining parked time is foretold, replayed online over 27,407 real charging sessions.

Every session is predicted at its arrival, from sessions that had departed before it; it is learned when it departs.
No curve sees what comes later. The prior's 30 sessions and the half-life of 30 days were given, not tuned; the design (the
corrections by rank and by the hours beside, a forecast between two hours) and the weights of its steps (20 and 5 sessions)
were chosen with these same sessions in view, so the figures are no blind test of those. `mean absolute error` is that of
the median at arrival, in minutes. `calibration` is the worst, over 5, 15, 30 and 60 minutes, of the mean distance
between probability and frequency in ten classes of probability. `misses`: of the stays of which P(60 minutes more) >= 0.9
was said, the share that ended sooner; at arrival, and asked again every half hour of the stay (`while parked`).
"""

import heapq
import statistics
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from agent.policy.stay import Arrival, Forecast, Prior, StayModel
from benchmarks import charging_sessions
from benchmarks.charging_sessions import Session
from benchmarks.wheels import WheelMissingError

KNOWING_NOTHING: Final = Prior.exponential(6 * 3600.0)
"""What a model starts from that has no sessions to make a prior of: a guess, the same for every hour."""
AUTUMN_S: Final = datetime(2019, 9, 1, 7, tzinfo=UTC).timestamp()
"""Priors are made of the sessions that departed before; where there is a prior, what follows is predicted."""
CARS: Final = 40
HORIZONS_S: Final = (300.0, 900.0, 1800.0, 3600.0)
ADMITTED: Final = 0.9
MONTH_S: Final = 30 * 86_400.0
ASK_EVERY_S: Final = 1800.0
QUERIES: Final = 100_000


@dataclass(frozen=True, slots=True)
class Prediction:
    """What was said of a session at its arrival."""

    session: Session
    forecast: Forecast


@dataclass(frozen=True, slots=True)
class Score:
    """One view in one period. Error in minutes, calibration 0 to 1, the shares in percent."""

    view: str
    period: str
    sessions: int
    error_min: float
    calibration: float
    admitted_pct: float
    missed_pct: float
    missed_parked_pct: float

    def __str__(self) -> str:
        return (
            f"{self.view:<46} {self.period:<9} {self.sessions:>6} {self.error_min:>7.1f} {self.calibration:>7.3f}"
            f" {self.admitted_pct:>7.1f} {self.missed_pct:>7.2f} {self.missed_parked_pct:>7.2f}"
        )


HEADER: Final = (
    f"{'remaining parked time':<46} {'arrivals':<9} {'n':>6} {'error':>7} {'calibr.':>7} {'admit %':>7}"
    f" {'miss %':>7} {'parked':>7}"
)


@dataclass
class Replay:
    """One online pass: `model_of` names the model that predicts and learns a session."""

    model_of: Callable[[Session], StayModel]
    _parked: list[tuple[float, str, Session]] = field(default_factory=list)

    def over(self, sessions: Iterable[Session]) -> list[Prediction]:
        """Predict each session in the order of arrival, after learning what has departed until then."""
        predictions = []
        for session in sessions:
            while self._parked and self._parked[0][0] <= session.arrival.at_s:
                self._learn(heapq.heappop(self._parked)[2])
            predictions.append(Prediction(session, self.model_of(session).forecast(session.arrival)))
            heapq.heappush(self._parked, (session.departed_s, session.id, session))
        return predictions

    def _learn(self, session: Session) -> None:
        self.model_of(session).learn(session.arrival, session.stay_s, left=True)


def score(view: str, period: str, predictions: Sequence[Prediction]) -> Score:
    """Judge predictions by what came."""
    errors_s = [abs(said.forecast.expected_s(0.0) - said.session.stay_s) for said in predictions]
    at_arrival = [_misses(said, [0.0]) for said in predictions]
    parked = [_misses(said, _ages_s(said.session.stay_s)) for said in predictions]
    admitted, missed = (sum(column) for column in zip(*at_arrival, strict=True))
    asked, too_soon = (sum(column) for column in zip(*parked, strict=True))
    return Score(
        view,
        period,
        len(predictions),
        statistics.fmean(errors_s) / 60,
        max(_calibration_error(predictions, horizon_s) for horizon_s in HORIZONS_S),
        100 * admitted / len(predictions),
        100 * missed / max(1, admitted),
        100 * too_soon / max(1, asked),
    )


def _misses(said: Prediction, ages_s: Iterable[float]) -> tuple[int, int]:
    """How often an hour was admitted at these ages, and how often the car left within it."""
    admitted = [age_s for age_s in ages_s if said.forecast.survival(age_s, 3600.0) >= ADMITTED]
    return len(admitted), sum(said.session.stay_s < age_s + 3600.0 for age_s in admitted)


def _ages_s(stay_s: float) -> list[float]:
    return [step * ASK_EVERY_S for step in range(1, int(stay_s / ASK_EVERY_S) + 1)]


def _calibration_error(predictions: Sequence[Prediction], horizon_s: float) -> float:
    gaps = [0.0] * 10
    for said in predictions:
        likely = said.forecast.survival(0.0, horizon_s)
        gaps[min(9, int(10 * likely))] += likely - (said.session.stay_s >= horizon_s)
    return sum(abs(gap) for gap in gaps) / len(predictions)


def by_year(view: str, predictions: Sequence[Prediction]) -> list[Score]:
    """One score a year, and one over all of them."""
    years = sorted({said.session.year for said in predictions})
    return [
        *(
            score(view, str(year), [said for said in predictions if said.session.year == year])
            for year in years
        ),
        score(view, "all", predictions),
    ]


def prior_of(sessions: Iterable[Session]) -> Prior:
    """What a fleet would send: everything that it has seen so far, nothing forgotten."""
    model, at_s = StayModel(KNOWING_NOTHING, half_life_s=float("inf")), 0.0
    for session in sorted(sessions, key=lambda session: session.departed_s):
        model.learn(session.arrival, session.stay_s, left=True)
        at_s = session.departed_s
    return model.as_prior(at_s)


def pooled(sessions: Sequence[Session]) -> list[Prediction]:
    """One model for all cars of both sites, which starts from nothing."""
    model = StayModel(KNOWING_NOTHING)
    return Replay(lambda _: model).over(sessions)


def pooled_with_prior(sessions: Sequence[Session]) -> list[Prediction]:
    """One model for all cars of both sites from September 2019, with the prior of what was before."""
    model = StayModel(prior_of(_before_autumn(sessions)))
    return Replay(lambda _: model).over(_from_autumn(sessions))


def one_car(sessions: Sequence[Session], prior_site: Callable[[str], str]) -> list[Prediction]:
    """Forty cars a site, new in September 2019, each with a fortieth of the sessions to learn from.

    `prior_site` names the site whose sessions until then make the prior of a site's cars.
    """
    before = _before_autumn(sessions)
    priors = {
        site: prior_of(session for session in before if session.site == site)
        for site in sorted({session.site for session in sessions})
    }
    models: dict[tuple[str, int], StayModel] = {}

    def model_of(session: Session) -> StayModel:
        car = session.site, zlib.crc32(session.id.encode()) % CARS
        if car not in models:
            models[car] = StayModel(priors[prior_site(session.site)])
        return models[car]

    return Replay(model_of).over(_from_autumn(sessions))


def own(site: str) -> str:
    """The prior of the site itself."""
    return site


def foreign(site: str) -> str:
    """The prior of the other site: another town, another use."""
    return {"caltech": "jpl", "jpl": "caltech"}[site]


def _before_autumn(sessions: Iterable[Session]) -> list[Session]:
    return [session for session in sessions if session.departed_s < AUTUMN_S]


def _from_autumn(sessions: Iterable[Session]) -> list[Session]:
    return [session for session in sessions if session.arrival.at_s >= AUTUMN_S]


def hindsight_min(sessions: Iterable[Session]) -> float:
    """Mean absolute error in minutes of one median for each hour, kind of day and month, with hindsight.

    A session is foretold by the median of all others of its cell, those that came later too: without the minute of
    the arrival, and without knowing the site, nothing says much more.
    """
    stays_s: dict[tuple[int, int], list[float]] = {}
    for session in sessions:
        month = int(session.arrival.at_s // MONTH_S)
        stays_s.setdefault((month, session.arrival.group), []).append(session.stay_s)
    errors_s = [
        abs(stay_s - statistics.median(found[:place] + found[place + 1 :]))
        for found in map(sorted, stays_s.values())
        for place, stay_s in enumerate(found)
        if len(found) > 1
    ]
    return statistics.fmean(errors_s) / 60


def query_us(forecast: Forecast) -> float:
    """Microseconds that one query takes on this machine, the best of five rounds."""
    rounds_s = []
    for _ in range(5):
        begun_s = time.perf_counter()
        for minute in range(QUERIES):
            forecast.survival(minute % 600 * 60.0, 3600.0)
        rounds_s.append(time.perf_counter() - begun_s)
    return min(rounds_s) / QUERIES * 1e6


async def measure() -> list[str]:
    """Print-ready lines: the table, its goals and the cost of a query."""
    try:
        sessions = charging_sessions.load()
    except WheelMissingError as error:
        return [f"remaining parked time: not measured: {error}"]
    views = (
        ("pooled, from nothing", pooled(sessions)),
        ("pooled, prior of May to August 2019", pooled_with_prior(sessions)),
        (f"one car (1/{CARS} of a site), its site's prior", one_car(sessions, own)),
        (f"one car (1/{CARS} of a site), a foreign prior", one_car(sessions, foreign)),
    )
    cost_us = query_us(StayModel(KNOWING_NOTHING).forecast(Arrival(AUTUMN_S, 0, 8)))
    return [
        HEADER,
        *(str(line) for view, predictions in views for line in by_year(view, predictions)),
        f"the median of all others of the same hour, kind of day and month, later ones too, errs {hindsight_min(sessions):.1f}",
        "goals: pooled error <= 112 min (2019), calibration <= 0.02, misses <= 5 % in 2019 and <= 6.5 % in 2021;",
        "       one car: misses <= 6 % with its site's prior, <= 7 % with a foreign one",
        f"a query takes {cost_us:.2f} us   goal <= 5 us",
    ]
