"""MQTT 5 brokers on loopback, for the demo, the tests and the benchmarks: child processes that die with us.

Neither is a deployment: nothing but 127.0.0.1 is listened on, and anybody there may publish anything.
"""

import abc
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Self

HOST = "127.0.0.1"
START_S = 30.0
STOP_S = 5.0
LOG_TAIL_CHARS = 400

# The kernel kills the broker when the thread that started it ends, however that happens (prctl(2)).
DIE_WITH_PARENT = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() == int(sys.argv[1]):  # else it has ended already
    os.execvp(sys.argv[2], sys.argv[2:])
"""
# rumqttd logs every packet as an error, which costs more than half of its speed.
SERVE_IOTCORE = """
import logging, sys
from iotcore import IotCoreBroker
logging.getLogger("rumqttd").setLevel(logging.CRITICAL)
IotCoreBroker(config_path=sys.argv[1]).run_forever()
"""


class BrokerError(Exception):
    """The broker is not installed or did not come up; one line, with the end of its own log."""


class Broker(abc.ABC):
    """A broker on 127.0.0.1, as a context manager or with `start` and `stop`, which may be repeated.

    All calls block, `start` for up to 30 s: in a coroutine use `asyncio.to_thread`, but then from a thread
    that lives as long as the broker should.
    """

    name: str
    config_file: str

    def __init__(self, port: int | None = None) -> None:
        self.port = port or free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    @property
    def running(self) -> bool:
        """Whether its process is alive."""
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """What it printed since it was first started."""
        path = self._path("log")
        return path.read_text(errors="replace") if path.exists() else ""

    def start(self) -> Self:
        """Start it and return once it accepts connections, or raise BrokerError."""
        if self.running:
            return self
        if _accepts(self.port):
            raise BrokerError(f"{self.name} cannot listen on {HOST}:{self.port}: somebody else does")
        command = self._command()
        self._path(self.config_file).write_text(self._config())
        with self._path("log").open("ab") as log:
            self._process = process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", DIE_WITH_PARENT, str(os.getpid()), *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + START_S
        while not _accepts(self.port):
            if process.poll() is not None:
                raise BrokerError(f"{self.name} on {HOST}:{self.port} ended at once: {self._last_words()}")
            if time.monotonic() > deadline:
                self.kill()
                raise BrokerError(
                    f"{self.name} does not accept on {HOST}:{self.port} after {START_S:g} s: {self._last_words()}"
                )
            time.sleep(0.01)
        return self

    def stop(self) -> None:
        """End it with SIGTERM, which lets it save its state."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it with SIGKILL, which does not."""
        self._end(signal.SIGKILL)

    def close(self) -> None:
        """Stop it and remove its files."""
        self.stop()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BrokerError:
            self.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.close()

    @abc.abstractmethod
    def _command(self) -> list[str]:
        """The command line, or BrokerError when the broker is not installed."""

    @abc.abstractmethod
    def _config(self) -> str: ...

    def _path(self, name: str) -> Path:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix=f"parkwatt-{self.name}-")
        return Path(self._folder.name) / name

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(how)
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _last_words(self) -> str:
        return " | ".join(self.log.split("\n"))[-LOG_TAIL_CHARS:].strip(" |") or "it logged nothing"


class IotcoreBroker(Broker):
    """The embedded broker from PyPI (`iotcore`, which is rumqttd).

    It keeps everything in memory only. It ignores a client's Receive Maximum and Retain Handling, gives no reason when it
    ends a connection (a second client of the same id, for one), sends the Will of a client whose DISCONNECT and
    end come together, and drops one whose PUBACKs are not in the order of the messages.
    """

    name = "iotcore"
    config_file = "rumqttd.toml"

    def _command(self) -> list[str]:
        if importlib.util.find_spec("iotcore") is None:
            raise BrokerError("no iotcore here: pip install 'parkwatt[demo]'")
        return [sys.executable, "-c", SERVE_IOTCORE, str(self._path(self.config_file))]

    def _config(self) -> str:
        # rumqttd speaks MQTT 5 only on a [v5.*] listener, and keeps up to segment size x count per topic.
        return f"""\
id = 0

[router]
id = 0
max_connections = 1000
max_outgoing_packet_count = 200
max_segment_size = 16777216
max_segment_count = 8

[v5.1]
name = "mqtt5"
listen = "{HOST}:{self.port}"
next_connection_delay_ms = 1

[v5.1.connections]
connection_timeout_ms = 10000
max_payload_size = 1048576
max_inflight_count = 100
dynamic_filters = true
"""


class MosquittoBroker(Broker):
    """A mosquitto found on the PATH or in /usr/sbin, with its queue limits off.

    `persistent` keeps its state over `stop` and `start` (not over `kill`). `extra` are more lines of
    mosquitto.conf for the listener, for TLS or access control.
    """

    name = "mosquitto"
    config_file = "mosquitto.conf"

    def __init__(
        self, port: int | None = None, *, persistent: bool = False, extra: tuple[str, ...] = ()
    ) -> None:
        super().__init__(port)
        self._persistent = persistent
        self._extra = extra

    @staticmethod
    def find() -> str | None:
        """The path of the program, or None."""
        return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")

    def _command(self) -> list[str]:
        program = self.find()
        if program is None:
            raise BrokerError("no mosquitto on the PATH or in /usr/sbin: apt-get install mosquitto")
        return [program, "-c", str(self._path(self.config_file))]

    def _config(self) -> str:
        return "\n".join(
            (
                f"user {pwd.getpwuid(os.getuid()).pw_name}",  # as root it would change to a user without our files
                "log_dest stderr",
                f"persistence {str(self._persistent).lower()}",
                f"persistence_location {self._path('')}/",
                "max_queued_messages 0",
                "max_queued_bytes 0",
                "max_inflight_messages 100",
                "set_tcp_nodelay true",
                f"listener {self.port} {HOST}",
                "allow_anonymous true",
                *self._extra,
                "",
            )
        )


def free_port() -> int:
    """A TCP port of 127.0.0.1 on which nobody listens, kept for a minute for who asks for it with SO_REUSEADDR.

    Who closes a connection first keeps its address for so long (TIME-WAIT of RFC 9293, 3.6), and Linux gives such a
    port to nobody who takes any.
    """
    with socket.create_server((HOST, 0)) as probe, socket.create_connection(probe.getsockname()) as caller:
        probe.accept()[0].close()
        caller.recv(1)
        port: int = probe.getsockname()[1]
        return port


def _accepts(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=0.2).close()
    except OSError:
        return False
    return True
