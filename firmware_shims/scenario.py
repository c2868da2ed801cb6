"""The scripted car: readings from a small TOML file or from code, for the demo, for tests, for a first try.

[initial]                             # every signal that the car has, with its value at the start
"Vehicle.Speed" = 0

[[change]]                            # any number of them
at_s = 12.5                           # seconds after the source was started
path = "Vehicle.Speed"
value = 3.2                           # left out: the sensor stops to answer (quality `invalid`)
"""

import math
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from firmware_shims import vss
from firmware_shims.clock import Clock
from firmware_shims.reading import Quality, Reading, Sink, Value

if TYPE_CHECKING:
    from collections.abc import Mapping

SHIPPED: Final = Path(__file__).with_name("scenarios")
PARKED_AND_CHARGING: Final = "parked_and_charging"
REFRESH_S: Final = 0.1
STALE_AFTER_S: Final = 1.0
"""Ten refreshes, so that nothing goes stale while the scenario runs and everything when it does not."""


class ScenarioError(ValueError):
    """A scenario that cannot be used: one line with the file, the place and the value."""


class ScenarioOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[signals.options]`: a scenario file, or the name of one that comes with the agent."""

    file: Annotated[str, msgspec.Meta(min_length=1)] = PARKED_AND_CHARGING


class Change(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One timed change of one signal; `value` None means that the sensor does not answer."""

    at_s: Annotated[float, msgspec.Meta(ge=0)]
    path: str
    value: bool | float | str | None = None


class Script(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the car's signals are at the start and when they change."""

    initial: dict[str, bool | float | str]
    changes: tuple[Change, ...] = msgspec.field(name="change", default=())

    def __post_init__(self) -> None:
        values = [(change.path, change.value) for change in self.changes]
        for path, value in (*self.initial.items(), *values):
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{path} is {value}: a number must be finite")


def load(name: str) -> Script:
    """The script of that name that comes with the agent, or the one at that path (`/` or `.toml` in it).

    Raises `ScenarioError` for one that is not there or not usable.
    """
    path = Path(name) if "/" in name or name.endswith(".toml") else SHIPPED / f"{name}.toml"
    try:
        return msgspec.toml.decode(path.read_bytes(), type=Script)
    except OSError as error:
        known = ", ".join(sorted(file.stem for file in SHIPPED.glob("*.toml")))
        raise ScenarioError(
            f"no scenario {name!r} ({error.strerror}: {path}); give a path, or one of: {known}"
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ScenarioError(f"scenario {path}: {error}") from error


class Scenario:
    """A `Source` whose car does what the script says, and what `set` says. Every method is thread-safe."""

    def __init__(self, name: str, script: Script, clock: Clock) -> None:
        self.name = name
        self._clock = clock
        self._changes = sorted(script.changes, key=lambda change: change.at_s)
        self._values: dict[str, Value | None] = dict(script.initial)
        paths = {*script.initial, *(change.path for change in script.changes)}
        self.stale_after_s: Mapping[str, float] = dict.fromkeys(paths, STALE_AFTER_S)
        self._sink: Sink | None = None
        self._lock = threading.Lock()

    def set(self, path: str, value: Value | None) -> None:
        """Change one signal now; it has been delivered, in this thread, when this returns.

        None: the sensor does not answer. ValueError for a path that the script does not have.
        """
        if path not in self.stale_after_s:
            raise ValueError(f"this car has no {path}; it has {', '.join(sorted(self.stale_after_s))}")
        with self._lock:
            self._values[path] = value
            if self._sink is not None:
                self._sink.update([self._reading(path, value)])

    def open_door(self) -> None:
        """The owner opens the driver's door."""
        self.set(vss.DRIVER_DOOR, True)

    def close_door(self) -> None:
        """The owner closes the driver's door."""
        self.set(vss.DRIVER_DOOR, False)

    def run(self, sink: Sink, stop: threading.Event) -> None:
        """Deliver every signal ten times a second, and the script's changes when they are due."""
        began_ns = self._clock()
        pending = list(self._changes)
        with self._lock:
            self._sink = sink
        try:
            while not stop.is_set():
                running_s = (self._clock() - began_ns) / 1e9
                while pending and pending[0].at_s <= running_s:
                    change = pending.pop(0)
                    self.set(change.path, change.value)
                self._refresh(sink)
                until_change_s = pending[0].at_s - running_s if pending else REFRESH_S
                stop.wait(min(until_change_s, REFRESH_S))
        finally:
            with self._lock:
                self._sink = None

    def _refresh(self, sink: Sink) -> None:
        with self._lock:
            sink.update([self._reading(path, value) for path, value in self._values.items()])
            sink.heard(self.name, self._clock())

    def _reading(self, path: str, value: Value | None) -> Reading:
        quality = Quality.INVALID if value is None else Quality.GOOD
        return Reading(path, value, self.name, self._clock(), quality)
