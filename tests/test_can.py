"""The CAN source against a simulated car on a real loopback socketcand server."""

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import pytest
from listening import Ear, listening
from tapes import MESSAGE_OF, TESLA, Tape, checked, frame

from firmware_shims import vss
from firmware_shims.can import CanSource
from firmware_shims.can_bus import Bus
from firmware_shims.clock import boottime_ns
from firmware_shims.reading import Quality, Reading, Value
from firmware_shims.simulated_can import Fault, SimulatedCar
from firmware_shims.socketcand import SocketcandBus

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
        vss.CABLE_CONNECTED: True,
        vss.CHARGE_LINE_POWER: 7200,
        vss.PACK_VOLTAGE: pytest.approx(380),
        vss.PACK_CURRENT: pytest.approx(15),
        vss.PACK_TEMPERATURE_MIN: 22,
        vss.PACK_TEMPERATURE_MAX: 24,
        vss.LOW_VOLTAGE_BATTERY: pytest.approx(13.6, abs=0.003),
        vss.AMBIENT_TEMPERATURE: 18,
        vss.DRIVER_LOCK: True,
        vss.COMPUTE_RAIL: "ON",
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


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (vss.DRIVER_DOOR, True),
        (vss.DRIVER_LOCK, False),
        (vss.COMPUTE_RAIL, "GOING_DOWN"),
        (vss.COMPUTE_RAIL, "FAULT"),
    ],
)
def test_a_door_a_lock_and_the_own_supply_are_cues(
    source: CanSource, car: SimulatedCar, ear: Ear, path: str, value: Value
) -> None:
    before = len(ear.readings)
    changed_ns = boottime_ns()
    car.set(path, value)
    cue = ear.wait_for(path, value, after=before)
    assert cue.quality is Quality.GOOD
    assert cue.source == source.name
    assert changed_ns < cue.stamp_ns < boottime_ns()


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


def test_after_an_interface_was_away_the_first_frame_is_not_believed_again(ear: Ear) -> None:
    first, second, third = (
        frame(0x118, payload) for payload in ("5003851817800000", "4E04851814800000", "4D05851812800000")
    )
    source = Tape([first, second], [third]).played(ear)
    assert source.counts.accepted == 1
    assert source.counts.rejected_counter == 2
    assert source.counts.opened == 2


def test_the_other_page_of_a_message_says_nothing_about_the_seat(ear: Ear) -> None:
    empty, other, occupied = (
        frame(0x3C2, payload) for payload in ("0000000000000400", "0100000000000800", "0000000000000800")
    )
    Tape([empty, other, occupied]).played(ear)
    assert [(reading.path, reading.value) for reading in ear.readings] == [
        (vss.DRIVER_SEAT, False),
        (vss.DRIVER_SEAT, True),
    ]


def test_the_other_page_of_a_message_says_nothing_about_the_supply(ear: Ear) -> None:
    page_0_on, page_1_off, page_0_going_down = 5 << 30, 1, 6 << 30
    message = MESSAGE_OF[vss.COMPUTE_RAIL]
    words = (page_0_on, page_0_on, page_1_off, page_0_going_down)
    Tape([checked(message, word, counter) for counter, word in enumerate(words)]).played(ear)
    assert [reading.value for reading in ear.readings if reading.path == vss.COMPUTE_RAIL] == [
        "ON",
        "GOING_DOWN",
    ]
    assert len([reading for reading in ear.readings if reading.path == vss.LOW_VOLTAGE_STATE]) == 3


def test_a_charge_port_that_is_unlocked_as_by_a_phone_is_a_car_that_is_not_locked(ear: Ear) -> None:
    Tape([frame(0x339, "4144F80000038000")]).played(ear)
    assert ear.latest(vss.DRIVER_LOCK).value is False


def test_a_shorter_frame_of_a_newer_car_is_read_too(ear: Ear) -> None:
    Tape([frame(0x132, "709696005C26")]).played(ear)
    assert ear.latest(vss.PACK_CURRENT).value == pytest.approx(15)


def test_who_is_behind_does_not_say_that_everything_was_heard(ear: Ear) -> None:
    source = Tape([frame(0x7FF, "")] * 20_000).played(ear)
    assert source.counts.unknown == 20_000
    assert ear.heard_ns == []


def test_a_kill_that_fails_is_not_taken_for_a_missing_interface() -> None:
    class Sink(Ear):
        def update(self, readings: Sequence[Reading]) -> None:
            raise PermissionError(f"kill: {len(readings)}")

    with pytest.raises(PermissionError, match="kill"):
        Tape([frame(0x132, "709696005C26")], []).played(Sink())


def test_a_bus_keeps_no_more_than_one_helping_of_what_waits() -> None:
    with connected() as (bus, server):
        line = b"< frame 1 1.0 >"
        sender = threading.Thread(target=send_all_day, args=(server, line))
        sender.start()
        for _ in range(20_000):
            assert bus.recv(5) is not None
            assert len(bus._frames) <= 65_536 // len(line) + 1
        bus.shutdown()
        sender.join()


def send_all_day(server: socket.socket, line: bytes) -> None:
    try:
        while True:
            server.sendall(line * 1000)
    except OSError:  # the other end has gone
        return


@contextmanager
def connected(last: bytes = b"< ok >") -> Iterator[tuple[SocketcandBus, socket.socket]]:
    """A bus, and the server's end of its connection, whose last answer of the handshake was `last`."""
    ends: list[socket.socket] = []

    def shake_hands() -> None:
        connection, _ = listener.accept()
        ends.append(connection)
        for answer in (b"< hi >", b"< ok >"):
            connection.sendall(answer)
            connection.recv(100)
        connection.sendall(last)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=shake_hands)
        thread.start()
        bus = SocketcandBus("127.0.0.1", listener.getsockname()[1], "can0")
        thread.join()
    try:
        with ends[0]:
            yield bus, ends[0]
    finally:
        bus.shutdown()


def test_a_frame_right_behind_the_last_ok_is_no_error() -> None:
    with connected(b"< ok >< frame 118 1.0 0102 >< fra") as (bus, server):
        assert bus.recv(0) == frame(0x118, "0102")
        assert bus.recv(0) is None
        server.sendall(b"me 1 1.0 >")
        assert bus.recv(5) == frame(1, "")


def test_a_server_that_closes_is_an_end_of_file_behind_its_last_frame() -> None:
    with connected() as (bus, server):
        server.sendall(b"< frame 1 1.0 >")
        server.close()
        assert bus.recv(5) == frame(1, "")
        with pytest.raises(EOFError, match="closed"):
            bus.recv(5)


def test_a_line_without_an_end_is_not_kept() -> None:
    with connected() as (bus, server):
        server.sendall(b"x" * 5_000)
        assert bus.recv(5) is None
        server.sendall(b"< frame 1 1.0 >")
        assert bus.recv(5) == frame(1, "")


def refuse(listener: socket.socket, *script: bytes) -> None:
    connection, _ = listener.accept()
    with connection:
        for piece in script:
            connection.sendall(piece)
            connection.recv(100)


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ((b"< hi >", b"< error unknown bus >"), "unknown bus"),
        ((b"HTTP/1.1 400 Bad Request\r\n>",), "instead of b'< hi >'"),
    ],
)
def test_a_server_that_refuses_is_said_so(script: tuple[bytes, ...], says: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=refuse, args=(listener, *script))
        thread.start()
        with pytest.raises(OSError, match=says):
            SocketcandBus("127.0.0.1", listener.getsockname()[1], "can0")
        thread.join()


def test_a_server_that_says_nothing_is_given_up() -> None:
    began = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(TimeoutError):
        SocketcandBus("127.0.0.1", silent.getsockname()[1], "can0")
    assert time.monotonic() - began < 15


def test_the_simulated_car_leaves_python_cans_client_time_to_read_the_last_ok(car: SimulatedCar) -> None:
    began = time.monotonic()
    bus = SocketcandBus("127.0.0.1", car.port, "can0")
    assert bus.recv(20) is not None
    assert time.monotonic() - began >= 0.3
    bus.shutdown()
