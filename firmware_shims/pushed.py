"""Signals that the vehicle's operating system pushes over the agent's control socket.

[[signals]]
shim = "socket"
[signals.options]
signals = ["Vehicle.Speed", "Vehicle.Cabin.Door.Row1.DriverSide.IsOpen"]   # what it will push, by the names of vss.py
stale_after_s = 2.0           # what has not been pushed again after this is stale, and stale blocks

One line a push: {"cmd": "signals", "values": {"Vehicle.Speed": 0, "Vehicle.Cabin.Door.Row1.DriverSide.IsOpen": false}}

Push every signal again and again, changed or not, at least twice in `stale_after_s`, and a change at once: nothing else
tells a car where nothing moves from an operating system that has died. Signals that are pushed at different paces stand
in sections of their own. `null` says that the sensor does not answer.
"""

import threading
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Final

import msgspec

from firmware_shims import options as shim_options
from firmware_shims.clock import Clock
from firmware_shims.reading import Quality, Reading, Sink
from firmware_shims.vss_values import KINDS

STALE_AT_MOST_S: Final = 60.0
"""An operating system that died may go unnoticed for as long as this, so nobody may wait for longer."""


class PushedOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[signals.options]` of the source."""

    signals: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    stale_after_s: Annotated[float, msgspec.Meta(ge=0.1, le=STALE_AT_MOST_S)] = 2.0

    def __post_init__(self) -> None:
        for path in self.signals:
            if path not in KINDS:
                near = get_close_matches(path, KINDS, n=1, cutoff=0)[0]
                raise ValueError(f"signals: {path!r} is no signal that is known here; the nearest is {near}")


class PushedSignals:
    """A `Source` that is told what the car shows. Every method is thread-safe."""

    def __init__(self, name: str, options: PushedOptions, clock: Clock) -> None:
        self.name = name
        self.stale_after_s: Mapping[str, float] = dict.fromkeys(options.signals, options.stale_after_s)
        self._clock = clock
        self._sink: Sink | None = None
        self._early: dict[str, Reading] = {}
        self._lock = threading.Lock()

    def push(self, values: Mapping[str, object]) -> list[str]:
        """Deliver those of the values that this source declares, in this thread; return what is wrong with them.

        Every value counts by itself: an open door is seen whatever stands beside it, and a value that its signal
        cannot have reads INVALID at once. So a line with a fault in it never leaves more allowed than one without.
        """
        problems = []
        readings = []
        now_ns = self._clock()
        for path, value in values.items():
            if path not in self.stale_after_s:
                continue
            if isinstance(value, float) and value.is_integer():
                sound = KINDS[path].read(int(value))  # JSON has one kind of number: some write 126 as 126.0
            else:
                sound = KINDS[path].read(value)
            if sound is None and value is not None:
                problems.append(f"{path} is {shown(value)}: it must be {KINDS[path].words}, or null")
            quality = Quality.INVALID if sound is None else Quality.GOOD
            readings.append(Reading(path, sound, self.name, now_ns, quality))
        with self._lock:
            if self._sink is not None:
                self._sink.update(readings)
            else:
                self._early.update((reading.path, reading) for reading in readings)
        return problems

    def caught_up(self, now_ns: int) -> None:
        """Take note that whatever was sent up to `now_ns` has been pushed."""
        with self._lock:
            if self._sink is not None:
                self._sink.heard(self.name, now_ns)

    def run(self, sink: Sink, stop: threading.Event) -> None:
        """Let pushes through until `stop`, first those that came before the agent was ready for them."""
        with self._lock:
            self._sink = sink
            sink.update(list(self._early.values()))
            self._early.clear()
        stop.wait()
        with self._lock:
            self._sink = None


def shown(value: object) -> str:
    """A JSON value for a message to people; of a long one the beginning."""
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 80 else f"{text[:80]}…"


def open_pushed(name: str, map_name: str | None, options: Mapping[str, Any], clock: Clock) -> PushedSignals:
    """The source that `[signals.options]` describes. ValueError with one line for options that cannot work."""
    shim_options.refuse_map(map_name, "what is pushed has its names already and takes no map")
    return PushedSignals(name, shim_options.read(options, PushedOptions), clock)
