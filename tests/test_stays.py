"""What the agent makes of a car's days: drives, nights, restarts and clocks that lie."""

import asyncio
import datetime as dt
import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
import pytest
import pytest_asyncio
from cars import PARKED_AND_CHARGING, Car, HandClock, HandSource

from agent import stays, wall_clock
from agent.guard import Guard
from agent.policy.settings import PolicySettings
from agent.policy.stay import EDGES_S, Arrival, Prior
from agent.policy.survival import Tally
from agent.policy.verdict import Policy
from agent.stays import HISTORY_NOTE, OPEN_NOTE, Stays
from agent.store import Ledger, Store, StoreFull
from firmware_shims import vss
from firmware_shims.reading import Value

MINUTE_S = 60.0
HOUR_S = 3600.0
DAY_S = 24 * HOUR_S
ZONE = ZoneInfo("America/Sao_Paulo")
MONDAY_8_30 = dt.datetime(2026, 11, 23, 8, 30, tzinfo=ZONE)
"""The middle of an hour: what comes now belongs to this hour alone."""
PRIOR = Prior.exponential(mean_s=6 * HOUR_S)
PARKED: Mapping[str, Value] = {vss.LOW_VOLTAGE_STATE: "OFF", vss.GEAR: vss.GEAR_PARK, vss.SPEED: 0.0}
DRIVING: Mapping[str, Value] = {vss.LOW_VOLTAGE_STATE: "ON", vss.GEAR: vss.GEAR_DRIVE, vss.SPEED: 50.0}
REVERSING: Mapping[str, Value] = {vss.LOW_VOLTAGE_STATE: "ON", vss.GEAR: -1, vss.SPEED: 0.0}


@dataclass
class Days:
    """A car, its two clocks, and an agent with a real guard over a real store. It is Monday, half past 8."""

    store: Store
    clock: HandClock = field(default_factory=HandClock)
    unix_s: float = MONDAY_8_30.timestamp()
    car: Car = field(default_factory=Car)

    async def start_agent(self, prior: Prior = PRIOR) -> None:
        """Begin, or begin again: nothing but the disk is remembered."""
        policy = Policy(PolicySettings(), frozenset(PARKED_AND_CHARGING), compute_w=60)
        self.guard = Guard(policy, [HandSource()], self.clock, self._on_verdict, self.wall)
        self.stays = Stays(self.guard, self.store, prior, ZONE, self.clock, self.wall, self._fail)
        await self.stays.restore()

    def expected_s(self) -> int | None:
        return self.stays.expected_s

    def wall(self) -> float | None:
        return wall_clock.trusted(self.unix_s, floor_s=0.0)

    def look(self) -> bool:
        """As the service does at every verdict, and every minute."""
        return self.stays.look()

    def _on_verdict(self, *_: object) -> None:
        self.stays.look()

    def _fail(self, error: BaseException) -> None:
        raise error

    def is_(self, values: Mapping[str, Value]) -> None:
        """The car says how it is."""
        self.car.values.update(values)
        self.guard.update(self.car.readings(self.clock()))

    def pass_(self, seconds: float) -> None:
        """Time goes by and nobody looks: the car sleeps, or the agent does not run."""
        self.clock.forward(seconds)
        self.unix_s += seconds

    def sleep(self, seconds: float) -> None:
        """The car falls silent, and is looked at in vain from time to time."""
        for _ in range(10):
            self.pass_(seconds / 10)
            self.guard.look()
            self.look()
        assert self.guard.snapshot.good(vss.GEAR) is None

    def wake(self) -> None:
        self.is_({})

    def stays_for(self, seconds: float) -> None:
        """One stay, with a drive before it and after it."""
        self.is_(DRIVING)
        self.is_(PARKED)
        self.pass_(seconds)
        self.is_(DRIVING)

    async def note(self, name: str) -> bytes | None:
        return await self.store.run(lambda ledger: ledger.notes.read(name))

    async def write(self, name: str, body: bytes) -> None:
        await self.store.run(lambda ledger: ledger.notes.write(name, body))

    async def learned(self) -> list[tuple[int, int, bool]]:
        """(group, interval, left) of everything that was learned."""
        history = msgspec.json.decode(await self.note(HISTORY_NOTE) or b"{}", type=dict[int, Tally])
        return [
            (group, interval, left)
            for group, tally in history.items()
            for weights, left in ((tally.left, True), (tally.lost, False))
            for interval in weights
        ]


@pytest_asyncio.fixture
async def days(tmp_path: Path) -> AsyncIterator[Days]:
    async with Store.open(tmp_path / "agent.db", max_bytes=50_000_000) as store:
        days = Days(store)
        await days.start_agent()
        yield days


def interval(seconds: float) -> int:
    return next(index for index, edge_s in enumerate(EDGES_S) if edge_s > seconds) - 1


def group(hour: int) -> int:
    return Arrival(0.0, 0, hour).group


async def test_at_its_first_ever_start_the_agent_finds_a_parked_car_and_learns_nothing_of_its_stay(
    days: Days,
) -> None:
    assert days.expected_s() is None
    days.is_(PARKED)
    assert days.expected_s() == pytest.approx(6 * HOUR_S * 0.693, rel=0.01)
    days.pass_(HOUR_S)
    days.is_(DRIVING)
    assert days.expected_s() is None
    assert days.stays.likely(0.0) is None
    assert await days.learned() == []


async def test_a_stay_is_learned_by_the_hour_on_the_clocks_of_the_place(days: Days) -> None:
    days.stays_for(2 * HOUR_S)
    assert await days.learned() == [(group(8), interval(2 * HOUR_S), True)]


async def test_a_car_that_sleeps_for_nine_hours_stays_all_the_time(days: Days) -> None:
    days.is_(DRIVING)
    days.is_(PARKED)
    days.sleep(9 * HOUR_S)
    assert days.expected_s() is not None
    days.wake()
    days.pass_(30 * MINUTE_S)
    days.is_(DRIVING)
    assert await days.learned() == [(group(8), interval(9.5 * HOUR_S), True)]


async def test_a_car_that_wakes_to_a_drive_has_left(days: Days) -> None:
    days.is_(DRIVING)
    days.is_(PARKED)
    days.sleep(9 * HOUR_S)
    days.is_(DRIVING)
    assert await days.learned() == [(group(8), interval(9 * HOUR_S), True)]


async def test_falling_silent_on_the_road_begins_no_stay(days: Days) -> None:
    days.is_(DRIVING)
    days.sleep(HOUR_S)
    assert days.expected_s() is None
    days.is_(PARKED)
    days.pass_(20 * MINUTE_S)
    days.is_(DRIVING)
    assert await days.learned() == [(group(9), interval(20 * MINUTE_S), True)]


@pytest.mark.parametrize("silent", [False, True])
async def test_a_restart_in_the_middle_of_a_stay_changes_nothing(days: Days, silent: bool) -> None:
    for _ in range(3):
        days.stays_for(3 * HOUR_S)
        days.unix_s += DAY_S - 3 * HOUR_S
    days.is_(PARKED)
    days.pass_(HOUR_S)
    before = days.expected_s(), days.stays.likely(HOUR_S)
    await days.start_agent()
    if not silent:
        days.wake()
    after = days.expected_s(), days.stays.likely(HOUR_S)
    assert after == pytest.approx(before, rel=1e-3)
    days.pass_(4 * HOUR_S)
    days.is_(DRIVING)
    assert (group(8), interval(5 * HOUR_S), True) in await days.learned()


async def test_a_drive_that_the_agent_wakes_up_to_ends_the_stay_that_it_left(days: Days) -> None:
    days.is_(DRIVING)
    days.is_(PARKED)
    days.pass_(10 * HOUR_S)
    await days.start_agent()
    days.is_(DRIVING)
    assert await days.learned() == [(group(8), interval(10 * HOUR_S), True)]


@pytest.mark.parametrize("away_s", [13 * HOUR_S, -HOUR_S])
async def test_nobody_knows_what_the_car_did_while_the_agent_was_away_for_long(
    days: Days, away_s: float
) -> None:
    """Or while the clock went back: what was seen of the stay counts, what comes after is another one."""
    days.is_(DRIVING)
    days.is_(PARKED)
    days.pass_(2 * HOUR_S)
    days.look()
    days.unix_s += away_s
    await days.start_agent()
    assert await days.learned() == [(group(8), interval(2 * HOUR_S), False)]
    assert await days.note(OPEN_NOTE) == b"null"
    days.is_(PARKED)
    fresh = days.expected_s()
    assert fresh is not None
    days.pass_(HOUR_S)
    days.is_(DRIVING)
    assert len(await days.learned()) == 1  # nobody saw when the second began


async def test_a_drive_of_two_minutes_is_the_end_of_one_stay_and_the_beginning_of_another(days: Days) -> None:
    days.stays_for(58 * MINUTE_S)
    days.pass_(2 * MINUTE_S)
    days.is_(PARKED)
    days.pass_(4 * HOUR_S)
    days.is_(DRIVING)
    assert sorted(await days.learned()) == [
        (group(8), interval(58 * MINUTE_S), True),
        (group(9), interval(4 * HOUR_S), True),
    ]


async def test_reversing_in_the_yard_is_a_drive(days: Days) -> None:
    days.is_(DRIVING)
    days.is_(PARKED)
    days.pass_(HOUR_S)
    days.is_(REVERSING)
    assert days.expected_s() is None
    days.is_(PARKED)
    days.pass_(20 * MINUTE_S)
    days.is_(DRIVING)
    assert [interval_ for _, interval_, _ in await days.learned()] == [
        interval(HOUR_S),
        interval(20 * MINUTE_S),
    ]


async def test_a_door_alone_ends_no_stay(days: Days) -> None:
    days.is_(DRIVING)
    days.is_(PARKED)
    days.pass_(HOUR_S)
    days.is_({vss.DRIVER_DOOR: True, vss.LOW_VOLTAGE_STATE: "ACC"})
    assert days.expected_s() is not None
    days.is_({vss.DRIVER_DOOR: False, vss.LOW_VOLTAGE_STATE: "OFF"})
    days.pass_(HOUR_S)
    days.is_(DRIVING)
    assert await days.learned() == [(group(8), interval(2 * HOUR_S), True)]


async def test_driving_off_with_the_owner_seen_long_before_is_noticed_at_once(days: Days) -> None:
    """By the verdict itself: the look of every minute does not come in between."""
    days.is_({vss.DRIVER_DOOR: True, vss.LOW_VOLTAGE_STATE: "ON"})
    assert days.expected_s() is not None
    days.is_({vss.GEAR: vss.GEAR_DRIVE})
    assert days.expected_s() is None
    days.is_({vss.GEAR: vss.GEAR_PARK})
    assert days.expected_s() is not None
    days.is_({vss.SPEED: 3.0})
    assert days.expected_s() is None


@pytest.mark.parametrize("step_s", [-3 * DAY_S, 5 * HOUR_S])
async def test_a_clock_that_is_set_during_a_stay_does_not_change_its_length(
    days: Days, step_s: float
) -> None:
    days.is_(DRIVING)
    days.is_(PARKED)
    days.pass_(HOUR_S)
    days.unix_s += step_s
    days.pass_(HOUR_S)
    days.is_(DRIVING)
    assert [interval_ for _, interval_, _ in await days.learned()] == [interval(2 * HOUR_S)]


async def test_a_car_that_arrives_with_a_wrong_clock_has_its_hour_from_the_right_one(days: Days) -> None:
    right_s, days.unix_s = days.unix_s, 0.0
    days.is_(DRIVING)
    days.is_(PARKED)
    assert days.expected_s() is None
    assert days.stays.likely(0.0) is None
    days.pass_(HOUR_S)
    days.unix_s = right_s + HOUR_S
    assert days.expected_s() is not None
    days.is_(DRIVING)
    assert await days.learned() == [(group(8), interval(HOUR_S), True)]


async def test_the_hour_of_an_arrival_follows_a_clock_that_is_set(days: Days) -> None:
    mornings = Prior.exponential(mean_s=10 * HOUR_S).curves[0]
    await days.start_agent(Prior((*PRIOR.curves[:8], mornings, *PRIOR.curves[9:])))
    days.unix_s += 5 * HOUR_S
    days.is_(PARKED)
    assert days.expected_s() == pytest.approx(6 * HOUR_S * 0.693, rel=0.01)
    days.unix_s -= 5 * HOUR_S
    assert days.expected_s() == pytest.approx(10 * HOUR_S * 0.693, rel=0.01)


async def test_an_arrival_shortly_before_the_hour_is_half_an_arrival_after_it(days: Days) -> None:
    mornings = Prior.exponential(mean_s=10 * HOUR_S).curves[0]
    await days.start_agent(Prior((*PRIOR.curves[:9], mornings, *PRIOR.curves[10:])))
    days.is_(PARKED)
    expected_s = []
    for minutes in (0, 29, 1, 30):  # half past 8, 8:59, 9 o'clock, half past 9
        days.unix_s += minutes * MINUTE_S
        expected_s.append(days.expected_s() or 0)
    assert expected_s == sorted(expected_s)
    assert expected_s[0] == pytest.approx(6 * HOUR_S * 0.693, rel=0.01)
    assert expected_s[1] == pytest.approx(expected_s[2], rel=0.02)
    assert expected_s[3] == pytest.approx(10 * HOUR_S * 0.693, rel=0.01)


@pytest.mark.parametrize(
    ("clock", "signed", "right"),
    [
        ("1970-01-01T00:00:10Z", None, False),
        ("2025-12-31T23:59:59Z", None, False),
        ("2026-11-23T08:00:00Z", None, True),
        ("2026-11-23T08:00:00Z", "2026-11-20T08:00:00Z", True),
        ("2026-11-23T08:00:00Z", "2026-11-23T08:30:00Z", True),
        ("2026-11-23T08:00:00Z", "2026-11-23T09:30:00Z", False),
    ],
)
def test_a_clock_is_wrong_that_lies_behind_what_has_passed(
    clock: str, signed: str | None, right: bool
) -> None:
    wall_s = dt.datetime.fromisoformat(clock).timestamp()
    floor_s = dt.datetime.fromisoformat(signed).timestamp() if signed else 0.0
    assert wall_clock.trusted(wall_s, floor_s) == (wall_s if right else None)


async def test_a_car_that_leaves_with_a_wrong_clock_forgets_nothing_and_learns_nothing(days: Days) -> None:
    days.stays_for(2 * HOUR_S)
    right_s, days.unix_s = days.unix_s, 0.0
    days.stays_for(HOUR_S)
    days.unix_s = right_s + 2 * HOUR_S
    days.stays_for(20 * MINUTE_S)
    assert [interval_ for _, interval_, _ in await days.learned()] == [
        interval(2 * HOUR_S),
        interval(20 * MINUTE_S),
    ]


async def test_a_stay_that_was_written_with_a_wrong_clock_is_of_no_known_length_after_a_restart(
    days: Days,
) -> None:
    days.unix_s, right_s = 0.0, days.unix_s
    days.is_(DRIVING)
    days.is_(PARKED)
    days.unix_s = right_s
    await days.start_agent()
    assert days.expected_s() is None
    assert await days.learned() == []


async def test_a_car_that_was_stored_for_longer_than_two_months_was_not_parked(days: Days) -> None:
    days.stays_for(61 * DAY_S)
    assert await days.learned() == []
    days.stays_for(59 * DAY_S)
    assert len(await days.learned()) == 1


async def test_the_disk_is_written_at_arrival_at_departure_and_every_ten_minutes(days: Days) -> None:
    days.is_(DRIVING)
    written = [await days.note(OPEN_NOTE)]
    days.is_(PARKED)
    for _ in range(60):
        written.append(await days.note(OPEN_NOTE))
        days.pass_(MINUTE_S)
        days.look()
    days.is_(DRIVING)
    written.append(await days.note(OPEN_NOTE))
    changes = sum(before != after for before, after in pairwise(written))
    assert changes == 1 + 5 + 1


async def test_no_forecast_goes_beyond_the_departure_that_was_announced(days: Days) -> None:
    days.is_(DRIVING)
    days.is_(PARKED)
    assert not days.look()
    habit_s = days.expected_s()
    days.guard.follow(replace(days.guard.orders, departure_s=days.unix_s + HOUR_S))
    assert days.look()
    assert days.expected_s() == HOUR_S
    assert days.stays.likely(HOUR_S + 1) == 0
    within = days.stays.likely(HOUR_S)
    assert within == pytest.approx(2 ** (-1 / (6 * 0.693)), rel=1e-2)
    days.pass_(90 * MINUTE_S)
    assert days.expected_s() == 0
    assert days.stays.likely(1.0) == 0
    days.pass_(HOUR_S)  # it did not take place
    assert days.expected_s() == pytest.approx(habit_s, rel=0.05)


async def test_a_departure_after_the_usual_one_makes_no_stay_longer(days: Days) -> None:
    days.is_(PARKED)
    habit_s = days.expected_s()
    days.guard.follow(replace(days.guard.orders, departure_s=days.unix_s + 3 * DAY_S))
    assert days.expected_s() == habit_s


async def test_the_passing_of_time_is_no_news(days: Days) -> None:
    days.is_(DRIVING)
    assert not days.look()
    days.car.values.update(PARKED)
    days.guard.update(days.car.readings(days.clock()))
    for _ in range(100):
        days.pass_(MINUTE_S)
        days.guard.look()
        assert not days.look()


@pytest.mark.parametrize(
    ("history", "open_stay"),
    [
        (b"\xff\xff", None),
        (b'{"77": {"at_s": 0.0, "left": {"3": 1.0}}}', None),
        (b'{"8": {"at_s": 0.0, "left": {"3": -1.0}}}', None),
        (None, b'{"seen_at": "yesterday"}'),
    ],
)
async def test_what_cannot_be_read_back_is_forgotten_with_a_warning(
    days: Days, caplog: pytest.LogCaptureFixture, history: bytes | None, open_stay: bytes | None
) -> None:
    await days.write(HISTORY_NOTE, history or b"{}")
    await days.write(OPEN_NOTE, open_stay or b"null")
    with caplog.at_level(logging.WARNING):
        await days.start_agent()
    assert "cannot be used and is forgotten" in caplog.text
    days.stays_for(HOUR_S)
    assert len(await days.learned()) == 1


async def test_a_car_of_short_stops_is_not_expected_to_stay(days: Days) -> None:
    days.is_(PARKED)
    assert (days.expected_s() or 0) > 4 * HOUR_S
    for _ in range(30):
        days.stays_for(10 * MINUTE_S)
        days.unix_s += DAY_S - 10 * MINUTE_S
    days.is_(PARKED)
    assert (days.expected_s() or 0) in range(1, int(HOUR_S))
    likely = days.stays.likely(20 * MINUTE_S)
    assert likely is not None
    assert likely < 0.7


async def test_a_departure_is_news_within_a_minute(days: Days, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stays, "LOOK_S", 0.001)
    days.is_(PARKED)
    news = asyncio.Event()
    watching = asyncio.create_task(days.stays.watch(news.set))
    days.guard.follow(replace(days.guard.orders, departure_s=days.unix_s + 3 * HOUR_S))
    await asyncio.wait_for(news.wait(), 30)
    watching.cancel()
    await asyncio.wait([watching])


async def test_a_full_store_does_not_stop_the_agent_and_the_stay_is_written_later(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "agent.db", max_bytes=200_000) as store:
        await store.run(lambda ledger: ledger.notes.write("ballast", bytes(20_000)))
        with pytest.raises(StoreFull):
            await asyncio.gather(*(store.run(partial(_fill, number=number)) for number in range(100)))
        days = Days(store)
        await days.start_agent()
        days.is_(PARKED)
        await store.run(lambda _: None)
        assert await days.note(OPEN_NOTE) is None
        await days.write("ballast", b"")
        async with asyncio.timeout(30):
            while await days.note(OPEN_NOTE) is None:
                await asyncio.sleep(0.01)


def _fill(ledger: Ledger, number: int) -> None:
    ledger.notes.write(f"filler {number}", bytes(2_000))
