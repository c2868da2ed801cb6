"""While no worker may exist nobody has to be quick: the reader gathers frames, and wakes up less often."""

from guard_bench import Bench
from listening import Ear
from tapes import MESSAGE_OF, Tape, checked

from firmware_shims import vss
from firmware_shims.socketcand import Frame

SPEEDS = [checked(MESSAGE_OF[vss.SPEED], (500 + number) << 12, counter=number % 16) for number in range(8)]
NOTHING_MORE = None


class Timed(Tape):
    """A bus that notes for how long it was asked to wait."""

    def __init__(self, *sessions: list[Frame | None]) -> None:
        super().__init__(*sessions)
        self.waits_s: list[float] = []

    def recv(self, timeout: float) -> Frame | None:
        self.waits_s.append(timeout)
        return super().recv(timeout)


def test_at_rest_it_takes_what_has_come_and_waits_for_no_frame() -> None:
    ear, bus = Ear(), Timed([*SPEEDS, NOTHING_MORE, *SPEEDS, NOTHING_MORE])
    ear.urgent = False
    source = bus.played(ear)
    assert set(bus.waits_s) == {0.0}
    assert source.counts.frames == 16
    assert len(ear.heard_ns) == 2, "each gathering ends with a word that all has been heard"


def test_it_goes_back_to_waiting_for_each_frame_as_soon_as_work_may_be_under_way() -> None:
    class WorkBegins(Ear):
        """It may begin with the first word that all has been heard."""

        def heard(self, source: str, now_ns: int) -> None:
            super().heard(source, now_ns)
            self.urgent = True

    ear, bus = WorkBegins(), Timed([*SPEEDS, NOTHING_MORE, *SPEEDS])
    ear.urgent = False
    bus.played(ear)
    gathered = len(SPEEDS) + 1
    assert set(bus.waits_s[:gathered]) == {0.0}
    assert all(wait_s > 0 for wait_s in bus.waits_s[gathered:])


def test_a_settling_car_is_urgent_because_it_may_have_a_worker() -> None:
    bench = Bench()
    seen = [bench.guard.urgent]
    for drive_s in (1, 60):
        bench.drive(drive_s)
        seen.append(bench.guard.urgent)
    bench.car.values[vss.GEAR] = vss.GEAR_DRIVE
    bench.drive(0.1)
    assert [*seen, bench.guard.urgent] == [False, True, True, False]
