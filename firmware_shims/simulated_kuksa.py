"""The other side of the KUKSA shim: a databroker with a car's signals, for tests and for integrators.

It speaks as much of `kuksa.val.v2` as listeners and simple providers use, from kuksa-client's own stubs, and behaves
like the databroker: a datapoint is stamped with the broker's clock when it is published, the last one is kept for
ever, and a subscriber gets the present datapoints first and then every publication.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import grpc
from kuksa.val.v2 import types_pb2, val_pb2, val_pb2_grpc

from firmware_shims import scenario, vss
from firmware_shims.kuksa_paths import SIGNALS
from firmware_shims.reading import Value

HOST: Final = "127.0.0.1"
REFRESH_S: Final = 0.1
VSS_VERSIONS: Final = (4, 5, 6)
NOW: Final = -1
"""In place of a stamp: the broker's clock."""
_CALLS: Final = 32
"""Calls at a time; a subscription is one for as long as it lasts."""
_WHOLE: Final[Mapping[str, str]] = {
    vss.GEAR: "int32",
    vss.BRAKE: "uint32",
    vss.TIME_TO_COMPLETE: "uint32",
}
"""The type where the standard has whole numbers; a number is a `float` elsewhere."""


@dataclass(frozen=True, slots=True)
class Tls:
    """Certificate and key of the broker, as PEM files."""

    certificate: Path
    key: Path


class SimulatedBroker:
    """A databroker with the tree of one VSS version, and one provider in it that publishes `state` again and again.

    `state` has signals under the names of `vss.py`. Runs from construction to `close`. Every method may be called
    from any thread. With `token`, callers that do not show it are refused.
    """

    def __init__(
        self,
        state: Mapping[str, Value],
        vss_version: int = 6,
        port: int = 0,
        *,
        token: str | None = None,
        tls: Tls | None = None,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._version = vss_version
        self._state = dict(state)
        self._on_change: frozenset[str] = frozenset()
        self._provides = threading.Event()
        self._provides.set()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._service = _Service(token, wall_ns)
        for signal in state:
            self._service.register(self.path(signal), SIGNALS[signal].leaves[0].unit)
        self._server = grpc.server(
            ThreadPoolExecutor(_CALLS, "simulated-kuksa"), options=[("grpc.so_reuseport", 0)]
        )
        val_pb2_grpc.add_VALServicer_to_server(self._service, self._server)
        address = f"{HOST}:{port}"
        if tls is None:
            self.port: int = self._server.add_insecure_port(address)
        else:
            pair = (tls.key.read_bytes(), tls.certificate.read_bytes())
            self.port = self._server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
        self._publish(self._state)
        self._server.start()
        self._thread = threading.Thread(target=self._provide, name="simulated-provider", daemon=True)
        self._thread.start()

    @classmethod
    def parked_and_charging(cls, vss_version: int = 6, port: int = 0, **options: Any) -> Self:
        """A locked car at a wallbox, as in the scenario of that name."""
        initial = {vss.CABLE_CONNECTED: True, **scenario.load(scenario.PARKED_AND_CHARGING).initial}
        return cls(
            {signal: initial[signal] for signal in SIGNALS if signal in initial}, vss_version, port, **options
        )

    def path(self, signal: str) -> str:
        """Where this broker has a signal of `vss.py`."""
        leaves = SIGNALS[signal].leaves
        newest = leaves[0].path
        if signal == vss.DRIVER_SEAT:
            return newest if self._version >= 6 else leaves[1].path
        if signal == vss.CABLE_CONNECTED:
            return newest if self._version >= 5 else leaves[1].path
        return newest

    def set(self, signal: str, value: Value) -> None:
        """Change a signal and publish it at once. ValueError for one that this car does not have."""
        if signal not in self._state:
            raise ValueError(f"this car has no {signal}; it has {', '.join(sorted(self._state))}")
        with self._lock:
            self._state[signal] = value
            self._publish([signal])

    def publish(self, path: str, value: types_pb2.Value | None, published_ns: int | None = NOW) -> None:
        """Publish anything under a path of the broker; None for "not available".

        `published_ns` is the stamp in UTC nanoseconds, None for none.
        """
        self._service.publish({path: value}, published_ns)

    def only_on_change(self, *signals: str) -> None:
        """The provider does not repeat these any more."""
        with self._lock:
            self._on_change = frozenset(signals)

    def silence(self) -> None:
        """The provider dies; the broker keeps what it has."""
        with self._lock:
            self._provides.clear()

    def wake(self) -> None:
        """The provider is back, and publishes every signal once."""
        with self._lock:
            self._provides.set()
            self._publish(self._state)

    def hang(self, hangs: bool = True) -> None:
        """Give no answers any more, with the connections up; or give them again."""
        if hangs:
            self._service.answering.clear()
        else:
            self._service.answering.set()

    def drop_clients(self) -> None:
        """End every subscription; new ones are welcome."""
        self._service.end_subscriptions()

    def close(self) -> None:
        """Stop, and close the port. Idempotent."""
        self._stop.set()
        self._thread.join()
        self.hang(False)
        self._service.end_subscriptions()
        self._server.stop(grace=None).wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _provide(self) -> None:
        while not self._stop.wait(REFRESH_S):
            with self._lock:
                if self._provides.is_set():
                    self._publish(signal for signal in self._state if signal not in self._on_change)

    def _publish(self, signals: Iterable[str]) -> None:
        self._service.publish({self.path(signal): self._value(signal) for signal in signals}, NOW)

    def _value(self, signal: str) -> types_pb2.Value:
        """A signal's value as this VSS version spells and types it."""
        value = self._state[signal]
        if signal == vss.DRIVER_SEAT and self._version >= 6:
            return types_pb2.Value(string="OCCUPIED" if value else "EMPTY")
        if isinstance(value, bool):
            return types_pb2.Value(bool=value)
        if isinstance(value, str):
            return types_pb2.Value(string=value)
        if signal in _WHOLE:
            return types_pb2.Value(**{_WHOLE[signal]: int(value)})
        return types_pb2.Value(float=value)


@dataclass(eq=False, slots=True)
class _Subscriber:
    paths: frozenset[str]
    updates: queue.SimpleQueue[dict[str, types_pb2.Datapoint] | None]


class _Service(val_pb2_grpc.VALServicer):  # type: ignore[misc] # the stubs ship no types
    """The calls of `kuksa.val.v2.VAL` that listeners and simple providers make."""

    def __init__(self, token: str | None, wall_ns: Callable[[], int]) -> None:
        self.answering = threading.Event()
        self.answering.set()
        self._token = token
        self._wall_ns = wall_ns
        self._lock = threading.Lock()
        self._units: dict[str, str] = {}
        self._points: dict[str, types_pb2.Datapoint] = {}
        self._subscribers: set[_Subscriber] = set()

    def register(self, path: str, unit: str) -> None:
        """Add a signal to the tree; it has no value yet."""
        self._units[path] = unit
        self._points[path] = self._point(None, NOW)

    def publish(self, values: Mapping[str, types_pb2.Value | None], published_ns: int | None) -> None:
        """Keep the datapoints and hand them to every subscriber. KeyError for a path that is not in the tree."""
        with self._lock:
            fresh = {path: self._point(value, published_ns) for path, value in values.items()}
            self._points.update(fresh)
            for subscriber in self._subscribers:
                subscriber.updates.put({path: fresh[path] for path in fresh.keys() & subscriber.paths})

    def end_subscriptions(self) -> None:
        """Let every subscription end."""
        with self._lock:
            for subscriber in self._subscribers:
                subscriber.updates.put(None)

    def GetServerInfo(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802 - gRPC's name
        """Answers everybody, as the databroker does."""
        del request, context
        self.answering.wait()
        return val_pb2.GetServerInfoResponse(name="simulated-kuksa", version="0")

    def ListMetadata(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802 - gRPC's name
        """A signal by its path, or everything under a branch."""
        self._admit(context)
        root = request.root
        found = [path for path in self._units if path == root or path.startswith(f"{root}.")]
        if not found:
            context.abort(grpc.StatusCode.NOT_FOUND, "Path not found")
        return val_pb2.ListMetadataResponse(
            metadata=[types_pb2.Metadata(path=path, unit=self._units[path]) for path in found]
        )

    def PublishValue(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802 - gRPC's name
        """A provider publishes. As in the databroker its own stamp is not what listeners get."""
        self._admit(context)
        path = request.signal_id.path
        if path not in self._units:
            context.abort(grpc.StatusCode.NOT_FOUND, "Path not found")
        self.publish({path: request.data_point.value}, NOW)
        return val_pb2.PublishValueResponse()

    def Subscribe(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:  # noqa: N802 - gRPC's name
        """The present datapoints, then every publication."""
        self._admit(context)
        subscriber = _Subscriber(frozenset(request.signal_paths), queue.SimpleQueue())
        if not subscriber.paths <= self._units.keys():
            context.abort(grpc.StatusCode.NOT_FOUND, "Path not found")
        context.add_callback(lambda: subscriber.updates.put(None))
        with self._lock:
            subscriber.updates.put({path: self._points[path] for path in subscriber.paths})
            self._subscribers.add(subscriber)
        try:
            while (update := subscriber.updates.get()) is not None:
                if update:
                    yield val_pb2.SubscribeResponse(entries=update)
        finally:
            with self._lock:
                self._subscribers.discard(subscriber)

    def _admit(self, context: grpc.ServicerContext) -> None:
        shown = dict(context.invocation_metadata()).get("authorization")
        if self._token is not None and shown != f"Bearer {self._token}":
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "Unauthenticated")

    def _point(self, value: types_pb2.Value | None, published_ns: int | None) -> types_pb2.Datapoint:
        point = types_pb2.Datapoint(value=value)
        if published_ns is not None:
            stamp_ns = self._wall_ns() if published_ns == NOW else published_ns
            point.timestamp.seconds, point.timestamp.nanos = divmod(stamp_ns, 1_000_000_000)
        return point
