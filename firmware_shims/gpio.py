"""A line of a GPIO chip as a signal, for example a car's ignition wire, through libgpiod 2.

[signals.options]
chip = "/dev/gpiochip0"        # a path that udev keeps stable, where the computer has several chips
line = "IGNITION"              # the line's name, or its offset as a number
# active_low = false
# path = "Vehicle.LowVoltageSystemState"
# active = "ON"                # what the signal is while the line is active
# inactive = "OFF"
"""

import enum
import logging
import math
import select
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Final, Protocol

import msgspec

from firmware_shims import options as shim_options
from firmware_shims import vss
from firmware_shims.clock import Clock
from firmware_shims.reading import Reading, Sink, Value

HEARD_EVERY_NS: Final = 50_000_000
STALE_AFTER_S: Final = 0.5
RETRY_FIRST_S: Final = 0.05
RETRY_MOST_S: Final = 1.0

logger = logging.getLogger(__name__)


class GpioOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which line, and what its two levels mean."""

    chip: Annotated[str, msgspec.Meta(min_length=1)]
    line: Annotated[int, msgspec.Meta(ge=0)] | Annotated[str, msgspec.Meta(min_length=1)]
    active_low: bool = False
    path: Annotated[str, msgspec.Meta(min_length=1)] = vss.LOW_VOLTAGE_STATE
    active: bool | float | str = "ON"
    inactive: bool | float | str = "OFF"

    def __post_init__(self) -> None:
        for value in (self.active, self.inactive):
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"a level means {value}: a number must be finite")
        if self.active == self.inactive:
            raise ValueError(f"both levels mean {self.active!r}: active and inactive must differ")


class Edge(Protocol):
    """What the shim reads of a `gpiod.EdgeEvent`."""

    @property
    def event_type(self) -> enum.Enum:
        """RISING_EDGE: the line became active, also where active is low (GPIO_V2_LINE_FLAG_EDGE_RISING)."""

    @property
    def line_seqno(self) -> int:
        """Counts the line's edges from 1; the kernel drops the oldest ones when its buffer is full."""


class Request(Protocol):
    """A `gpiod.LineRequest` with edge detection, as far as the shim uses one; OSError when the chip is gone."""

    @property
    def fd(self) -> int:
        """Readable while edges wait to be read."""

    def get_value(self, line: int | str) -> enum.Enum:
        """The present level: true when active."""

    def read_edge_events(self) -> Sequence[Edge]:
        """Edges that wait, oldest first; waits for one when there is none."""

    def release(self) -> None:
        """Give the line back."""


OpenRequest = Callable[[], Request]
"""Arms the line; OSError or ValueError when chip or line are not there, to be tried again."""


class _GoneError(Exception):
    """The line cannot be read. A type of its own, so that an OSError of the sink is not taken for it."""


class GpioLine:
    """A `Source` on one line, which it only reads."""

    def __init__(self, name: str, options: GpioOptions, clock: Clock, open_request: OpenRequest) -> None:
        self.name = name
        self.stale_after_s: Mapping[str, float] = {options.path: STALE_AFTER_S}
        self._options = options
        self._clock = clock
        self._open_request = open_request
        self._answered = False

    def run(self, sink: Sink, stop: threading.Event) -> None:
        """Listen until `stop`; a chip or line that is missing or goes away is tried again for ever."""
        wait_s = 0.0
        lost = ""
        while not stop.wait(wait_s):
            self._answered = False
            try:
                self._session(sink, stop)
            except _GoneError as error:
                if self._answered or str(error) != lost:
                    logger.warning("signals %s: no GPIO line: %s; trying again", self.name, error)
                lost = str(error)
            longer_s = min(max(2 * wait_s, RETRY_FIRST_S), RETRY_MOST_S)
            wait_s = RETRY_FIRST_S if self._answered else longer_s

    def _session(self, sink: Sink, stop: threading.Event) -> None:
        """Listen from one arming of the line to its end."""
        try:
            request = self._open_request()
        except (OSError, ValueError) as error:
            raise self._gone(error) from error
        try:
            poll = select.poll()
            poll.register(request.fd, select.POLLIN)
            self._refresh(request, sink, self._clock())
            logger.info("signals %s: listening", self.name)
            self._listen(request, poll, sink, stop)
        finally:
            request.release()

    def _listen(self, request: Request, poll: select.poll, sink: Sink, stop: threading.Event) -> None:
        """Deliver each edge when it comes. Between them the level is read again now and then.

        So the signal stays fresh while nothing happens, and a chip that went away is noticed.
        """
        last_seqno = 0
        heard_ns = self._clock()
        while not stop.is_set():
            due_ns = heard_ns + HEARD_EVERY_NS - self._clock()
            if due_ns > 0:
                last_seqno = self._take(request, poll, math.ceil(due_ns / 1e6), last_seqno, sink)
            else:
                heard_ns = self._clock()
                last_seqno = self._take(request, poll, 0, last_seqno, sink)
                self._refresh(request, sink, heard_ns)

    def _take(self, request: Request, poll: select.poll, wait_ms: int, last_seqno: int, sink: Sink) -> int:
        """Deliver the edges that come within `wait_ms`, each by itself: a short one is a cue too.

        Returns the last one's number.
        """
        edges = self._edges(request, poll, wait_ms)
        missed = False
        for edge in edges:
            missed = missed or edge.line_seqno != last_seqno + 1
            last_seqno = edge.line_seqno
            sink.update([self._reading(edge.event_type.name == "RISING_EDGE")])
        if missed:
            sink.update([self._reading(self._level(request))])
        return last_seqno

    def _edges(self, request: Request, poll: select.poll, wait_ms: int) -> Sequence[Edge]:
        try:
            ready = poll.poll(wait_ms)
            if any(events & ~select.POLLIN for _, events in ready):
                raise _GoneError(f"{self._where}: the chip went away")
            return request.read_edge_events() if ready else ()
        except OSError as error:
            raise self._gone(error) from error

    def _refresh(self, request: Request, sink: Sink, heard_ns: int) -> None:
        sink.update([self._reading(self._level(request))])
        sink.heard(self.name, heard_ns)
        self._answered = True

    def _level(self, request: Request) -> bool:
        try:
            return bool(request.get_value(self._options.line))
        except OSError as error:
            raise self._gone(error) from error

    def _reading(self, active: bool) -> Reading:
        value: Value = self._options.active if active else self._options.inactive
        return Reading(self._options.path, value, self.name, self._clock())

    def _gone(self, error: OSError | ValueError) -> _GoneError:
        return _GoneError(f"{self._where}: {getattr(error, 'strerror', None) or error}")

    @property
    def _where(self) -> str:
        return f"{self._options.chip} line {self._options.line}"


def open_line(name: str, map_name: str | None, options: Mapping[str, Any], clock: Clock) -> GpioLine:
    """The source that `[signals.options]` describes. ValueError with one line for options that cannot work."""
    shim_options.refuse_map(map_name, "a GPIO line has no bus and takes no map")
    wanted = shim_options.read(options, GpioOptions)
    return GpioLine(name, wanted, clock, _requester(wanted))


def _requester(options: GpioOptions) -> OpenRequest:
    try:
        import gpiod  # noqa: PLC0415 - an extra, and 4 MiB that only a car with such a line pays for
    except ImportError as error:
        raise ValueError("GPIO lines need gpiod: pip install 'parkwatt[gpio]'") from error
    settings = gpiod.LineSettings(
        direction=gpiod.line.Direction.INPUT,
        edge_detection=gpiod.line.Edge.BOTH,
        active_low=options.active_low,
    )
    return lambda: gpiod.request_lines(options.chip, config={options.line: settings}, consumer="parkwatt")
