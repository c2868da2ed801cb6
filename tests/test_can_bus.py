"""Interfaces of python-can, as `[signals.options]` describes them."""

import subprocess
import sys
from typing import Any
from uuid import uuid4

import can
import pytest
from listening import Ear, listening

from firmware_shims import signal_map, vss
from firmware_shims.can import CanSource
from firmware_shims.can_bus import InterfaceError, bus_opener
from firmware_shims.clock import boottime_ns
from firmware_shims.simulated_can import SimulatedCar

TESLA = signal_map.load("tesla_model3")
DRIVE = ("5003851817800000", "4E04851814800000")


def test_any_interface_of_python_can_will_do() -> None:
    options = {"interface": "virtual", "channel": uuid4().hex}
    ear = Ear()
    source = CanSource("car", TESLA, options, boottime_ns)
    with can.Bus(interface="virtual", channel=options["channel"]) as car, listening(source, ear):
        ear.wait_until(lambda: bool(ear.heard_ns), "the interface to be open")
        car.send(can.Message(arbitration_id=0x118, is_remote_frame=True, dlc=8, is_extended_id=False))
        car.send(can.Message(arbitration_id=0x118, is_error_frame=True))
        for payload in DRIVE:
            car.send(can.Message(arbitration_id=0x118, data=bytes.fromhex(payload), is_extended_id=False))
        ear.wait_for(vss.GEAR, vss.GEAR_DRIVE)
        assert car.recv(0) is None  # the source sends nothing
    assert source.counts.malformed == 2
    assert source.counts.rejected_counter == 1


def test_an_error_of_the_interface_means_that_it_is_gone() -> None:
    options = {"interface": "virtual", "channel": uuid4().hex}
    bus = bus_opener(options, [])()
    bus.shutdown()
    with pytest.raises(OSError, match="closed"):
        bus.recv(0)


def test_a_missing_kernel_interface_is_tried_again_later() -> None:
    with pytest.raises(OSError, match=r"\w"):
        bus_opener({"interface": "socketcan", "channel": "can-none"}, [0x118])()


def test_the_kernel_filters_and_the_bus_only_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def open_interface(**options: Any) -> None:
        asked.update(options)

    monkeypatch.setattr(can, "Bus", open_interface)
    bus_opener({"interface": "socketcan", "channel": "can0", "receive_own_messages": True}, [0x118, 0x18FF])()
    assert asked == {
        "interface": "socketcan",
        "channel": "can0",
        "ignore_config": True,
        "receive_own_messages": False,
        "can_filters": [
            {"can_id": 0x118, "can_mask": 0x7FF, "extended": False},
            {"can_id": 0x18FF, "can_mask": 0x1FFFFFFF, "extended": True},
        ],
    }
    bus_opener({"interface": "slcan", "channel": "/dev/ttyACM0"}, [0x118])()
    assert asked["listen_only"] is True


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, r"options.interface is None; python-can knows .*socketcan"),
        ({"interface": "cannbus"}, "options.interface is 'cannbus'"),
        ({"interface": "socketcand", "host": "h", "port": 1}, "options.channel is missing"),
        ({"interface": "socketcand", "host": "h", "port": "x", "channel": "can0"}, "options.port is 'x'"),
    ],
)
def test_options_that_cannot_work_are_refused_at_once(options: dict[str, Any], says: str) -> None:
    with pytest.raises(InterfaceError, match=says):
        CanSource("car", TESLA, options, boottime_ns)


def test_options_that_the_interface_does_not_take_are_not_tried_again() -> None:
    with pytest.raises(InterfaceError, match="interface virtual does not take its options"):
        bus_opener({"interface": "virtual", "channel": ["can0", "can1"]}, [])()


def test_python_can_reads_the_simulated_car_too() -> None:
    with (
        SimulatedCar.parked_and_charging(TESLA) as car,
        can.Bus(ignore_config=True, **car.options) as theirs,
    ):
        ids: set[int] = set()
        while len(ids) < len(TESLA.messages):
            frame = theirs.recv(20)
            assert frame is not None
            ids.add(frame.arbitration_id)
    assert ids == {message.id for message in TESLA.messages}


def test_a_car_on_socketcand_does_not_load_python_can() -> None:
    program = (
        "import sys, firmware_shims.registry as r\n"
        "from firmware_shims.clock import boottime_ns\n"
        "o = {'interface': 'socketcand', 'host': '::1', 'port': 1, 'channel': 'can0'}\n"
        "r.open_source('can', name='car', map='tesla_model3', options=o, clock=boottime_ns)\n"
        "sys.exit('can' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
