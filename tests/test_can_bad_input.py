"""What no car should send, and what cars send when a sensor is broken: it is counted or invalid, never believed."""

from collections.abc import Sequence

import pytest
from cars import HandSource
from hypothesis import given
from hypothesis import strategies as st
from listening import Ear, listening
from tapes import MESSAGE_OF, TESLA, Tape, checked, heard_from

from agent.signals import Signals
from firmware_shims import vss
from firmware_shims.can import CanSource
from firmware_shims.clock import boottime_ns
from firmware_shims.reading import Quality, Reading
from firmware_shims.signal_map import Message, Signal
from firmware_shims.simulated_can import SimulatedCar
from firmware_shims.socketcand import Frame

ROWS: dict[str, Signal] = {signal.path: signal for message in TESLA.messages for signal in message.signals}
HOUR_NS = 3_600_000_000_000


@pytest.mark.parametrize(
    ("path", "raw", "says"),
    [
        (vss.SOC, 1023, "102.3 %"),
        (vss.CHARGE_LINE_POWER, 255, "25.5 kW out of a socket"),
        (vss.PACK_VOLTAGE, 0xFFFF, "655 V"),
        (vss.PACK_CURRENT, 0x8000, "the shunt has not been read"),
        (vss.PACK_CURRENT, 0x7FFF, "3,277 A into the battery"),
        (vss.PACK_TEMPERATURE_MIN, 511, "103 degrees"),
        (vss.PACK_TEMPERATURE_MAX, 511, "103 degrees"),
        (vss.LOW_VOLTAGE_BATTERY, 0, "0 V on a bus that speaks"),
        (vss.AMBIENT_TEMPERATURE, 0, "not available"),
        (vss.AMBIENT_TEMPERATURE, 255, "88 degrees of air"),
        (vss.SPEED, 4095, "not available"),
        (vss.SPEED, 4070, "286 km/h"),
        (vss.GEAR, 0, "invalid"),
        (vss.GEAR, 5, "a gear between drive and nothing"),
        (vss.GEAR, 7, "not available"),
        (vss.BRAKE, 2, "invalid"),
        (vss.DRIVER_DOOR, 0, "not available"),
        (vss.DRIVER_DOOR, 6, "a latch that timed out"),
        (vss.DRIVER_DOOR, 8, "a latch with a fault"),
        (vss.DRIVER_DOOR, 15, "nothing that has a name"),
        (vss.DRIVER_LOCK, 0, "not available"),
        (vss.DRIVER_SEAT, 0, "not available"),
        (vss.DRIVER_SEAT, 3, "a switch with a fault"),
        (vss.IS_CHARGING, 6, "nothing that has a name"),
    ],
)
def test_a_value_that_cannot_be_is_invalid(path: str, raw: int, says: str) -> None:
    message = MESSAGE_OF[path]
    word = ROWS[path].write(raw)
    ear = heard_from(checked(message, word, 0), checked(message, word, 1))
    assert ear.latest(path).quality is Quality.INVALID, says
    assert ear.latest(path).value is None


@pytest.mark.parametrize("message", TESLA.messages, ids=lambda message: message.name)
def test_a_frame_of_another_length_says_nothing(message: Message) -> None:
    others = [length for length in range(65) if length not in message.lengths]
    ear = Ear()
    source = Tape([Frame(message.id, bytes(length)) for length in others]).played(ear)
    assert ear.readings == []
    assert source.counts.malformed == len(others)


KNOWN_IDS = st.sampled_from([message.id for message in TESLA.messages])
ANY_FRAME = st.builds(
    Frame,
    arbitration_id=KNOWN_IDS | st.integers(0, (1 << 29) - 1),
    data=st.binary(min_size=8, max_size=8) | st.binary(max_size=64),
    is_extended_id=st.sampled_from([False, False, False, True]),
    is_error_frame=st.sampled_from([False, False, False, True]),
)
CHECKED_FRAME = st.builds(
    checked, st.sampled_from(TESLA.messages), st.integers(0, (1 << 64) - 1), st.integers(0, 15)
)


@given(st.lists(ANY_FRAME | CHECKED_FRAME, max_size=60))
def test_whatever_is_on_the_bus_a_reading_is_a_value_or_invalid(frames: list[Frame]) -> None:
    ear = Ear()
    source = Tape(frames).played(ear)
    counts = source.counts
    judged = counts.accepted + counts.rejected_counter + counts.rejected_checksum
    assert judged + counts.malformed + counts.unknown == counts.frames == len(frames)
    for reading in ear.readings:
        assert reading.path in TESLA.stale_after_s
        assert (reading.value is None) is (reading.quality is Quality.INVALID)


@pytest.mark.parametrize("stamp", ["0.000000", "99999999999.999999", "-5", "nan", "now"])
def test_the_time_that_a_server_gives_to_a_frame_is_not_believed(stamp: str) -> None:
    ear = Ear()
    with (
        SimulatedCar.parked_and_charging(TESLA) as car,
        listening(CanSource("car", TESLA, car.options, boottime_ns), ear),
    ):
        ear.wait_for(vss.DRIVER_DOOR, False)
        before, sent_ns = len(ear.readings), boottime_ns()
        car.send_text(f"< frame 102 {stamp} 0100000000000000 >".encode())
        opened = ear.wait_for(vss.DRIVER_DOOR, True, after=before)
        assert sent_ns < opened.stamp_ns < boottime_ns()


class Suspended(Tape):
    """A computer that is suspended for eight hours whenever the bus has nothing for it."""

    def recv(self, timeout: float) -> Frame | None:
        frame = super().recv(timeout)
        if frame is None:
            self.now_ns += 8 * HOUR_NS
        return frame


class Judge(Ear):
    """The agent's own judge of ages."""

    def __init__(self) -> None:
        super().__init__()
        self.signals = Signals([HandSource("car", TESLA.stale_after_s)])

    def update(self, readings: Sequence[Reading]) -> None:
        super().update(readings)
        self.signals.update(readings)

    def heard(self, source: str, now_ns: int) -> None:
        super().heard(source, now_ns)
        self.signals.heard(source, now_ns)


def test_a_computer_that_was_suspended_does_not_believe_the_door_of_eight_hours_ago() -> None:
    closed = Frame(0x102, bytes.fromhex("2200000000000000"))
    judge = Judge()
    tape = Suspended([closed, None, None])
    tape.played(judge)
    door = judge.signals.snapshot(tape.now_ns)[vss.DRIVER_DOOR]
    assert (door.value, door.quality) == (False, Quality.STALE)
