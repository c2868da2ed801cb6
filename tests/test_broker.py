"""The brokers on loopback that the demo, the tests and the benchmarks start."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fleet.broker import Broker, BrokerError, MosquittoBroker, free_port


def listeners(pid: int) -> set[str]:
    """Local addresses, as /proc/net/tcp and tcp6 write them, that a process listens on."""
    inodes = {str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()}
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
                found.add(fields[1].split(":")[0])
    return found


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_it_listens_on_loopback_and_nowhere_else(broker: Broker) -> None:
    assert broker._process is not None
    assert listeners(broker._process.pid) == {"0100007F"}


def test_it_can_be_stopped_killed_and_started_again_on_its_port(broker: Broker) -> None:
    port = broker.port
    for end in (broker.stop, broker.kill):
        end()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        end()
        broker.start()
        socket.create_connection(("127.0.0.1", port)).close()
    assert broker.port == port


def test_a_port_that_is_taken_is_told_in_one_line(broker: Broker) -> None:
    with pytest.raises(BrokerError, match=f"cannot listen on 127.0.0.1:{broker.port}: somebody else does"):
        type(broker)(port=broker.port).__enter__()


def test_a_wrong_line_of_configuration_is_told_in_the_brokers_own_words(
    mosquitto: type[MosquittoBroker],
) -> None:
    with pytest.raises(BrokerError, match=r"ended at once: .*no_such_option") as error:
        mosquitto(extra=("no_such_option 1",)).__enter__()
    assert "\n" not in str(error.value)


def test_a_missing_mosquitto_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MosquittoBroker, "find", staticmethod(lambda: None))
    with pytest.raises(BrokerError, match="apt-get install mosquitto"):
        MosquittoBroker().__enter__()


def test_it_leaves_no_file_behind(broker: Broker) -> None:
    assert broker._folder is not None
    folder = Path(broker._folder.name)
    assert folder.exists()
    broker.close()
    assert not folder.exists()


STARTS_A_BROKER = """
import sys, time
import fleet.broker
broker = getattr(fleet.broker, sys.argv[1])().start()
print(broker._process.pid, flush=True)
time.sleep(60)
"""


def test_it_dies_with_the_process_that_started_it(broker: Broker, tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}  # its files stay: nobody was left to remove them
    parent = subprocess.Popen(
        [sys.executable, "-c", STARTS_A_BROKER, type(broker).__name__],
        stdout=subprocess.PIPE,
        env=environment,
    )
    with parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while not gone(pid):
        assert time.monotonic() < deadline, "the broker outlived its parent"
        time.sleep(0.01)


def test_a_free_port_is_free() -> None:
    port = free_port()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_a_free_port_is_given_to_nobody_who_asks_for_any() -> None:
    """Else another would have it before the broker has started."""
    kept = {free_port() for _ in range(200)}
    assert len(kept) == 200
    for _ in range(3_000):
        with socket.create_server(("127.0.0.1", 0)) as other:
            assert other.getsockname()[1] not in kept
