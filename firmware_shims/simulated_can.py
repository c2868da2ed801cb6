"""The other side of the CAN shim: a car on a socketcand server, for tests, benchmarks and hardware teams.

It sends the messages of a signal map at their periods, with right counters and checksums.
"""

import enum
import heapq
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from firmware_shims import scenario
from firmware_shims.clock import Clock, boottime_ns
from firmware_shims.reading import Value
from firmware_shims.signal_map import Message, SignalMap
from firmware_shims.socketcand_server import HOST, SocketcandServer

_SERVE_AT_MOST_S = 0.05


class Fault(enum.Enum):
    """What can be wrong with the frames of a message."""

    CHECKSUM = "checksum"
    STUCK_COUNTER = "stuck counter"


class SimulatedCar:
    """A car whose signals are `state` by VSS path; paths that the map lacks are left out.

    Messages without any signal in `state` are never sent; bits of no signal are zero. Runs from construction to
    `close`, in a thread of its own. Every method may be called from any thread.
    """

    def __init__(
        self,
        signal_map: SignalMap,
        state: Mapping[str, Value | None],
        port: int = 0,
        clock: Clock = boottime_ns,
    ) -> None:
        self._clock = clock
        by_path = {signal.path: message for message in signal_map.messages for signal in message.signals}
        self._state = {path: value for path, value in state.items() if path in by_path}
        self._message_of = {path: by_path[path] for path in self._state}
        self._counters = dict.fromkeys((message.id for message in signal_map.messages), 0)
        self._faults: dict[int, Fault] = {}
        self._silent = False
        self._lock = threading.Lock()
        for message in self._message_of.values():
            self._frames(message)  # a value that does not fit is the caller's error, not the thread's
        self._server = SocketcandServer(port, clock)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._drive, name="simulated-car", daemon=True)
        self._thread.start()

    @classmethod
    def parked_and_charging(cls, signal_map: SignalMap, port: int = 0) -> Self:
        """A locked car at a wallbox, as in the scenario of that name."""
        return cls(signal_map, scenario.load(scenario.PARKED_AND_CHARGING).initial, port)

    @property
    def port(self) -> int:
        """The port that the car is reached at."""
        return self._server.port

    @property
    def options(self) -> dict[str, Any]:
        """`[signals.options]` for an agent that listens to this car."""
        return {"interface": "socketcand", "host": HOST, "port": self.port, "channel": "can0"}

    def set(self, path: str, value: Value | None) -> None:
        """Change a signal and send its message at once. None: the car says that it has no value.

        ValueError for a value that the signal cannot carry and for a path that the car does not have.
        """
        if path not in self._message_of:
            raise ValueError(f"this car has no {path}; it has {', '.join(sorted(self._state))}")
        with self._lock:
            before, self._state[path] = self._state[path], value
            try:
                self._send(self._message_of[path])
            except ValueError:
                self._state[path] = before
                raise

    def silence(self) -> None:
        """Fall asleep: nothing more is sent, the connections stay."""
        with self._lock:
            self._silent = True

    def wake(self) -> None:
        """Go on sending."""
        with self._lock:
            self._silent = False

    def fault(self, path: str, fault: Fault | None) -> None:
        """Spoil every frame of the message that carries `path`, or mend it (None)."""
        message = self._message_of[path]
        with self._lock:
            if fault is None:
                self._faults.pop(message.id, None)
            else:
                self._faults[message.id] = fault

    def send_text(self, text: bytes) -> None:
        """Send these bytes as they are, for example a frame that no car would send."""
        self._server.broadcast(text)

    def drop_clients(self) -> None:
        """End every connection, as an interface that goes down; the car can be reached again at once."""
        self._server.drop_clients()

    def close(self) -> None:
        """Stop, and close the port. Idempotent."""
        if not self._stop.is_set():
            self._stop.set()
            self._thread.join()
            self._server.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _drive(self) -> None:
        messages = {message.id: message for message in self._message_of.values()}
        due = [(self._clock(), message_id) for message_id in messages]
        while not self._stop.is_set():
            now_ns = self._clock()
            while due and due[0][0] <= now_ns:
                due_ns, message_id = due[0]
                message = messages[message_id]
                next_ns = due_ns + int(message.period_ms * 1e6)
                heapq.heapreplace(due, (max(next_ns, now_ns), message_id))
                with self._lock:
                    self._send(message)
            wait_s = (due[0][0] - self._clock()) / 1e9 if due else _SERVE_AT_MOST_S
            self._server.serve(min(max(wait_s, 0), _SERVE_AT_MOST_S))

    def _send(self, message: Message) -> None:
        frames = self._frames(message)
        if not self._silent:
            self._server.broadcast(b"".join(self._text(message, frame) for frame in frames))

    def _text(self, message: Message, payload: bytes) -> bytes:
        width = 8 if message.is_extended else 3
        return f"< frame {message.id:0{width}X} {self._clock() / 1e9:.6f} {payload.hex().upper()} >".encode()

    def _frames(self, message: Message) -> list[bytes]:
        """The next frame of a message, one for each of its mux pages."""
        if message.mux is None:
            return [self._frame(message, None)]
        pages = {signal.mux for signal in message.signals if signal.mux is not None}
        return [self._frame(message, page) for page in sorted(pages)]

    def _frame(self, message: Message, page: int | None) -> bytes:
        word = 0
        for signal in message.signals:
            if signal.path in self._state and signal.mux in (None, page):
                word |= signal.encode(self._state[signal.path])
        if message.mux is not None and page is not None:
            word |= message.mux.write(page)
        fault = self._faults.get(message.id)
        if message.counter is not None:
            if fault is not Fault.STUCK_COUNTER:
                self._counters[message.id] += 1
            word |= message.counter.write(self._counters[message.id])
        payload = bytearray(word.to_bytes(message.lengths[0], "little"))
        if message.checksum is not None:
            spoiled = fault is Fault.CHECKSUM
            payload[message.checksum.byte] = message.checksum.of(message.id, payload) ^ spoiled
        return bytes(payload)
