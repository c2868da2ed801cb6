"""Signals from a KUKSA databroker, with VSS 4, 5 or 6.

[signals.options]
host = "127.0.0.1"
port = 55555
ca_file = "/etc/parkwatt/kuksa-ca.pem"    # switches TLS on
tls_server_name = "Server"                # the name in the broker's certificate, where it is not `host`
token_file = "/etc/parkwatt/kuksa.token"  # a JWT that may read the signals; read anew for each connection
without = ["Vehicle.Compute.PowerRail", "Vehicle.Compute.GridLimit"]   # what this car does not have on the broker

[signals.options.stale_after_s]           # where a provider refreshes more slowly than the default, or faster
"Vehicle.Powertrain.TractionBattery.StateOfCharge.Current" = 30

[signals.options.on_change]               # published on change only = a signal that its provider refreshes
"Vehicle.Cabin.Door.Row1.DriverSide.IsOpen" = "Vehicle.Speed"

A broker keeps the last value of a provider that died, and says nothing. All it has is a stamp on each datapoint: its
own wall clock when a provider last published it. So a signal is fresh only while it is published again and again, the
value changed or not, as kuksa-can-provider does once a second unless told otherwise; older than `stale_after_s` (3 s;
10 s for charge, temperatures and the 12 V battery; 60 s at most) it is stale, and stale blocks. That is the default
for every signal, because nothing in the protocol tells a door that has not moved for hours from a door whose provider
has been dead for hours.

For a provider that publishes on change only (`on_change: true` in kuksa-can-provider's mapping, or
`x-kuksa-changetype: onchange` in the broker's tree) the integrator names in `on_change` a witness: a signal that the
same provider refreshes. The value is then as fresh as its witness. Who writes that line says: this provider publishes
the signal whenever it changes, and once when it starts. Where no such witness exists the signal stays stale, and
work is not allowed.

The first datapoint of a path after subscribing is some value from the past. It is delivered as stale until the next
publication (or one of its witness) has come in: the wall clock may have been set in between, and an age by a clock
that was set back would make the value look fresh. A stamp more than half a second ahead of our clock, or none, is
`invalid`. When the wall clock is set while we listen, we subscribe anew.
"""

import importlib.util
import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from firmware_shims import options as shim_options
from firmware_shims.clock import Clock
from firmware_shims.kuksa_age import Ages, ClockSetError
from firmware_shims.kuksa_broker import Broker, BrokerGoneError
from firmware_shims.kuksa_options import KuksaOptions
from firmware_shims.kuksa_session import Session
from firmware_shims.reading import Sink

HEARD_EVERY_S: Final = 0.1
RETRY_FIRST_S: Final = 0.1
RETRY_MOST_S: Final = 2.0

logger = logging.getLogger(__name__)


class KuksaSource:
    """A `Source` on one databroker. It asks and subscribes; it has no way to publish or to actuate.

    Readings are delivered in the thread that reads the stream. A second one asks the broker ten times a second
    whether it is there, before it says `heard`: a connection whose other end has vanished is as silent as a
    parked car.
    """

    def __init__(
        self, name: str, options: KuksaOptions, clock: Clock, wall_ns: Callable[[], int] = time.time_ns
    ) -> None:
        if importlib.util.find_spec("kuksa") is None:
            raise ValueError("a KUKSA broker needs kuksa-client: pip install 'parkwatt[kuksa]'")
        self.name = name
        self.stale_after_s: Mapping[str, float] = options.ages()
        self._options = options
        self._clock = clock
        self._ages = Ages(clock, wall_ns)
        self._warned: set[str] = set()

    def run(self, sink: Sink, stop: threading.Event) -> None:
        """Listen until `stop`; a broker that is away or refuses us is tried again for ever."""
        wait_s = 0.0
        lost = ""
        while not stop.wait(wait_s):
            session = Session(self.name, self._options, self._clock, self._ages, sink, warn=self._warn)
            try:
                self._listen(session, sink, stop)
            except (BrokerGoneError, ClockSetError) as error:
                if str(error) != lost and not stop.is_set():
                    logger.warning("signals %s: KUKSA: %s; trying again", self.name, error)
                lost = str(error)
            if session.flows.is_set():
                wait_s, lost = RETRY_FIRST_S, ""
            else:
                wait_s = min(max(2 * wait_s, RETRY_FIRST_S), RETRY_MOST_S)

    def _warn(self, text: str) -> None:
        """Log a warning that is the same for every connection only once."""
        if text not in self._warned:
            self._warned.add(text)
            logger.warning("signals %s: %s", self.name, text)

    def _listen(self, session: Session, sink: Sink, stop: threading.Event) -> None:
        """Listen from one connection to its end, which is always an exception."""
        broker = Broker(self._options.address)
        over = threading.Event()
        with ThreadPoolExecutor(1, f"pulse-{self.name}") as threads:
            pulse = threads.submit(self._feel_pulse, broker, session, sink, stop, over)
            try:
                session.follow(broker)
            except BrokerGoneError:
                over.set()
                pulse.result()  # raises what ended the connection, if it was the pulse
                raise
            finally:
                over.set()

    def _feel_pulse(
        self, broker: Broker, session: Session, sink: Sink, stop: threading.Event, over: threading.Event
    ) -> None:
        """Say `heard` while the broker answers. Closes the connection when it does not, and at `stop`."""
        try:
            while not over.wait(HEARD_EVERY_S) and not stop.is_set():
                now_ns = self._clock()
                broker.answers()
                if session.flows.is_set():
                    sink.heard(self.name, now_ns)
        finally:
            broker.close()


def open_databroker(name: str, map_name: str | None, options: Mapping[str, Any], clock: Clock) -> KuksaSource:
    """The source that `[signals.options]` describes. ValueError with one line for options that cannot work."""
    shim_options.refuse_map(map_name, "a databroker names its signals and takes no map")
    return KuksaSource(name, shim_options.read(options, KuksaOptions), clock)
