"""A vehicle's operating system as the agent sees it: it pushes its signals over the control socket, again and again."""

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from cars import PARKED_AND_CHARGING

from firmware_shims.reading import Value

PUSH_EVERY_S = 0.2
STALE_AFTER_S = 5.0
SOURCE = f"""
[[signals]]
shim = "socket"
[signals.options]
signals = {json.dumps(list(PARKED_AND_CHARGING))}
stale_after_s = {STALE_AFTER_S}
"""


def takes_pushes(config: Path) -> Path:
    """Make what is pushed the only source of the agent with this configuration."""
    scripted, text = '[[signals]]\nshim = "scenario"\n', config.read_text()
    assert scripted in text
    config.write_text(text.replace(scripted, SOURCE))
    return config


@dataclass
class VehicleOs:
    """One connection to the agent. `values` are what the car shows."""

    connection: socket.socket
    answers: BinaryIO
    values: dict[str, Value | None] = field(default_factory=lambda: dict(PARKED_AND_CHARGING))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def say(self, cmd: str, **members: object) -> dict[str, Any]:
        """The answer to one request."""
        with self._lock:
            self.connection.sendall(json.dumps({"cmd": cmd, **members}).encode() + b"\n")
            answer: dict[str, Any] = json.loads(self.answers.readline())
        return answer

    def push(self, path: str, value: Value | None) -> None:
        """Tell a change at once; when this returns the agent has acted on it."""
        self.values[path] = value
        assert self.say("signals", values={path: value}) == {"ok": True}

    async def does(self, cmd: str, **members: object) -> dict[str, Any]:
        """`say` for a test that shares its event loop with the agent."""
        return await asyncio.to_thread(self.say, cmd, **members)

    @contextmanager
    def pushing(self) -> Iterator[None]:
        """Push everything five times a second until the block ends."""
        stop = threading.Event()
        faults: list[dict[str, Any]] = []

        def repeat() -> None:
            while not stop.is_set():
                answer = self.say("signals", values=self.values)
                if answer != {"ok": True}:
                    faults.append(answer)
                stop.wait(PUSH_EVERY_S)

        thread = threading.Thread(target=repeat, name="vehicle-os")
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            assert not faults


@contextmanager
def vehicle_os(path: Path) -> Iterator[VehicleOs]:
    """Connected to the agent at `path` until the block ends."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        connection.connect(str(path))
        with connection.makefile("rb") as answers:
            yield VehicleOs(connection, answers)
