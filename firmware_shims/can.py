"""Signals from a CAN bus: a thread that listens, and believes only what a car's own checks prove."""

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from firmware_shims.can_bus import Bus, Frame, OpenBus, bus_opener
from firmware_shims.clock import Clock
from firmware_shims.frame_gate import FrameGate, Judgement
from firmware_shims.reading import Sink
from firmware_shims.signal_map import SignalMap

HEARD_EVERY_NS = 50_000_000
REST_S = 0.02
"""While nothing is urgent frames wait so long in the socket, which holds some hundred: a wake-up for each costs most."""
RETRY_FIRST_S = 0.05
RETRY_MOST_S = 1.0
_DRAIN_FRAMES = 4096
"""More than a CAN bus can carry in half a second: whoever finds more is behind and has not heard everything."""

logger = logging.getLogger(__name__)


class _GoneError(Exception):
    """The interface is not there. A type of its own, so that an OSError of the sink is not taken for it."""


@dataclass(slots=True)
class CanCounts:
    """What came in since the start; `malformed` are frames of a wrong kind or length."""

    frames: int = 0
    accepted: int = 0
    unknown: int = 0
    malformed: int = 0
    rejected_checksum: int = 0
    rejected_counter: int = 0
    opened: int = 0


class CanSource:
    """A `Source` on one CAN interface. It has no way to send.

    `options` are python-can's (`interface`, `channel`, ...); `open_bus` stands in for them where a test or a
    recording is the bus. InterfaceError (a ValueError) for options that cannot work.
    """

    def __init__(
        self,
        name: str,
        signal_map: SignalMap,
        options: Mapping[str, Any],
        clock: Clock,
        open_bus: OpenBus | None = None,
    ) -> None:
        self.name = name
        self.stale_after_s: Mapping[str, float] = signal_map.stale_after_s
        self.counts = CanCounts()
        self._clock = clock
        self._gates = {message.id: FrameGate(message, name) for message in signal_map.messages}
        self._open_bus = open_bus or bus_opener(options, self._gates)

    def run(self, sink: Sink, stop: threading.Event) -> None:
        """Listen until `stop`; an interface that is missing or goes away is tried again for ever."""
        wait_s = 0.0
        lost = ""
        while not stop.wait(wait_s):
            frames = self.counts.frames
            try:
                self._session(sink, stop)
            except _GoneError as error:
                if str(error) != lost:
                    logger.warning("signals %s: no CAN interface: %s; trying again", self.name, error)
                lost = str(error)
            if self.counts.frames > frames:
                wait_s, lost = RETRY_FIRST_S, ""
            else:
                wait_s = min(max(2 * wait_s, RETRY_FIRST_S), RETRY_MOST_S)

    def _session(self, sink: Sink, stop: threading.Event) -> None:
        """Listen from one opening of the interface to its end."""
        try:
            bus = self._open_bus()
        except (OSError, EOFError) as error:
            raise _GoneError(str(error)) from error
        try:
            self.counts.opened += 1
            logger.info("signals %s: listening", self.name)
            for gate in self._gates.values():
                gate.forget()
            heard_ns = self._clock()
            while not stop.is_set():
                if not sink.urgent:
                    stop.wait(REST_S)
                    heard_ns = self._catch_up(bus, sink)
                    continue
                due_ns = heard_ns + HEARD_EVERY_NS - self._clock()
                if due_ns > 0:
                    frame = _recv(bus, due_ns / 1e9)
                    if frame is not None:
                        self._take(frame, sink)
                else:
                    heard_ns = self._catch_up(bus, sink)
        finally:
            bus.shutdown()

    def _catch_up(self, bus: Bus, sink: Sink) -> int:
        """Read all that is there, then say that everything up to the beginning of this has been heard."""
        now_ns = self._clock()
        for _ in range(_DRAIN_FRAMES):
            frame = _recv(bus, 0)
            if frame is None:
                sink.heard(self.name, now_ns)
                break
            self._take(frame, sink)
        return now_ns

    def _take(self, frame: Frame, sink: Sink) -> None:
        counts = self.counts
        counts.frames += 1
        gate = self._gates.get(frame.arbitration_id)
        if gate is None:
            if frame.is_error_frame:
                counts.malformed += 1
            else:
                counts.unknown += 1
            return
        stamp_ns = self._clock()
        judgement = gate.judge(frame)
        if judgement is Judgement.ACCEPTED:
            counts.accepted += 1
            readings = gate.readings(frame, stamp_ns)
            if readings:
                sink.update(readings)
        elif judgement is Judgement.COUNTER:
            counts.rejected_counter += 1
        elif judgement is Judgement.CHECKSUM:
            counts.rejected_checksum += 1
        else:
            counts.malformed += 1


def _recv(bus: Bus, timeout_s: float) -> Frame | None:
    try:
        return bus.recv(timeout_s)
    except (OSError, EOFError) as error:
        raise _GoneError(str(error)) from error
