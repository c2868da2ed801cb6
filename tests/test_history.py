"""The account of the days: where the hours went, by the clocks of the place where the car lives."""

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from cars import HandClock

from agent.history import names
from agent.history.days import begins_s, length_s, parts
from agent.history.logbook import Logbook, Sight
from agent.history.report import Day, History, day_of, reported
from agent.history.table import described
from agent.job import DONE, Chunk, Ending, Spending
from agent.preemption import Preemption
from agent.protocol.messages import EnergySource, Mode, TaskState
from agent.protocol.reasons import Reason
from agent.store import Store, StoreFull
from agent.store.history import KEPT_DAYS, UNDATED, DaySum

SAO_PAULO, BERLIN, UTC = ZoneInfo("America/Sao_Paulo"), ZoneInfo("Europe/Berlin"), ZoneInfo("UTC")
EVENING = dt.datetime(2026, 11, 22, 1, 0, tzinfo=dt.UTC)  # 22:00 on the 21st in Sao Paulo
HOUR = 3600.0
READY = Sight(Mode.READY, [])
WORKING = Sight(Mode.WORKING, [])
AT_THE_CAR = Sight(Mode.BLOCKED, [Reason.OWNER_PRESENT, Reason.CHARGE_LOW])
LOW = Sight(Mode.BLOCKED, [Reason.CHARGE_LOW])


# Days


@pytest.mark.parametrize(
    ("day", "zone", "hours"),
    [
        (dt.date(2026, 3, 29), BERLIN, 23),
        (dt.date(2026, 10, 25), BERLIN, 25),
        (dt.date(2026, 11, 22), SAO_PAULO, 24),
        (dt.date(2018, 11, 4), SAO_PAULO, 23),  # its clocks went from 0:00 to 1:00
    ],
)
def test_a_day_is_as_long_as_the_clocks_of_the_place_make_it(
    day: dt.date, zone: ZoneInfo, hours: int
) -> None:
    assert length_s(day, zone) == hours * HOUR


def test_a_night_belongs_to_two_days() -> None:
    begun_s = EVENING.timestamp()
    assert list(parts(begun_s, begun_s + 5 * HOUR, SAO_PAULO)) == [
        (dt.date(2026, 11, 21), 2 * HOUR),
        (dt.date(2026, 11, 22), 3 * HOUR),
    ]
    assert begins_s(dt.date(2026, 11, 22), SAO_PAULO) == begun_s + 2 * HOUR


# The logbook


@dataclass
class Night:
    """A logbook with its clocks in hand."""

    book: Logbook
    store: Store
    clock: HandClock
    awake: HandClock
    sight: Sight = READY
    wall_s: float | None = field(default_factory=EVENING.timestamp)

    def passes(self, seconds: float) -> None:
        self.awake.forward(seconds)
        self.sleeps(seconds)

    def sleeps(self, seconds: float) -> None:
        """The computer is suspended."""
        self.clock.forward(seconds)
        if self.wall_s is not None:
            self.wall_s += seconds

    def sees(self, sight: Sight) -> None:
        self.sight = sight
        self.book.look()

    async def days(self) -> dict[str, Day]:
        self.book.look()
        sums = await self.book.sums_since("")
        dates = [dt.date.fromisoformat(day) if day else None for day in {each.day for each in sums}]
        return {str(day or ""): day_of(sums, day, None) for day in dates}

    async def on_disk(self) -> list[DaySum]:
        return await self.store.run(lambda ledger: ledger.history.since(""))


@asynccontextmanager
async def night(
    folder: Path, zone: ZoneInfo = SAO_PAULO, max_bytes: int = 50_000_000
) -> AsyncIterator[Night]:
    clock, awake = HandClock(), HandClock()
    failures: list[BaseException] = []
    async with Store.open(folder / "agent.db", max_bytes=max_bytes, clock=clock) as store:
        book = Logbook(
            present=lambda: present.sight,
            store=store,
            zone=zone,
            clock=clock,
            wall=lambda: present.wall_s,
            on_store_error=failures.append,
            awake=awake,
        )
        present = Night(book, store, clock, awake)
        book.look()
        yield present
        assert not failures


def rows(count: int, energy_j: float | None, source: EnergySource) -> Chunk:
    return Chunk(0, count, (), Spending(1.0, 1.0, energy_j, source, None, 0.0))


async def test_the_hours_of_a_night_are_put_to_the_days_that_they_lie_in(tmp_path: Path) -> None:
    async with night(tmp_path) as car:
        car.passes(3 * HOUR)
        car.sees(AT_THE_CAR)
        car.passes(2 * HOUR)
        days = await car.days()
    assert days["2026-11-21"].ready_s == 2 * HOUR
    assert (days["2026-11-22"].ready_s, days["2026-11-22"].blocked_s) == (HOUR, 2 * HOUR)
    assert [(lost.name, lost.first_s, lost.any_s) for lost in days["2026-11-22"].lost] == [
        ("owner_present", 2 * HOUR, 2 * HOUR),
        ("charge_low", 0, 2 * HOUR),
    ]


async def test_a_suspended_computer_was_asleep_and_not_blocked(tmp_path: Path) -> None:
    async with night(tmp_path, UTC) as car:
        car.sees(LOW)
        car.passes(HOUR)
        car.sleeps(12 * HOUR)
        car.sees(READY)
        car.passes(HOUR)
        day = (await car.days())["2026-11-22"]
    assert (day.blocked_s, day.asleep_s, day.ready_s) == (HOUR, 12 * HOUR, HOUR)
    assert day.lost[0].first_s == HOUR


async def test_the_mode_says_since_when_it_stands(tmp_path: Path) -> None:
    async with night(tmp_path) as car:
        car.passes(60)
        car.sees(LOW)
        begun_ns = car.clock()
        car.passes(60)
        car.sees(AT_THE_CAR)  # another reason, the same mode
        assert car.book.mode_since_ns == begun_ns


async def test_what_is_done_is_counted_with_its_energy_by_source(tmp_path: Path) -> None:
    async with night(tmp_path) as car:
        car.book.rows(rows(8, 4.0, EnergySource.COUNTER))
        car.book.rows(rows(8, 6.0, EnergySource.COUNTER))
        car.book.rows(rows(4, 3.0, EnergySource.MODEL))
        car.book.rows(rows(2, None, EnergySource.NONE))
        car.book.ended(DONE)
        car.book.ended(DONE)
        car.book.ended(Ending(TaskState.FAILED, Reason.INFERENCE_FAILED))
        car.book.preempted(Preemption(Reason.OWNER_PRESENT, 0, 0, 0, 0))
        day = (await car.days())["2026-11-21"]
    assert day.rows == 22
    assert [(each.source.value, each.rows, each.energy_j) for each in day.energy] == [
        ("counter", 16, 10.0),
        ("model", 4, 3.0),
        ("none", 2, None),
    ]
    assert day.tasks == {"done": 2, "failed": 1}
    assert day.preemptions == {"owner_present": 1}


async def test_a_car_without_the_date_dates_its_first_minutes_when_it_knows_it(tmp_path: Path) -> None:
    async with night(tmp_path, UTC) as car:
        car.wall_s = None
        car.passes(120)
        car.book.look()
        car.wall_s = EVENING.timestamp()
        car.passes(60)
        days = await car.days()
    assert days["2026-11-22"].ready_s == 180
    assert UNDATED not in days


async def test_hours_without_a_date_are_kept_as_such(tmp_path: Path) -> None:
    async with night(tmp_path, UTC) as car:
        car.wall_s = None
        for _ in range(3):
            car.passes(HOUR)
            car.book.look()
            await car.on_disk()
        car.wall_s = EVENING.timestamp()
        days = await car.days()
    assert days[UNDATED].ready_s == 3 * HOUR


async def test_the_disk_is_written_to_sparingly(tmp_path: Path) -> None:
    async with night(tmp_path) as car:
        written = set()
        for _ in range(60):
            car.passes(60)
            car.sees(LOW if car.sight is AT_THE_CAR else AT_THE_CAR)
            await car.on_disk()
            written.add(car.book._written_ns)
    assert len(written) == 60 // 5


async def test_the_end_of_work_goes_to_the_disk_at_once(tmp_path: Path) -> None:
    """The owner is back: soon this computer may have no power."""
    async with night(tmp_path, UTC) as car:
        car.sees(WORKING)
        car.passes(20)
        car.book.rows(rows(8, 4.0, EnergySource.COUNTER))
        assert await car.on_disk() == []
        car.sees(AT_THE_CAR)
        day = day_of(await car.on_disk(), dt.date(2026, 11, 22), None)
        assert (day.working_s, day.rows) == (20, 8)


async def test_a_crash_costs_seconds_of_what_was_done_and_its_joules(tmp_path: Path) -> None:
    """Work goes on for hours: what its rows have taken is on disk soon, and then the disk rests."""
    async with night(tmp_path, UTC) as car:
        car.sees(WORKING)
        for _ in range(30):
            car.passes(1)
            car.book.rows(rows(8, 4.0, EnergySource.COUNTER))
            car.book.look()
            day = day_of(await car.on_disk(), dt.date(2026, 11, 22), None)
        assert 200 <= day.rows <= 240
        assert day.energy[0].energy_j == day.rows / 2
        written = set()
        for _ in range(24):
            car.passes(10)
            car.book.look()
            day = day_of(await car.on_disk(), dt.date(2026, 11, 22), None)
            written.add(car.book._written_ns)
        assert day.rows == 240
        assert len(written) == 1


async def fill(store: Store) -> None:
    """Leave no room: pages first, then what is left on them."""
    pages = await store.run(lambda ledger: ledger.connection.execute("PRAGMA page_count").fetchone()[0])
    await limit(store, pages + 2)
    for size in (3000, 300, 30, 3):
        with pytest.raises(StoreFull):
            await filled(store, size)


async def filled(store: Store, size: int) -> None:
    for number in range(1000):
        await add(store, DaySum("2020-01-01", f"{number}".ljust(size, "x"), "", 1.0))


async def add(store: Store, each: DaySum) -> None:
    await store.run(lambda ledger: ledger.history.add([each]))


async def limit(store: Store, pages: int) -> None:
    await store.run(lambda ledger: ledger.connection.execute(f"PRAGMA max_page_count = {pages}").fetchone())


async def test_a_full_store_costs_nothing_of_the_account(tmp_path: Path) -> None:
    async with night(tmp_path, UTC) as car:
        await fill(car.store)
        for hour in range(40):
            car.passes(HOUR)
            car.sees(Sight(Mode.BLOCKED, [list(Reason)[hour % len(Reason)]]))
            await car.store.run(lambda ledger: ledger.counts())
        async with asyncio.timeout(20):
            while car.store.writer.waiting != 1:
                await asyncio.sleep(0.01)
        days = await car.days()
        assert sum(day.blocked_s + day.ready_s for day in days.values()) == 40 * HOUR
        await limit(car.store, 5000)


# The document


def day_sums(day: str, **hours: float) -> list[DaySum]:
    return [DaySum(day, names.MODE, mode, amount * HOUR) for mode, amount in hours.items()]


def history(sums: Sequence[DaySum], days: int = 7, zone: str = "UTC") -> History:
    return reported(sums, vehicle="veh-1", time_zone=zone, at=EVENING, days=days)


def test_the_hours_of_a_day_add_up_and_what_nobody_saw_is_said() -> None:
    (day, today) = history(day_sums("2026-11-21", working=4, blocked=10, asleep=7)).days
    assert day.unseen_s == 3 * HOUR
    assert today.length_s == today.unseen_s == HOUR  # it is one o'clock
    for each in (day, today):
        seen_s = (
            each.ready_s
            + each.working_s
            + each.settling_s
            + each.blocked_s
            + each.draining_s
            + each.preempting_s
            + each.asleep_s
        )
        assert seen_s + each.unseen_s == each.length_s


def test_days_without_records_are_shown_between_others_and_not_before_them() -> None:
    told = history([*day_sums("2026-11-18", ready=1), *day_sums("2026-11-20", ready=2)], days=30)
    assert [str(day.day) for day in told.days] == [
        "2026-11-18",
        "2026-11-19",
        "2026-11-20",
        "2026-11-21",
        "2026-11-22",
    ]
    assert told.days[1].unseen_s == 24 * HOUR
    assert told.total.ready_s == 3 * HOUR


def test_only_the_days_asked_for_are_told_and_summed() -> None:
    told = history([*day_sums("2026-11-20", ready=1), *day_sums("2026-11-22", ready=0.5)], days=2)
    assert [str(day.day) for day in told.days] == ["2026-11-22"]
    assert told.total.ready_s == 0.5 * HOUR


def test_a_day_that_a_wrong_clock_put_into_the_future_is_shown_with_its_date() -> None:
    told = history(day_sums("2090-01-01", ready=1))
    assert [str(day.day) for day in told.days] == ["2026-11-22", "2090-01-01"]


def test_a_car_that_has_never_run_has_today_only() -> None:
    told = history([])
    assert [(str(day.day), day.unseen_s) for day in told.days] == [("2026-11-22", HOUR)]
    assert "nothing has blocked work" in "\n".join(described(told))


def test_a_reason_that_a_newer_agent_has_written_is_shown_by_its_number() -> None:
    told = history(
        [DaySum("2026-11-22", names.FIRST, "1099", 60.0), DaySum("2026-11-22", names.ANY, "1099", 60.0)]
    )
    assert told.total.lost[0].name == "reason_1099"


def test_the_table_has_a_line_for_each_day_and_never_adds_up_joules_of_two_sources() -> None:
    sums = [
        *day_sums("2026-11-21", working=4, blocked=10),
        DaySum("2026-11-21", names.ROWS, "counter", 900),
        DaySum("2026-11-21", names.ENERGY, "counter", 7200.0),
        DaySum("2026-11-21", names.ROWS, "model", 100),
        DaySum("2026-11-21", names.ENERGY, "model", 500.0),
        DaySum("2026-11-21", names.TASKS, "done", 12),
        DaySum("2026-11-21", names.FIRST, "1004", 10 * HOUR),
        DaySum("2026-11-21", names.ANY, "1004", 10 * HOUR),
        *day_sums(UNDATED, ready=1),
    ]
    lines = list(described(history(sums)))
    assert lines[0] == "history of veh-1, days by UTC up to 2026-11-22 01:00:00Z; times in hours"
    (yesterday,) = [line for line in lines if line.startswith("2026-11-21")]
    assert yesterday.split() == [
        *("2026-11-21", "-", "4.0", "-", "10.0", "-", "10.0", "12", "0", "1000", "0"),
        *("2", "Wh", "counter,", "500", "J", "model", "charge_low", "10.00"),
    ]
    assert [line.split()[0] for line in lines[4:7]] == ["2026-11-22", "in", "no"]
    assert f"{'1004 charge_low':<40}{'10.00':>17}{'10.00':>10}" in lines


# The store


async def test_more_than_a_year_is_kept_and_no_more(tmp_path: Path) -> None:
    first = dt.date(2026, 1, 1)
    async with Store.open(tmp_path / "agent.db", max_bytes=50_000_000) as store:
        for number in range(KEPT_DAYS + 20):
            day = (first + dt.timedelta(days=number)).isoformat()
            await add(store, DaySum(day, names.MODE, "ready", 1.0))
        kept = await store.run(lambda ledger: ledger.history.since(""))
    assert len(kept) == KEPT_DAYS
    assert kept[0].day == (first + dt.timedelta(days=20)).isoformat()
