"""The CAN source against a simulated car on a real loopback socketcand server."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest
from listening import Ear, listening

from firmware_shims import signal_map, vss
from firmware_shims.can import CanSource
from firmware_shims.can_bus import Bus
from firmware_shims.clock import boottime_ns
from firmware_shims.reading import Quality
from firmware_shims.simulated_can import Fault, SimulatedCar
from firmware_shims.socketcand import Frame, SocketcandBus

TESLA = signal_map.load("tesla_model3")
QUICK = tuple(path for path, age_s in TESLA.stale_after_s.items() if age_s <= 1)
"""Signals that come at least ten times a second."""


@pytest.fixture
def car() -> Iterator[SimulatedCar]:
    with SimulatedCar.parked_and_charging(TESLA) as car:
        yield car


@pytest.fixture
def ear() -> Ear:
    return Ear()


@pytest.fixture
def source(car: SimulatedCar, ear: Ear) -> Iterator[CanSource]:
    source = CanSource("car", TESLA, car.options, boottime_ns)
    with listening(source, ear):
        ear.wait_until(lambda: ear.has_all(QUICK), "a first reading")
        yield source


def test_a_parked_and_charging_car_is_read(source: CanSource, ear: Ear) -> None:
    ear.wait_until(lambda: ear.has_all(tuple(TESLA.stale_after_s)), "every signal of the map")
    expected = {
        vss.LOW_VOLTAGE_STATE: "OFF",
        vss.GEAR: vss.GEAR_PARK,
        vss.SPEED: pytest.approx(0, abs=0.04),
        vss.BRAKE: 0,
        vss.DRIVER_SEAT: False,
        vss.SOC: pytest.approx(64),
        vss.IS_CHARGING: True,
        vss.CHARGE_LINE_POWER: 7200,
        vss.PACK_VOLTAGE: pytest.approx(380),
        vss.PACK_CURRENT: pytest.approx(15),
        vss.PACK_TEMPERATURE_MIN: 22,
        vss.PACK_TEMPERATURE_MAX: 24,
        vss.LOW_VOLTAGE_BATTERY: pytest.approx(13.6, abs=0.003),
        vss.AMBIENT_TEMPERATURE: 18,
        **dict.fromkeys(vss.DOORS, False),
    }
    assert {path: ear.latest(path).value for path in TESLA.stale_after_s} == expected
    assert source.counts.opened == 1
    assert source.counts.rejected_counter == len(
        [m for m in TESLA.messages if m.counter]
    )  # the first of each
    assert source.counts.rejected_checksum == source.counts.malformed == source.counts.unknown == 0


def test_what_has_been_heard_is_said_several_times_a_second(source: CanSource, ear: Ear) -> None:
    said = len(ear.heard_ns)
    ear.wait_until(lambda: len(ear.heard_ns) > said + 10, "ten more times heard")
    stamps = ear.heard_ns
    assert stamps == sorted(stamps)
    assert source.counts.frames > 0


def test_an_opened_door_is_a_cue(source: CanSource, car: SimulatedCar, ear: Ear) -> None:
    before = len(ear.readings)
    opened_ns = boottime_ns()
    car.set(vss.DRIVER_DOOR, True)
    cue = ear.wait_for(vss.DRIVER_DOOR, True, after=before)
    assert cue.quality is Quality.GOOD
    assert cue.source == source.name
    assert opened_ns < cue.stamp_ns < boottime_ns()


def test_a_sensor_without_a_value_is_invalid(source: CanSource, car: SimulatedCar, ear: Ear) -> None:
    del source
    for path in (vss.GEAR, vss.SPEED, vss.DRIVER_DOOR, vss.PACK_CURRENT, vss.AMBIENT_TEMPERATURE):
        before = len(ear.readings)
        car.set(path, None)
        assert ear.wait_for(path, None, after=before).quality is Quality.INVALID


@pytest.mark.parametrize("fault", Fault)
def test_a_spoiled_message_delivers_nothing(
    source: CanSource, car: SimulatedCar, ear: Ear, fault: Fault
) -> None:
    def rejected() -> int:
        return source.counts.rejected_checksum + source.counts.rejected_counter

    car.fault(vss.LOW_VOLTAGE_STATE, fault)
    so_far = rejected()
    ear.wait_until(lambda: rejected() >= so_far + 2, "the fault to be noticed")
    before = len(ear.readings)
    car.set(vss.LOW_VOLTAGE_STATE, "ACC")
    so_far = rejected()
    ear.wait_until(lambda: rejected() >= so_far + 5, "five more rejected frames")
    assert vss.LOW_VOLTAGE_STATE not in {reading.path for reading in ear.readings[before:]}
    assert ear.latest(vss.LOW_VOLTAGE_STATE).value == "OFF"  # and ages

    car.fault(vss.LOW_VOLTAGE_STATE, None)
    ear.wait_for(vss.LOW_VOLTAGE_STATE, "ACC", after=before)


def test_a_sleeping_car_is_silent_but_still_heard(source: CanSource, car: SimulatedCar, ear: Ear) -> None:
    car.silence()
    frames = -1

    def asleep() -> bool:
        nonlocal frames
        before, frames = frames, source.counts.frames
        return before == frames and ear.heard_ns[-1] - ear.latest(vss.GEAR).stamp_ns > 500_000_000

    ear.wait_until(asleep, "the gear to be half a second old")
    before = len(ear.readings)
    car.wake()
    ear.wait_for(vss.GEAR, vss.GEAR_PARK, after=before)
    assert source.counts.opened == 1


GARBAGE = (
    b"< frame 118 1.0 00 >",  # too short
    b"< frame 118 1.0 500385181780000000 >",  # too long
    b"< frame 00000118 1.0 5003851817800000 >",  # the same number as an extended id
    b"< frame 118 1.0 50038518178000 ZZ >",
    b"< frame 118 >",
    b"< frame >",
    b"<>",
    b"< error 20000004 1.0 >",
    b"\xff\xfe\x00 >",
)


def is_counted(source: CanSource, count: int) -> bool:
    return source.counts.malformed == count


def test_garbage_is_counted_and_the_car_is_heard_on(source: CanSource, car: SimulatedCar, ear: Ear) -> None:
    for count, garbage in enumerate(GARBAGE, start=1):
        car.send_text(garbage)
        ear.wait_until(partial(is_counted, source, count), f"{garbage!r} to be counted")
    before = len(ear.readings)
    car.send_text(b"x" * 10_000)
    car.set(vss.DRIVER_DOOR, True)
    ear.wait_for(vss.DRIVER_DOOR, True, after=before)
    assert ear.latest(vss.GEAR).value == vss.GEAR_PARK
    assert source.counts.opened == 1


def test_an_interface_that_goes_down_is_opened_again(source: CanSource, car: SimulatedCar, ear: Ear) -> None:
    rejected = source.counts.rejected_counter
    before = len(ear.readings)
    car.drop_clients()
    ear.wait_until(lambda: source.counts.opened == 2, "the second opening")
    ear.wait_for(vss.LOW_VOLTAGE_STATE, "OFF", after=before)
    checked = len([message for message in TESLA.messages if message.counter])
    assert source.counts.rejected_counter == rejected + checked  # the first frames are not trusted again


def test_a_source_starts_without_its_interface_and_finds_it_later(ear: Ear) -> None:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    options = {"interface": "socketcand", "host": "127.0.0.1", "port": port, "channel": "can0"}
    source = CanSource("car", TESLA, options, boottime_ns)
    with listening(source, ear):
        for round_ in range(2):
            before = len(ear.readings)
            with SimulatedCar.parked_and_charging(TESLA, port=port):
                ear.wait_for(vss.GEAR, vss.GEAR_PARK, after=before)
            assert source.counts.opened == round_ + 1


def test_an_interface_that_is_down_is_not_heard(ear: Ear) -> None:
    attempts = threading.Semaphore(0)

    def open_bus() -> Bus:
        attempts.release()
        raise OSError("no such device can0")

    with listening(CanSource("car", TESLA, {}, boottime_ns, open_bus), ear):
        for _ in range(3):
            assert attempts.acquire(timeout=20)
    assert ear.heard_ns == []


def test_a_source_stops_while_it_waits_for_its_interface(ear: Ear) -> None:
    def open_bus() -> Bus:
        raise OSError("no such device can0")

    began = time.monotonic()
    with listening(CanSource("car", TESLA, {}, boottime_ns, open_bus), ear):
        pass
    assert time.monotonic() - began < 10


class Flood:
    """A bus that always has one more frame."""

    def recv(self, timeout: float) -> Frame | None:
        del timeout
        return Frame(0x7FF, b"")

    def shutdown(self) -> None:
        pass


def test_who_is_behind_does_not_say_that_everything_was_heard(ear: Ear) -> None:
    source = CanSource("car", TESLA, {}, boottime_ns, Flood)
    with listening(source, ear):
        deadline = time.monotonic() + 20
        while source.counts.unknown < 20_000:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert ear.heard_ns == []


@contextmanager
def server(*script: bytes) -> Iterator[int]:
    """A server that sends one client these pieces, the first three in the turns of the handshake, and closes."""

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            for turn, piece in enumerate(script):
                if turn in (1, 2):
                    connection.recv(100)
                connection.sendall(piece)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


def test_a_frame_right_behind_the_last_ok_is_no_error_and_the_end_is_seen(
    request: pytest.FixtureRequest,
) -> None:
    with server(b"< hi >", b"< ok >", b"< ok >< frame 118 1.0 0102 >< fra", b"me 1 1.0 >") as port:
        bus = SocketcandBus("127.0.0.1", port, "can0")
        request.addfinalizer(bus.shutdown)
        assert bus.recv(5) == Frame(0x118, b"\x01\x02")
        assert bus.recv(5) == Frame(1, b"")
        with pytest.raises(EOFError, match="closed"):
            bus.recv(5)


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ((b"< hi >", b"< error unknown bus >"), "unknown bus"),
        ((b"HTTP/1.1 400 Bad Request\r\n>",), "instead of b'< hi >'"),
    ],
)
def test_a_server_that_refuses_is_said_so(script: tuple[bytes, ...], says: str) -> None:
    with server(*script) as port, pytest.raises(OSError, match=says):
        SocketcandBus("127.0.0.1", port, "can0")


def test_a_server_that_says_nothing_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(TimeoutError):
        SocketcandBus("127.0.0.1", silent.getsockname()[1], "can0")
