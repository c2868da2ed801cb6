"""A connection to a KUKSA databroker, for listening: `kuksa.val.v2` over gRPC.

It uses the stubs that kuksa-client ships and not its `VSSClient`: that has no way to end a subscription from another
thread, turns a stamp that is no date into an exception for the whole stream, and logs two lines for each attempt
to connect. Nothing in here publishes or actuates.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from firmware_shims.kuksa_age import Published

ANSWER_WITHIN_S: Final = 1.0
_CHANNEL: Final = (
    ("grpc.use_local_subchannel_pool", 1),  # each attempt is a new one, whatever became of the one before
    ("grpc.enable_http_proxy", 0),  # the broker is in the car
)


class BrokerGoneError(Exception):
    """The broker is not there, has gone or refuses us. Worth another attempt: tokens and files are replaced."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a broker is and how to be let in. `ca_file` switches TLS on."""

    host: str
    port: int
    ca_file: Path | None = None
    tls_server_name: str | None = None
    token_file: Path | None = None


class Broker:
    """One connection. `close` may be called from any thread and ends whatever waits in the other methods.

    Every method raises BrokerGoneError. Files are read anew for each connection.
    """

    def __init__(self, address: Address) -> None:
        # 25 MiB that only a source on a KUKSA broker pays for
        import grpc  # noqa: PLC0415
        from kuksa.val.v2 import val_pb2, val_pb2_grpc  # noqa: PLC0415

        self._grpc = grpc
        self._messages = val_pb2
        self._where = f"{address.host}:{address.port}"
        self._metadata: list[tuple[str, str]] = []
        if address.token_file is not None:
            self._metadata.append(("authorization", f"Bearer {_read(address.token_file).decode().strip()}"))
        target = f"[{address.host}]:{address.port}" if ":" in address.host else self._where
        if address.ca_file is None:
            self._channel = grpc.insecure_channel(target, _CHANNEL)
        else:
            trusted = grpc.ssl_channel_credentials(_read(address.ca_file))
            named = (("grpc.ssl_target_name_override", address.tls_server_name),)
            options = _CHANNEL + (named if address.tls_server_name else ())
            self._channel = grpc.secure_channel(target, trusted, options)
        self._stub: Any = val_pb2_grpc.VALStub(self._channel)

    def unit_of(self, path: str) -> str | None:
        """The unit of a signal in the broker's words; None when it does not have the signal."""
        request = self._messages.ListMetadataRequest(root=path)
        absent = (self._grpc.StatusCode.NOT_FOUND,)
        answer = self._ask(self._stub.ListMetadata, request, absent)
        found = [] if answer is None else [entry for entry in answer.metadata if entry.path == path]
        return str(found[0].unit) if found else None

    def subscribe(self, paths: Sequence[str]) -> Iterator[Mapping[str, Published]]:
        """The present datapoints, then every publication, until the connection ends."""
        request = self._messages.SubscribeRequest(signal_paths=paths)
        try:
            for response in self._stub.Subscribe(request, metadata=self._metadata):
                yield {path: _published(datapoint) for path, datapoint in response.entries.items()}
        except self._grpc.RpcError as error:
            raise self._gone(error) from error
        except ValueError as error:  # gRPC's word for a channel that was closed
            raise BrokerGoneError(f"{self._where}: {error}") from error
        raise BrokerGoneError(f"{self._where}: the broker ended the subscription")

    def answers(self) -> None:
        """Return once the broker has answered."""
        self._ask(self._stub.GetServerInfo, self._messages.GetServerInfoRequest())

    def close(self) -> None:
        """End the connection. Idempotent."""
        self._channel.close()

    def _ask(self, method: Callable[..., Any], request: Any, absent: Sequence[Any] = ()) -> Any:
        """The answer; None for a status among `absent`."""
        try:
            return method(request, metadata=self._metadata, timeout=ANSWER_WITHIN_S)
        except self._grpc.RpcError as error:
            if error.code() in absent:
                return None
            raise self._gone(error) from error
        except ValueError as error:  # gRPC's word for a channel that was closed
            raise BrokerGoneError(f"{self._where}: {error}") from error

    def _gone(self, error: Any) -> BrokerGoneError:
        return BrokerGoneError(f"{self._where}: {error.code().name}: {error.details()}")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BrokerGoneError(f"{path}: {error.strerror}") from error


def _published(datapoint: Any) -> Published:
    """A datapoint as it came; an array is a value that no signal of ours has."""
    kind = datapoint.value.WhichOneof("typed_value")
    value = None if kind is None else getattr(datapoint.value, kind)
    if not datapoint.HasField("timestamp"):
        return Published(value, None)
    return Published(value, datapoint.timestamp.seconds * 1_000_000_000 + datapoint.timestamp.nanos)
