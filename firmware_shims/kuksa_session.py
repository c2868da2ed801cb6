"""What one subscription to a KUKSA broker brings: datapoints in, readings with their age out."""

import threading
from collections.abc import Callable, Iterable

from firmware_shims.clock import Clock
from firmware_shims.kuksa_age import Age, Ages
from firmware_shims.kuksa_broker import Broker, BrokerGoneError
from firmware_shims.kuksa_options import KuksaOptions
from firmware_shims.kuksa_paths import Carried, locate
from firmware_shims.reading import Quality, Reading, Sink


class Session:
    """One subscription. `flows` is set once the present datapoints have been delivered.

    `warn` is told what an integrator should know, each time anew.
    """

    def __init__(
        self,
        source: str,
        options: KuksaOptions,
        clock: Clock,
        ages: Ages,
        sink: Sink,
        *,
        warn: Callable[[str], None],
    ) -> None:
        self.flows = threading.Event()
        self._source = source
        self._options = options
        self._limits_ns = {signal: int(age_s * 1e9) for signal, age_s in options.ages().items()}
        self._clock = clock
        self._ages = ages
        self._sink = sink
        self._warn = warn
        self._latest: dict[str, tuple[object, Age | None]] = {}
        self._witness: dict[str, str] = {}
        self._concerns: dict[str, list[Carried]] = {}
        """By path on the broker: the signals whose reading changes when it is published."""

    def follow(self, broker: Broker) -> None:
        """Deliver what is published until the connection ends, as BrokerGoneError.

        ClockSetError when the wall clock was set.
        """
        self._find(broker)
        self._ages.begin()
        for datapoints in broker.subscribe(sorted(self._concerns)):
            for path, datapoint in datapoints.items():
                self._latest[path] = (datapoint.value, self._ages.of(path, datapoint.published_ns))
            self._deliver(datapoints)
            self.flows.set()

    def _find(self, broker: Broker) -> None:
        """Ask where this broker has which signal. Those that it does not have are invalid."""
        found = {signal: locate(signal, broker.unit_of) for signal in self._limits_ns}
        carried = {signal: place for signal, place in found.items() if place is not None}
        if not carried:
            raise BrokerGoneError("the broker has no signal of VSS 4, 5 or 6")
        for place in carried.values():
            self._concerns.setdefault(place.leaf.path, []).append(place)
        for signal, witness in self._options.on_change.items():
            if signal in carried:
                path = carried[witness].leaf.path if witness in carried else witness
                self._trust(broker, carried[signal], path)
        missing = sorted(set(found) - set(carried))
        if missing:
            self._warn(
                f"the broker has no {', '.join(missing)}, or in a unit of something else;"
                " name in options.without what this car does not have"
            )
            self._sink.update([self._invalid(signal) for signal in missing])

    def _trust(self, broker: Broker, place: Carried, witness: str) -> None:
        """Let the broker's path `witness` vouch for a signal that is published on change."""
        if broker.unit_of(witness) is None:
            self._warn(f"the broker has no {witness}, the witness of {place.signal}")
            return
        self._witness[place.signal] = witness
        self._concerns.setdefault(witness, []).append(place)

    def _deliver(self, published: Iterable[str]) -> None:
        concerned = {place.signal: place for path in published for place in self._concerns.get(path, ())}
        readings = [self._reading(place) for place in concerned.values()]
        if readings:
            self._sink.update(readings)

    def _reading(self, place: Carried) -> Reading:
        """The value with the age of its publication, or of its witness's where that is younger."""
        raw, age = self._latest.get(place.leaf.path, (None, None))
        value = place.value(raw)
        if value is None or age is None:
            return self._invalid(place.signal)
        stamp_ns, seen = age.stamp_ns, age.seen
        _, alive = self._latest.get(self._witness.get(place.signal, ""), (None, None))
        if alive is not None and alive.seen:
            stamp_ns, seen = max(stamp_ns, alive.stamp_ns), True
        fresh = seen and self._clock() - stamp_ns <= self._limits_ns[place.signal]
        return Reading(place.signal, value, self._source, stamp_ns, Quality.GOOD if fresh else Quality.STALE)

    def _invalid(self, signal: str) -> Reading:
        return Reading(signal, None, self._source, self._clock(), Quality.INVALID)
