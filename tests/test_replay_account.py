"""`parkwatt replay`: recorded cars through the real policy, and the account of where their time went."""

import csv
import datetime as dt
import json
import random
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from cars import NS, PARKED_AND_CHARGING, HandClock
from config_files import MINIMAL, config_file
from running import parkwatt

from agent.guard import Guard
from agent.policy.settings import PolicySettings
from agent.policy.verdict import Policy
from agent.protocol.messages import Mode
from agent.protocol.reasons import Reason
from agent.replay.account import Account, Place, seen_in
from agent.replay.course import Bar, Course
from agent.replay.judge import Span, judge
from agent.replay.main import Replayed, Rulebook, replay
from agent.replay.recording import Recording, open_recording
from agent.replay.report import Report
from agent.replay.table import described
from firmware_shims import vss
from firmware_shims.reading import Reading, Value

DATA = Path(__file__).parent.parent / "../shared/data"
DAY = DATA / "teslafi_day.csv"
DRIVE = DATA / "model3_drive.candump.log"
SETTLE_S = PolicySettings().settle_s
COMPUTE_W = 60.0
PARKED: dict[str, Value] = dict(PARKED_AND_CHARGING)
PLUG: dict[str, Value] = {vss.CABLE_CONNECTED: True, vss.IS_CHARGING: True}
NO_NUMBER = float("nan")

AtTimes = Iterable[tuple[float, Mapping[str, Value]]]


def written(log: Path, moments: AtTimes) -> Path:
    """A CSV of readings."""
    lines = [f"{at_s},{path},{value}\n" for at_s, values in moments for path, value in values.items()]
    log.write_text("t_s,path,value\n" + "".join(lines))
    return log


def replayed(log: Path, *, stale_after_s: float | None = None, map_name: str | None = None) -> Replayed:
    return replay(log, Rulebook(), map_name=map_name, stale_after_s=stale_after_s)


def ready_s(course: Course) -> list[tuple[float, float]]:
    """When work was allowed."""
    return [(bar.from_ns / NS, bar.to_ns / NS) for bar in course.modes if bar.what is Mode.READY]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "car.csv"


# --- stepped at events ------------------------------------------------------------------------------------------


def test_work_may_start_between_two_readings(log: Path) -> None:
    written(log, ((at_s, PARKED) for at_s in (0, 40, 80, 120)))
    assert ready_s(replayed(log, stale_after_s=50).course) == [(SETTLE_S, 120)]


def test_a_car_that_falls_silent_is_unknown_from_the_moment_its_readings_are_stale(log: Path) -> None:
    written(log, ((at_s, PARKED) for at_s in (*range(101), 200)))
    found = replayed(log)
    ((begin_s, end_s),) = ready_s(found.course)
    assert begin_s == SETTLE_S
    assert end_s == pytest.approx(101, abs=1e-6)
    assert found.report.places.gap_s == pytest.approx(99, abs=1e-6)


def test_an_opened_door_ends_work_at_its_own_time(log: Path) -> None:
    moments: list[tuple[float, dict[str, Value]]] = [(at_s, PARKED) for at_s in range(200)]
    moments.insert(151, (150.25, {vss.DRIVER_DOOR: True}))
    written(log, moments)
    course = replayed(log).course
    assert ready_s(course)[0] == (SETTLE_S, 150.25)
    assert course.blockers[Reason.OWNER_PRESENT] == [Bar(int(150.25 * NS), 151 * NS, True)]


def test_a_reading_that_is_no_number_allows_nothing(log: Path) -> None:
    written(log, ((at_s, PARKED | {vss.SOC: NO_NUMBER}) for at_s in range(300)))
    found = replayed(log)
    assert ready_s(found.course) == []
    assert found.report.unknown_s[vss.SOC] == 299


def test_a_log_without_a_required_signal_says_so(log: Path) -> None:
    values = {path: value for path, value in PARKED.items() if path != vss.CHIP_TEMPERATURE}
    written(log, ((at_s, values) for at_s in range(300)))
    found = replayed(log)
    assert ready_s(found.course) == []
    assert found.report.log.missing == (vss.CHIP_TEMPERATURE,)


@dataclass
class Watched:
    """The agent's own guard over a log, looked at in between."""

    guard: Guard
    clock: HandClock

    def deliver(self, at_ns: int, readings: list[Reading]) -> None:
        self.clock.now_ns = at_ns
        self.guard.update(readings)

    def allowed_at(self, at_ns: int) -> bool:
        self.clock.now_ns = at_ns
        self.guard.heard("log", at_ns)
        self.guard.look()
        return self.guard.verdict.allowed


def restless(seed: int) -> AtTimes:
    """Ten minutes of a car whose every signal may change, or be silent for a while."""
    chance = random.Random(seed)  # noqa: S311 - noise
    odd: dict[str, Value] = {
        vss.DRIVER_DOOR: True,
        vss.GEAR: vss.GEAR_DRIVE,
        vss.CHARGE_LINE_POWER: 0.0,
        vss.PACK_CURRENT: -2.0,
        vss.SOC: 26.0,
        vss.CHIP_TEMPERATURE: 82.0,
    }
    for at_s in range(600):
        values = dict(PARKED)
        if chance.random() < 0.02:
            path = chance.choice(sorted(odd))
            values[path] = odd[path]
        if chance.random() < 0.01:
            del values[chance.choice(sorted(values))]
        yield at_s, values


@pytest.mark.parametrize("seed", range(4))
def test_the_replay_says_at_every_moment_what_the_agent_would_have_said(log: Path, seed: int) -> None:
    recording = opened(written(log, restless(seed)), stale_after_s=1.5)
    events = list(recording.events)
    recording.events = events
    spans: list[Span] = []
    judge(policy_for(recording), recording, spans.append)
    clock = HandClock(now_ns=0)
    watched = Watched(
        Guard(policy_for(recording), [recording], clock, lambda *_: None, wall=lambda: 0.0), clock
    )
    looks, due = 0, iter(spans)
    span = next(due)
    for (at_ns, readings), (next_ns, _) in pairwise(events):
        watched.deliver(at_ns, readings)
        for look_ns in range(at_ns + NS // 20, next_ns, NS // 10):
            while span.to_ns <= look_ns:
                span = next(due)
            assert watched.allowed_at(look_ns) is span.verdict.allowed, f"at {look_ns / NS} s"
            looks += 1
    assert looks == 5990
    assert {span.verdict.allowed for span in spans} == {False, True}


def opened(log: Path, stale_after_s: float | None = None) -> Recording:
    return open_recording(log, map_name=None, stale_after_s=stale_after_s, zone=dt.UTC)


def policy_for(recording: Recording) -> Policy:
    return Policy(PolicySettings(), frozenset(recording.stale_after_s), COMPUTE_W)


# --- the account --------------------------------------------------------------------------------------------------


UNPLUGGED: dict[str, Value] = {vss.CABLE_CONNECTED: False, vss.IS_CHARGING: False, vss.CHARGE_LINE_POWER: 0.0}
PLACES: list[tuple[Place, dict[str, Value]]] = [
    (Place.PROVEN, PLUG),
    (Place.CHARGE_ENDED, PLUG | {vss.IS_CHARGING: False, vss.CHARGE_LINE_POWER: 0.0}),
    (Place.UNPROVEN, PLUG | {vss.CHARGE_LINE_POWER: 50.0}),
    (Place.CHARGE_ENDED, PLUG | {vss.CHARGE_LINE_POWER: NO_NUMBER, vss.IS_CHARGING: False}),
    (Place.UNPROVEN, PLUG | {vss.CHARGE_LINE_POWER: 0.0, vss.IS_CHARGING: "?"}),
    (Place.UNPLUGGED, UNPLUGGED),
    (Place.OWNER, UNPLUGGED | {vss.DRIVER_DOOR: True}),
    (Place.OWNER, UNPLUGGED | {vss.GEAR: vss.GEAR_DRIVE}),
    (Place.OWNER, PLUG | {vss.GEAR: vss.GEAR_DRIVE}),
    (Place.PROVEN, PLUG | {vss.DRIVER_DOOR: True}),
    (Place.UNCLEAR, UNPLUGGED | {vss.GEAR: NO_NUMBER}),
    (Place.UNCLEAR, UNPLUGGED | {vss.CABLE_CONNECTED: "?"}),
    (Place.GAP, dict.fromkeys((*PARKED, *PLUG), NO_NUMBER)),
]


@pytest.mark.parametrize(("place", "values"), PLACES)
def test_every_moment_belongs_to_one_place(log: Path, place: Place, values: dict[str, Value]) -> None:
    written(log, ((at_s, PARKED | PLUG | values) for at_s in range(11)))
    places = replayed(log).report.places
    assert getattr(places, f"{place.value}_s") == 10
    in_the_log = (places.gap_s, places.owner_s, places.unplugged_s, places.unclear_s, places.plugged_in_s)
    assert sum(in_the_log) == 10
    assert places.plugged_in_s == places.proven_s + places.charge_ended_s + places.unproven_s


def test_a_start_is_counted_when_work_becomes_allowed(log: Path) -> None:
    door: dict[str, Value] = {vss.DRIVER_DOOR: True}
    written(log, ((at_s, PARKED | (door if at_s in (100, 250) else {})) for at_s in range(300)))
    found = replayed(log)
    assert found.report.starts == len(ready_s(found.course)) == 2


def test_the_first_blocker_takes_the_blame_and_all_are_counted(log: Path) -> None:
    both = PARKED | {vss.DRIVER_DOOR: True, vss.SOC: 10.0}
    written(log, ((at_s, both) for at_s in range(11)))
    blamed = {lost.code: (lost.first_s, lost.any_s) for lost in replayed(log).report.reasons}
    assert blamed == {Reason.OWNER_PRESENT: (10, 10), Reason.CHARGE_LOW: (0, 10)}


def test_the_account_adds_up_whatever_happened(log: Path) -> None:
    report = replayed(written(log, restless(seed=5)), stale_after_s=1.5).report
    assert sum(report.modes_s.values()) == pytest.approx(report.log_s)
    assert sum(lost.first_s for lost in report.reasons) + report.ready_s == pytest.approx(report.log_s)
    assert report.log_s == 599


def test_an_account_is_fed_by_hand_as_well(log: Path) -> None:
    spans: list[Span] = []
    recording = opened(written(log, ((at_s, PARKED) for at_s in range(100))))
    judge(policy_for(recording), recording, spans.append)
    account = Account()
    for span in spans:
        account.add(span.from_ns, span.to_ns, span.verdict, seen_in(span.snapshot))
    assert account.mode_ns == Counter({Mode.SETTLING: 60 * NS, Mode.READY: 39 * NS})
    assert (account.soc_first_pct, account.soc_last_pct) == (64, 64)


# --- the recorded day, against the raw rows ------------------------------------------------------------------------


@dataclass(frozen=True)
class Minute:
    """A row of the export as it stands there, from its date to that of the next."""

    from_s: float
    to_s: float
    cells: Mapping[str, str]

    @property
    def told(self) -> bool:
        return self.cells["charging_state"] != ""

    @property
    def plugged_in(self) -> bool:
        return self.cells["charging_state"] in ("Charging", "Complete")

    @property
    def charging(self) -> bool:
        return self.cells["charging_state"] == "Charging"

    @property
    def workable(self) -> bool:
        """Parked and locked with the drive system off, and 66 W and more of AC power with the pack charging."""
        cells = self.cells
        parked = cells["shift_state"] == cells["speed"] == "None" and cells["locked"] == "True"
        if not (parked and self.charging):
            return False
        volt_amperes = float(cells["charger_voltage"]) * float(cells["charger_actual_current"])
        return volt_amperes >= 66 and float(cells["battery_current"]) >= -0.5


def minutes(text: str) -> list[Minute]:
    rows = list(csv.DictReader(text.splitlines()))
    dates = [dt.datetime.fromisoformat(row["Date"] + "+00:00").timestamp() for row in rows]
    return [Minute(begin, end, row) for (begin, end), row in zip(pairwise(dates), rows[:-1], strict=True)]


def total_s(rows: Iterable[Minute], which: Callable[[Minute], bool]) -> float:
    return sum(row.to_s - row.from_s for row in rows if which(row))


@pytest.fixture(scope="module")
def day_text() -> str:
    if not DAY.exists():
        pytest.skip(f"{DAY} is not here")
    return DAY.read_text("utf-8-sig")


@pytest.fixture(scope="module")
def day(day_text: str) -> Replayed:
    assert day_text
    return replayed(DAY)


def test_the_days_account_is_what_the_rows_say(day: Replayed, day_text: str) -> None:
    rows, report = minutes(day_text), day.report
    assert report.log_s == total_s(rows, lambda _: True)
    assert report.places.gap_s == total_s(rows, lambda row: not row.told)
    assert report.places.plugged_in_s == total_s(rows, lambda row: row.plugged_in)
    assert report.places.proven_s == total_s(rows, lambda row: row.charging)
    assert report.places.charge_ended_s == total_s(rows, lambda row: row.plugged_in and not row.charging)
    assert report.places.unproven_s == 0
    assert (report.starts, report.soc_first_pct, report.soc_last_pct) == (1, 60, 70)


def test_the_day_in_hours(day: Replayed) -> None:
    places = day.report.places
    assert day.report.log_s / 3600 == pytest.approx(16.4, abs=0.05)
    assert places.plugged_in_s / 3600 == pytest.approx(9.25, abs=0.01)
    assert places.proven_s / 3600 == pytest.approx(1.17, abs=0.01)
    assert places.gap_s / 3600 == pytest.approx(3.2, abs=0.05)
    assert 1.0 < day.report.ready_s / 3600 < 1.17


def test_work_happens_only_while_the_rows_show_a_parked_car_on_grid_power(
    day: Replayed, day_text: str
) -> None:
    check_against_the_rows(day, day_text)
    assert ready_s(day.course)


def check_against_the_rows(found: Replayed, text: str) -> None:
    rows = minutes(text)
    for begin_s, end_s in ready_s(found.course):
        during = [row for row in rows if row.from_s < end_s and row.to_s > begin_s]
        assert during
        assert all(row.workable for row in during)
        assert begin_s - max(row.to_s for row in rows if not row.workable and row.to_s <= begin_s) >= SETTLE_S


def test_in_the_gaps_everything_is_unknown(day_text: str) -> None:
    gaps = [(row.from_s, row.to_s) for row in minutes(day_text) if not row.told]
    recording = opened(DAY)
    spans: list[Span] = []
    judge(policy_for(recording), recording, spans.append)
    inside = [
        span
        for span in spans
        for from_s, to_s in gaps
        if span.from_ns / NS < to_s and span.to_ns / NS > from_s
    ]
    assert len(inside) >= 10
    for span in inside:
        assert {blocker.reason for blocker in span.verdict.blockers} == {Reason.UNKNOWN_SIGNAL}
        assert not [path for path in recording.stale_after_s if span.snapshot.good(path) is not None]


def test_a_minute_of_nonsense_during_the_charge_is_not_worked_in(day_text: str, log: Path) -> None:
    column = day_text.splitlines()[0].split(",").index("battery_level")
    lines = day_text.splitlines(keepends=True)
    number = next(number for number, line in enumerate(lines) if "2016-06-26 16:40:" in line)
    cells = lines[number].split(",")
    cells[column] = "NaN"
    lines[number] = ",".join(cells)
    log.write_text("".join(lines))
    found = replayed(log)
    assert len(ready_s(found.course)) == 2
    assert found.report.unknown_s[vss.SOC] == pytest.approx(60, abs=3)


def test_a_day_that_was_cut_off_anywhere_is_judged_to_there(day_text: str, log: Path) -> None:
    chance = random.Random(1)  # noqa: S311 - noise
    judged = 0
    for _ in range(12):
        text = day_text[: chance.randrange(10_000, len(day_text))]
        log.write_text(text)
        found = replayed(log)
        check_against_the_rows(found, day_text)
        assert found.report.log_s <= total_s(minutes(day_text), lambda _: True)
        judged += bool(ready_s(found.course))
    assert judged > 3


# --- the recorded drive ---------------------------------------------------------------------------------------------


def test_a_drive_on_the_bus_is_the_owners_from_its_second_frame_on() -> None:
    if not DRIVE.exists():
        pytest.skip(f"{DRIVE} is not here")
    found = replayed(DRIVE, map_name="tesla_model3")
    assert found.report.log_s == pytest.approx(40, abs=0.1)
    assert found.report.places.owner_s == pytest.approx(40, abs=0.1)
    assert ready_s(found.course) == []


def test_lines_that_are_no_frames_are_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = tmp_path / "bus.log"
    log.write_text("(1.000000) can0 118#5003851817800000\nnoise\n(2.000000) can0 118#4E04851814800000\n(3.0")
    assert replayed(log, map_name="tesla_model3").report.log_s == 1
    assert caplog.messages == [f"{log}: 2 lines are no frames and are left out"]


# --- files that cannot be used --------------------------------------------------------------------------------------

FRAME = "(5.000000) can0 118#5003851817800000\n"
READING = "0,Vehicle.Speed,0\n"
UNUSABLE: list[tuple[str, str, tuple[str, ...]]] = [
    ("", ":1: '' begins no log", ()),
    ("\x00\x01\x02\xff", ":1: ", ()),
    ("Date,Speed\n", ":1: 'Date,Speed' begins no log", ()),
    ("t_s,path,value\n", ": no readings in it", ()),
    ("t_s,path,value\n" + READING, ": less than two moments with readings", ()),
    ("t_s,path,value\n" + READING + "5,Vehicle.Speed\n", ":3: 2 fields", ()),
    ("t_s,path,value\n5,A,1\n" + READING, ":3: t_s jumps back by 5 s", ()),
    ("t_s,path,value\n" + READING + "1e9,Vehicle.Speed,0\n", ": the time jumps ahead by 1e+09 s", ()),
    ("t_s,path,value\n" + READING, ": a table names its signals itself; leave out --map", ("--map", "x")),
    ("Date,charging_state\n", ":1: a TeslaFi export has columns that are missing here", ()),
    (FRAME, ": a candump log needs --map: a path, or one of: ", ()),
    (FRAME, "no signal map 'none'", ("--map", "none")),
    (FRAME, ": a map says itself when", ("--map", "tesla_model3", "--stale-after", "5")),
    ("(noise\n", ": less than two moments", ("--map", "tesla_model3")),
    (FRAME + FRAME.replace("5.", "4."), ": the time jumps back by 1 s to 4.", ("--map", "tesla_model3")),
]


@pytest.mark.parametrize(("text", "says", "options"), UNUSABLE)
def test_a_file_that_cannot_be_used_ends_with_2_and_one_line(
    log: Path, text: str, says: str, options: tuple[str, ...]
) -> None:
    log.write_bytes(text.encode("latin-1"))
    done = parkwatt("replay", log, *options)
    assert done.returncode == 2
    assert done.stdout == ""
    refusal = done.stderr.splitlines()[-1]
    assert refusal.startswith("parkwatt: ")
    assert says in refusal
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("place", ["none.csv", "."])
def test_a_file_that_is_not_there_ends_with_2(tmp_path: Path, place: str) -> None:
    done = parkwatt("replay", tmp_path / place)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert f"{tmp_path / place}: cannot be read: " in line


# --- what people and programs get -----------------------------------------------------------------------------------


def charging_afternoon(log: Path) -> Path:
    values = PARKED | PLUG
    ended = values | {vss.CHARGE_LINE_POWER: 0.0, vss.IS_CHARGING: False}
    began_s = 1_700_000_000
    return written(log, ((began_s + 60 * minute, values if minute < 61 else ended) for minute in range(361)))


def test_the_table_tells_a_fleet_manager_where_the_time_went(log: Path) -> None:
    done = parkwatt("replay", charging_afternoon(log), "--stale-after", "90")
    assert done.returncode == 0, done.stderr
    shown = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert shown[0] == f"log {log}: CSV of readings, 2023-11-14 22:13:20 to 2023-11-15 04:13:20 (UTC)"
    assert shown[1].startswith(
        "policy defaults; the computer takes 60 W, so grid power is proven from 66 W on"
    )
    for line in (
        "in the log 6.00",
        "plugged in 6.00",
        "proven on grid power 1.02",
        "not proven: charging had ended or not begun 4.98",
        "usable: ready for work 1.00",
        "starts 1",
        "charge at first 64 %",
        "1003 not_grid_powered 4.98 4.98",
        "Plugged in is not enough: for 4.98 of 6.00 h on the plug the car was not charging.",
    ):
        assert line in shown


def test_what_was_assumed_is_printed(day: Replayed) -> None:
    text = "\n".join(described(day.report))
    assert "unknown   is a signal whose last reading has stood for 180 s\n" in text
    assert "assumed   chip 45 C, pack 20 C, driver's door closed" in text
    assert "2016-06-26 07:58:31 to 2016-06-27 00:24:32 (times as in the log)" in text


def test_programs_get_the_same_as_one_document(log: Path) -> None:
    document = json.loads(parkwatt("replay", charging_afternoon(log), "--stale-after", "90", "--json").stdout)
    assert document["places"]["charge_ended_s"] == 299 * 60
    lost_s = 61 * 60 + PolicySettings().grid_lost_s
    assert document["modes_s"]["blocked"] == pytest.approx(360 * 60 - lost_s)
    assert document["ready_s"] == pytest.approx(lost_s - SETTLE_S)
    assert document["log"]["missing"] == []


def test_a_configuration_gives_guards_power_and_time_zone(log: Path, tmp_path: Path) -> None:
    charging_afternoon(log)
    policy = '[policy]\nsettle_s = 120\ntime_zone = "America/Sao_Paulo"\nrequire_consent = true\n'
    config = config_file(tmp_path, policy, MINIMAL.replace("60", "6000"))
    report = json.loads(parkwatt("replay", log, "--config", config, "--stale-after", "90", "--json").stdout)
    assert report["rules"] == {"settings": str(config), "compute_w": 6000.0, "grid_proof_w": 6600.0}
    assert report["log"]["begins"] == "2023-11-14 19:13:20"
    assert "the owner's consent" in report["log"]["assumed"][0]
    assert report["modes_s"]["settling"] == 120


def test_a_wrong_configuration_ends_with_2(log: Path, tmp_path: Path) -> None:
    config = config_file(tmp_path, "[policy]\nsettle_s = -1\n")
    done = parkwatt("replay", charging_afternoon(log), "--config", config)
    assert done.returncode == 2
    assert "policy.settle_s = -1" in done.stderr


@pytest.mark.parametrize("stamps", [range(361), range(0, 361 * 60, 60)])
def test_the_picture_is_a_png_of_1600_by_900(log: Path, tmp_path: Path, stamps: range) -> None:
    written(log, ((at_s, PARKED) for at_s in stamps))
    picture = tmp_path / "day.picture"
    done = parkwatt("replay", log, "--stale-after", "90", "--plot", picture)
    assert (done.returncode, done.stderr) == (0, "")
    head = picture.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", head[16:]) == (1600, 900)


def test_the_days_picture_has_a_lane_for_each_reason(day: Replayed) -> None:
    from agent.replay.plot import figure  # noqa: PLC0415 - needs matplotlib, which the other tests do not

    picture = figure(day)
    lanes, blockers, *curves = picture.axes
    assert [label.get_text() for label in lanes.get_yticklabels()] == ["where", "mode"]
    named = [label.get_text() for label in blockers.get_yticklabels()]
    assert named[0].startswith("not grid powered ")
    assert len(named) == len(day.report.reasons)
    assert [axes.get_ylabel() for axes in curves][::2] == ["charge line, kW", "charge, %"]
    usable_h = day.report.ready_s / 3600
    assert f"usable {usable_h:.2f} h of 16.43 h" in picture.texts[0].get_text()


def test_a_picture_that_cannot_be_written_is_one_line_and_1(log: Path, tmp_path: Path) -> None:
    done = parkwatt("replay", charging_afternoon(log), "--plot", tmp_path / "none/day.png")
    assert done.returncode == 1
    assert done.stderr == (
        f"parkwatt: {tmp_path}/none/day.png: cannot be written: No such file or directory;"
        " name another file with --plot\n"
    )


def test_without_matplotlib_the_line_names_the_extra(log: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['matplotlib'] = None\n")
    charging_afternoon(log)
    done = parkwatt("replay", log, "--plot", tmp_path / "day.png", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.endswith("install the extra, pip install 'parkwatt[plot]'")
    assert parkwatt("replay", log, PYTHONPATH=str(tmp_path)).returncode == 0


def test_a_report_can_be_read_back(day: Replayed) -> None:
    import msgspec  # noqa: PLC0415

    assert msgspec.json.decode(msgspec.json.encode(day.report), type=Report) == day.report
