"""Where the commands of a page are executed: a folder with what the page takes for granted, and no more.

- `deploy/`, as it ships; `agent.toml` in place of /etc/parkwatt/agent.toml: a simulated car that is parked and charging, the null
  backend, metrics, and a broker on a free port; `task.json`, `tasks/`, `day.csv` and `MODEL`, a small ONNX file;
- an agent on that configuration, from the first command on that speaks to one;
- `parkwatt` and `python` of this environment.

Places and ports are put into a command; nothing else of it is changed.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from doc_pages import ROOT, Block
from wire_fleet import NULL_MODEL, NULL_SHA256

from backends import tiny_onnx
from firmware_shims import scenario
from fleet.broker import Broker, IotcoreBroker

WITHIN_S: Final = 60.0
LASTING: Final = re.compile(r"parkwatt run |parkwatt status .*--watch")
"""Commands that go on until they are told to stop, at the end of their block."""
TO_AN_AGENT: Final = re.compile(
    r"parkwatt (status|tasks|history|fleet submit|fleet dispatch)|agent\.sock|metrics\.sock"
)
MAY_FAIL: Final = re.compile(r"parkwatt check ")
"""1 is what it says when something is missing on this machine."""
MODEL_OF_THE_PAGES: Final = "6cd303f12a3c3a0611529a1d62b331278715f27f2788e8437127b030f98faf2a"
CONFIG: Final = """
[vehicle]
id = "veh-0001"
region = "BR"
[mqtt]
port = {port}
[[signals]]
shim = "scenario"
[policy]
settle_s = 0.2
grid_proof_s = 0.2
[[backends]]
use = "null"
max_power_w = 60
[models]
source = "file://{folder}/models"
cache_dir = "{folder}/cache"
[trust]
task_keys_dir = "{folder}/keys"
[store]
path = "{folder}/agent.db"
[control]
socket = "{folder}/agent.sock"
[metrics]
listen = "unix:{folder}/metrics.sock"
"""


@dataclass
class Stage:
    """Executes the commands of one page in their order, for `with`."""

    folder: Path
    broker: Broker = field(default_factory=IotcoreBroker)
    _ends: ExitStack = field(default_factory=ExitStack)
    _lasting: "list[subprocess.Popen[str]]" = field(default_factory=list)
    _agent: "subprocess.Popen[str] | None" = None

    def __enter__(self) -> Self:
        self._furnish()
        self._ends.enter_context(self.broker)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.end_lasting()
            if self._agent is not None:
                _stop(self._agent)
        finally:
            self._ends.close()

    def execute(self, command: str, block: Block) -> None:
        """Do it; AssertionError where it does not end as it should."""
        here = self.placed(command)
        if TO_AN_AGENT.search(command) and not self._lasting:
            self._start_agent()
        if LASTING.match(command):
            self._lasting.append(self._begin(here))
            return
        code, said = self._ended(here)
        assert code == 0 or (code == 1 and MAY_FAIL.match(command)), f"{block}: {here}: {code}\n{said}"
        assert "Traceback" not in said, f"{block}: {here}:\n{said}"

    def execute_python(self, block: Block) -> None:
        """A block of Python, as a program."""
        text = self.placed(block.text).replace(MODEL_OF_THE_PAGES, NULL_SHA256)
        (self.folder / "block.py").write_text(text)
        self._start_agent()
        self.execute("python block.py", block)

    def end_lasting(self) -> None:
        """Stop what a block has started: it ends well when it is told to."""
        while self._lasting:
            _stop(self._lasting.pop())

    def placed(self, command: str) -> str:
        """The command with the places of this stage."""
        for there, here in (
            ("/etc/parkwatt/agent.toml", "agent.toml"),
            ("/run/parkwatt/", f"{self.folder}/"),
            ("port=1883", f"port={self.broker.port}"),
        ):
            command = command.replace(there, here)
        if re.match(r"parkwatt (status|tasks|history)", command) and "--config" not in command:
            command += " --config agent.toml"
        if re.match(r"parkwatt fleet (submit|dispatch)", command):
            command += f" --port {self.broker.port}"
        return command

    def _furnish(self) -> None:
        for name in ("models", "keys", "tasks", "bin"):
            (self.folder / name).mkdir()
        shutil.copytree(ROOT / "deploy", self.folder / "deploy")
        (self.folder / "models" / NULL_SHA256).write_bytes(NULL_MODEL)
        (self.folder / "MODEL").write_bytes(tiny_onnx.chain("Relu", 2, "FP32", ("rows", 8)))
        (self.folder / "agent.toml").write_text(CONFIG.format(folder=self.folder, port=self.broker.port))
        for name in ("task.json", "tasks/first.json", "tasks/second.json"):
            (self.folder / name).write_text(json.dumps(task()))
        (self.folder / "day.csv").write_text("\n".join(day()))
        for program, module in (("python", ""), ("parkwatt", "-m agent ")):
            script = self.folder / "bin" / program
            script.write_text(f'#!/bin/sh\nexec {sys.executable} {module}"$@"\n')
            script.chmod(0o755)

    def _ended(self, command: str) -> tuple[int, str]:
        """Exit status of a command, and what it said."""
        with self._process(command, {}) as process:
            try:
                said, _ = process.communicate(timeout=WITHIN_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        return process.returncode, said

    def _process(self, command: str, more: dict[str, str]) -> "subprocess.Popen[str]":
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)} | more
        if "deploy/agent.toml" in command:  # its places are those of an installed system
            environment |= {
                "PARKWATT_MQTT__PORT": str(self.broker.port),
                "PARKWATT_MODELS__CACHE_DIR": str(self.folder / "shipped-cache"),
                "PARKWATT_STORE__PATH": str(self.folder / "shipped.db"),
                "PARKWATT_CONTROL__SOCKET": str(self.folder / "shipped.sock"),
            }
        return subprocess.Popen(
            ["sh", "-c", command],
            cwd=self.folder,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def _begin(self, command: str) -> "subprocess.Popen[str]":
        """Start what lasts, and wait for READY=1 or for its first line."""
        address = self.folder / f"{time.monotonic_ns()}.notify"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
            notices.bind(str(address))
            notices.settimeout(WITHIN_S)
            process = self._process(f"exec {command}", {"NOTIFY_SOCKET": str(address)})
            if command.startswith("parkwatt run"):
                while b"READY=1" not in notices.recv(1000).split(b"\n"):
                    continue
            else:
                assert process.stdout is not None
                assert process.stdout.readline(), f"{command} says nothing"
        return process

    def _start_agent(self) -> None:
        """The standing agent, connected and allowed to work."""
        if self._agent is not None:
            return
        self._agent = self._begin("parkwatt run --config agent.toml")
        deadline_s = time.monotonic() + WITHIN_S
        status = ""
        while not ('"mode":"ready"' in status and '"up":true' in status):
            assert time.monotonic() < deadline_s, status
            _, status = self._ended("parkwatt status --json --config agent.toml")


def _stop(process: "subprocess.Popen[str]") -> None:
    """End it as Ctrl-C does."""
    process.send_signal(signal.SIGINT)
    try:
        said, _ = process.communicate(timeout=WITHIN_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    assert process.returncode == 0, said


def task() -> dict[str, object]:
    """A task file for the null backend, as people write them."""
    return {
        "model": {"name": "null", "version": "1", "sha256": NULL_SHA256, "format": "onnx"},
        "inputs": [{"name": "x", "datatype": "UINT8", "shape": [2, 4], "data": [1, 2, 3, 4, 5, 6, 7, 8]}],
    }


def day() -> Iterator[str]:
    """Ten minutes of a parked car, as a CSV of signals."""
    yield "t_s,path,value"
    for minute in range(10):
        for path, value in scenario.load(scenario.PARKED_AND_CHARGING).initial.items():
            yield f"{minute * 60},{path},{value}"
    yield ""
