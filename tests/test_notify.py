"""What the service manager is told, over real datagram sockets."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.notify import STATUS_MAX_CHARS, Notices
from agent.protocol.messages import Blocker, Mode
from agent.protocol.reasons import Reason
from agent.reports import utc_now
from agent.status_line import line


class Manager:
    """Binds `address` (@ for an abstract one) and reads what comes."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.channel.bind(address.replace("@", "\0", 1))
        self.channel.setblocking(False)

    def heard(self) -> list[str]:
        datagrams = []
        while True:
            try:
                datagrams.append(self.channel.recv(4096).decode())
            except BlockingIOError:
                return datagrams


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    address = str(tmp_path / "notify") if request.param == "path" else f"@parkwatt-test-{os.getpid()}"
    listening = Manager(address)
    yield listening
    listening.channel.close()


@pytest.fixture
def notices(manager: Manager) -> Iterator[Notices]:
    told = Notices(manager.address)
    yield told
    told.close()


def test_each_word_is_a_datagram(notices: Notices, manager: Manager) -> None:
    notices.ready()
    notices.status("ready")
    notices.alive()
    notices.reloading(1_234_567_890)
    notices.ready()
    notices.stopping()
    assert manager.heard() == [
        "READY=1",
        "STATUS=ready",
        "WATCHDOG=1",
        "RELOADING=1\nMONOTONIC_USEC=1234567",
        "READY=1",
        "STOPPING=1",
    ]


def test_a_status_is_told_when_it_changes_and_a_remark_stays_behind_it(
    notices: Notices, manager: Manager
) -> None:
    for text in ("ready", "ready", "working"):
        notices.status(text)
    notices.remark("a restart is needed for mqtt.port")
    notices.status("ready")
    notices.remark("")
    assert manager.heard() == [
        "STATUS=ready",
        "STATUS=working",
        "STATUS=working; a restart is needed for mqtt.port",
        "STATUS=ready; a restart is needed for mqtt.port",
        "STATUS=ready",
    ]


def test_no_text_can_say_anything_else_and_none_is_long(notices: Notices, manager: Manager) -> None:
    notices.remark("\nREADY=1\nMAINPID=1")
    notices.status("x" * 10_000)
    for said in manager.heard():
        assert said.startswith("STATUS=")
        assert "\n" not in said
        assert len(said) <= len("STATUS=") + STATUS_MAX_CHARS


def test_a_manager_that_is_busy_is_not_waited_for_and_hears_the_rest_later(
    notices: Notices, manager: Manager
) -> None:
    for number in range(10_000):
        notices.status(f"number {number}")
    notices.alive()
    notices.stopping()
    last = manager.heard()[-1]
    assert last != "STOPPING=1", "its queue was full by then"
    notices.alive()
    (said,) = manager.heard()
    assert said.split("\n") == ["STATUS=number 9999", "STOPPING=1", "WATCHDOG=1"]


def test_a_manager_that_starts_again_hears_what_it_missed(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    notices = Notices(address)
    notices.ready()
    manager = Manager(address)
    notices.status("ready")
    assert manager.heard() == ["READY=1\nSTATUS=ready"]
    manager.channel.close()
    notices.close()


@pytest.mark.parametrize(
    ("environ", "watchdog_s"),
    [
        ({"WATCHDOG_USEC": "15000000"}, 15.0),
        ({"WATCHDOG_USEC": "15000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "15000000", "WATCHDOG_PID": str(os.getppid())}, None),
        ({"WATCHDOG_USEC": "15000000", "WATCHDOG_PID": "mine"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "often"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_the_one_that_is_meant_for_this_process(
    environ: dict[str, str], watchdog_s: float | None
) -> None:
    given = environ | {"NOTIFY_SOCKET": "/run/nowhere", "HOME": "/"}
    notices = Notices.of(given)
    assert notices.watchdog_s == watchdog_s
    assert given == {"HOME": "/"}, "workers are not told of it"
    notices.close()


def test_without_a_manager_nobody_is_told() -> None:
    notices = Notices.of({})
    notices.ready()
    notices.status("ready")
    notices.close()


def test_an_address_of_another_kind_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    notices = Notices.of({"NOTIFY_SOCKET": "vsock:2:1234"})
    notices.ready()
    (record,) = caplog.records
    assert "NOTIFY_SOCKET = 'vsock:2:1234'" in record.getMessage()


@pytest.mark.parametrize(
    ("mode", "blocker", "expected"),
    [
        (Mode.WORKING, None, "working"),
        (Mode.BLOCKED, (Reason.CHARGE_LOW, 24.5, 30.0), "blocked: charge_low (1004)"),
        (
            Mode.BLOCKED,
            (Reason.UNKNOWN_SIGNAL, "Vehicle.Speed", "good"),
            "blocked: unknown_signal (1000) Vehicle.Speed",
        ),
        (
            Mode.SETTLING,
            (Reason.SETTLING, 12.3, "owner_present to stay clear"),
            "settling: owner_present to stay clear",
        ),
    ],
)
def test_the_line_has_the_first_blocker_and_no_value_that_drifts(
    mode: Mode, blocker: tuple[Reason, float | str, float | str] | None, expected: str
) -> None:
    blockers = []
    if blocker is not None:
        code, value, limit = blocker
        other = Blocker(Reason.OWNER_PRESENT, "owner_present", True, None, utc_now())
        blockers = [Blocker(code, code.label, value, limit, utc_now()), other]
    assert line(mode, blockers) == expected
