"""The recorded drive of a real car, through the CAN source on the log's own clock."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cars import PARKED_AND_CHARGING, Car, HandSource
from listening import Ear, listening

from agent.guard import Guard
from agent.policy.settings import PolicySettings
from agent.policy.verdict import Policy
from agent.protocol.reasons import Reason
from agent.signals import Signals
from firmware_shims import signal_map, vss
from firmware_shims.can import CanSource
from firmware_shims.can_bus import Bus
from firmware_shims.clock import boottime_ns
from firmware_shims.reading import Quality, Reading, Source
from firmware_shims.replay import RecordedBus, candump_source, read_candump, read_log
from firmware_shims.socketcand import UNREADABLE, Frame

DRIVE = Path(__file__).parent.parent / "../shared/data/model3_drive.candump.log"
TESLA = signal_map.load("tesla_model3")
OF_THE_DRIVE = {vss.GEAR, vss.SPEED, vss.BRAKE}
"""What the recorded messages carry."""


class LogClock:
    """Time that passes only when somebody waits."""

    def __init__(self) -> None:
        self.now_ns = 1_000_000_000

    def __call__(self) -> int:
        return self.now_ns

    def wait(self, seconds: float) -> None:
        self.now_ns += round(seconds * 1e9)


class Agent:
    """The agent's own judge of ages, fed as the agent feeds it."""

    urgent = True

    def __init__(self, source: Source) -> None:
        self.signals = Signals([source])
        self.readings: list[Reading] = []
        self.times_heard = 0
        self.stale: list[tuple[int, list[str]]] = []

    def update(self, readings: Sequence[Reading]) -> None:
        self.readings.extend(readings)
        self.signals.update(readings)

    def heard(self, source: str, now_ns: int) -> None:
        self.times_heard += 1
        if self.signals.heard(source, now_ns):
            fused = self.signals.snapshot(now_ns).readings.values()
            self.stale.append((now_ns, [r.path for r in fused if r.quality is Quality.STALE]))


def taped(log: Path, clock: LogClock, stop: threading.Event) -> CanSource:
    """The CAN source over a recording; `stop` is set when the tape ends."""
    recorded = list(read_log(log))

    class Tape(RecordedBus):
        def shutdown(self) -> None:
            stop.set()

    def open_bus() -> Bus:
        return Tape(recorded, clock, clock.wait)

    return CanSource("drive", TESLA, {}, clock, open_bus)


def drive(log: Path) -> tuple[CanSource, Agent, float]:
    clock, stop = LogClock(), threading.Event()
    source = taped(log, clock, stop)
    agent = Agent(source)
    began_ns = clock()
    source.run(agent, stop)
    return source, agent, (clock() - began_ns) / 1e9


@pytest.fixture(scope="module")
def driven() -> tuple[CanSource, Agent, float]:
    if not DRIVE.exists():
        pytest.skip(f"{DRIVE} is not here")
    return drive(DRIVE)


def test_the_car_is_in_drive_at_71_to_103_km_h(driven: tuple[CanSource, Agent, float]) -> None:
    readings = driven[1].readings
    assert {r.value for r in readings if r.path == vss.GEAR} == {vss.GEAR_DRIVE}
    speeds = [r.value for r in readings if r.path == vss.SPEED and isinstance(r.value, float)]
    assert 71 <= min(speeds) < 72
    assert 102 < max(speeds) <= 103
    assert all(r.quality is Quality.GOOD for r in readings)


def test_all_but_five_of_the_6000_checked_frames_are_believed(
    driven: tuple[CanSource, Agent, float],
) -> None:
    counts = driven[0].counts
    assert counts.frames == 10_000
    assert counts.accepted == 5_995
    assert counts.rejected_counter == 5  # the first of each id, and one after each of three dropped frames
    assert counts.rejected_checksum == 0
    assert counts.malformed == 0
    assert counts.unknown == 4_000  # 0x266 is not in the map


def test_no_signal_goes_stale_by_a_rejected_frame(driven: tuple[CanSource, Agent, float]) -> None:
    _, agent, seconds = driven
    assert seconds == pytest.approx(40, abs=1)
    assert agent.times_heard > seconds / 0.2
    assert agent.stale == []


@dataclass
class RestOfTheCar:
    """Everything that the recording lacks says that work may begin: only gear and speed can object."""

    urgent = True

    guard: Guard
    judged: set[tuple[bool, bool]] = field(default_factory=set)

    def update(self, readings: Sequence[Reading]) -> None:
        self.guard.update(readings)
        self.judge()

    def heard(self, source: str, now_ns: int) -> None:
        rest = [reading for reading in Car().readings(now_ns, "rest") if reading.path not in OF_THE_DRIVE]
        self.guard.update(rest)
        self.guard.heard("rest", now_ns)
        self.guard.heard(source, now_ns)
        self.guard.look()
        self.judge()

    def judge(self) -> None:
        verdict = self.guard.verdict
        self.judged.add((verdict.allowed, verdict.settling))


def test_the_drive_never_leaves_blocked() -> None:
    if not DRIVE.exists():
        pytest.skip(f"{DRIVE} is not here")
    clock, stop = LogClock(), threading.Event()
    source = taped(DRIVE, clock, stop)
    rest = HandSource("rest", dict.fromkeys(set(PARKED_AND_CHARGING) - OF_THE_DRIVE, 1.0))
    settings = PolicySettings(settle_s=0, grid_proof_s=0)  # a single good look would do
    policy = Policy(settings, frozenset(PARKED_AND_CHARGING), compute_w=60)
    guard = Guard(policy, [source, rest], clock, lambda *_: None)
    car = RestOfTheCar(guard)
    source.run(car, stop)
    assert car.judged == {(False, False)}
    blockers = {(blocker.reason, blocker.value) for blocker in guard.verdict.blockers}
    assert (Reason.NOT_PARKED, vss.GEAR_DRIVE) in blockers


def test_a_bus_that_falls_silent_goes_stale(tmp_path: Path) -> None:
    log = tmp_path / "silent.log"
    log.write_text(
        "(100.000000) can0 118#5003851817800000\n"
        "(100.010000) can0 118#4E04851814800000\n"
        "(100.020000) can0 118#4D05851812800000\n"
        "(101.000000) can0 7FF#00\n"
    )
    _, agent, _ = drive(log)
    assert [paths for _, paths in agent.stale] == [[vss.GEAR, vss.BRAKE]]
    assert (agent.stale[0][0] - 1_000_000_000) / 1e9 == pytest.approx(0.02 + 0.5, abs=0.06)


def test_a_log_that_ends_in_the_middle_of_a_line_ends_there() -> None:
    lines = ["(1.000001) can0 118#5003\n", "\n", "garbage\n", "(2.5) can0 1#", "(3.000000) can0 00000118#"]
    recorded = list(read_candump(lines))
    assert [(stamp, frame.data) for stamp, frame in recorded if frame is not UNREADABLE] == [
        (1_000_001_000, b"\x50\x03"),
        (3_000_000_000, b""),
    ]
    assert recorded[-1][1].is_extended_id
    assert len([frame for _, frame in recorded if frame is UNREADABLE]) == 2


def test_a_log_whose_clock_jumps_an_hour_ahead_and_back_is_stale_in_between_and_ends(tmp_path: Path) -> None:
    log = tmp_path / "jumps.log"
    log.write_text(
        "(5000.000000) can0 102#2200000000000000\n"
        "(5000.100000) can0 102#2200000000000000\n"
        "(8600.100000) can0 102#2200000000000000\n"
        "(5000.200000) can0 102#2200000000000000\n"
        "(5000.300000) can0 102#2100000000000000\n"
    )
    _, agent, seconds = drive(log)
    assert seconds == pytest.approx(3600, abs=1)
    assert [paths for _, paths in agent.stale] == [[vss.DOORS[0], vss.DOORS[2]]]
    assert [r.value for r in agent.readings if r.path == vss.DRIVER_DOOR] == [False] * 4 + [True]
    stamps = [reading.stamp_ns for reading in agent.readings]
    assert stamps == sorted(stamps)


def test_a_log_is_played_once_at_its_own_speed(tmp_path: Path) -> None:
    log = tmp_path / "short.log"
    log.write_text("(5.000000) can0 118#5003851817800000\n(5.010000) can0 118#4E04851814800000\n")
    ear = Ear()
    source = candump_source("log", TESLA, log, boottime_ns)
    with listening(source, ear):
        reading = ear.wait_for(vss.GEAR, vss.GEAR_DRIVE)
    assert reading.source == "log"
    assert source.counts.frames == 2


def test_a_log_is_played_faster_than_it_was_recorded() -> None:
    frames = [(stamp_s * 1_000_000_000, Frame(0x118, b"")) for stamp_s in (100, 105, 110)]
    clock = LogClock()
    bus = RecordedBus(frames, clock, clock.wait, speed=10)
    seen = []
    for _ in frames:
        assert bus.recv(1) is not None
        seen.append((clock() - 1_000_000_000) / 1e9)
    assert seen == [0, 0.5, 1]


def test_a_file_that_is_no_log_is_refused(tmp_path: Path) -> None:
    log = tmp_path / "readme.log"
    log.write_text("# a car\n")
    with pytest.raises(ValueError, match=r"readme.log:1: no frame of a candump log, such as \(1\.000000\)"):
        candump_source("log", TESLA, log, boottime_ns)


def test_a_log_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no candump log at"):
        candump_source("log", TESLA, tmp_path / "none.log", boottime_ns)
