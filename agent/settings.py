"""The configuration: one TOML file, every key overridable by environment (`PARKWATT_MQTT__PORT=1884`)."""

import grp
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from agent import region_file, stay_prior
from agent.config_file import ConfigError, OptionsError, merged, read
from agent.fetch.errors import NotFetched
from agent.fetch.place import HostPattern, Rules, checked
from agent.logs import LogFormat
from agent.meter_settings import MeterSettings
from agent.metrics.address import Endpoint, address
from agent.policy.region import Region as RegionOnTheMap
from agent.policy.settings import PolicySettings
from agent.protocol import messages
from agent.secret_file import exposure
from agent.store.room import reserve_of
from backends import registry as backend_registry
from backends.limits import LOAD_S, MEMORY_BYTES
from firmware_shims import registry as signal_registry
from firmware_shims.clock import Clock, boottime_ns
from firmware_shims.reading import Source

T = TypeVar("T")
MESSAGES_KEPT: Final = 3
"""Results that a full store can always hold: with them it empties itself (see agent.store.room)."""
SOCKET_PATH_MAX_BYTES: Final = 107
"""unix(7): sun_path holds 108 bytes with the final NUL."""


def _matching(pattern: str, words: str) -> AfterValidator:
    """A string of this form; `words` say the form to people."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(f"should be {words}")
        return value

    return AfterValidator(check)


def _some(values: tuple[T, ...]) -> tuple[T, ...]:
    if not values:
        raise ValueError("should have at least one entry")
    return values


def _readable_file(path: Path) -> Path:
    try:
        path.open("rb").close()
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror}): give the path of a readable file") from error
    return path


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError("should be an absolute path")
    return path


def _model_source(url: str) -> str:
    try:
        checked(url, Rules("models"))
    except NotFetched as error:
        raise ValueError(f"{error.text}; should be file:///a/folder or https://host/path") from error
    if "?" in url:
        raise ValueError("has a query, and the hash of a model is put behind it: give a URL without one")
    return url


def _host_pattern(host: str) -> str:
    HostPattern.of(host)
    return host


def _secret_file(path: Path) -> Path:
    if problem := exposure(_readable_file(path)):
        raise ValueError(problem)
    return path


def _socket_path(path: Path) -> Path:
    if len(os.fsencode(path)) > SOCKET_PATH_MAX_BYTES:
        raise ValueError(f"should be a path of at most {SOCKET_PATH_MAX_BYTES} bytes (unix(7))")
    return path


def _metrics_address(listen: str) -> str:
    if listen and isinstance(found := address(listen), Path):
        _socket_path(found)
    return listen


def _prior(path: Path) -> Path:
    stay_prior.load(path)
    return path


def _region_file(path: Path) -> Path:
    region_file.load(path)
    return path


def _known_group(name: str) -> str:
    try:
        grp.getgrnam(name)
    except KeyError as error:
        raise ValueError("no such group on this computer: create it, or leave it out") from error
    return name


def _known_backend(use: str) -> str:
    try:
        backend_registry.find(use)
    except backend_registry.UnknownBackend as error:
        raise ValueError(str(error)) from error
    return use


def _backend_options(options: dict[str, Any], section: ValidationInfo) -> dict[str, Any]:
    if use := section.data.get("use"):
        try:
            backend_registry.validate_options(use, options)
        except ValidationError as error:
            raise OptionsError(backend_registry.find(use).Options, error) from error
    return options


def _wire_pattern(wire_type: Any) -> str:
    """The pattern that the wire contract has for a string: it stands there and only there."""
    return str(get_args(wire_type)[1].pattern)


REGION_PATTERN: Final = _wire_pattern(messages.Region)

VehicleId = Annotated[str, _matching(_wire_pattern(messages.Id), "1-64 of A-Z a-z 0-9 _ -")]
Region = Annotated[
    str,
    _matching(_wire_pattern(messages.Region), 'ISO 3166-1 alpha-2 ("BR") or with a subdivision ("BR-SP")'),
]
TopicRoot = Annotated[
    str,
    # AWS IoT Core allows 7 slashes in a topic, and region, vehicle and name take three of them.
    _matching(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+){0,4}", '1-5 levels of A-Z a-z 0-9 _ . - ("fleet/v1")'),
]
ModelSource = Annotated[str, AfterValidator(_model_source)]
ReadableFile = Annotated[Path, AfterValidator(_readable_file)]
SecretFile = Annotated[Path, AfterValidator(_secret_file)]
AbsolutePath = Annotated[Path, AfterValidator(_absolute)]


class Section(BaseModel):
    """A table of agent.toml: unknown keys are an error and nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class VehicleSettings(Section):
    """Which car this is and where it may be said to be."""

    id: VehicleId
    region: Region
    stay_prior_file: Annotated[Path, AfterValidator(_prior)] | None = None
    """How long cars like this one stay, from the fleet; without it the curves that ship."""
    region_file: Annotated[Path, AfterValidator(_region_file)] | None = None
    """The outline of `region` as GeoJSON; a car that is seen outside of it blocks itself. Without it nobody looks."""
    region_margin_m: Annotated[float, Field(ge=0, le=100_000)] = 1_000
    """How far outside a position still counts as inside: outlines are coarse, and receivers err."""

    @property
    def country(self) -> str:
        """ISO 3166-1 alpha-2."""
        return self.region[:2]

    @property
    def on_the_map(self) -> RegionOnTheMap | None:
        """What the car's position is held against; None without an outline."""
        if self.region_file is None:
            return None
        return RegionOnTheMap(self.region, region_file.load(self.region_file), self.region_margin_m)


class MqttSettings(Section):
    """The broker. TLS is on when `ca_file` is set."""

    host: Annotated[str, Field(min_length=1, max_length=253)] = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65_535)] = 1883
    root: TopicRoot = "fleet/v1"
    keepalive_s: Annotated[int, Field(ge=5, le=65_535)] = 30
    max_payload_bytes: Annotated[int, Field(ge=1_024, le=134_217_728)] = 131_072
    receive_maximum: Annotated[int, Field(ge=1, le=65_535)] = 64
    username: str | None = None
    password_file: SecretFile | None = None
    ca_file: ReadableFile | None = None
    cert_file: ReadableFile | None = None
    key_file: SecretFile | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file go together: give both or neither")
        if self.cert_file and not self.ca_file:
            raise ValueError(
                "cert_file without ca_file would not be used: set ca_file, which switches TLS on"
            )
        if self.password_file and not self.username:
            raise ValueError("password_file without username: set username")
        return self


class SignalSettings(Section):
    """One source of signals. `options` belong to the shim; map and options have been tried by it."""

    shim: str
    map: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)

    def open(self, name: str, clock: Clock) -> Source:
        """The source itself, not running yet; raises ValueError or OSError."""
        return signal_registry.open_source(
            self.shim, name=name, map=self.map, options=self.options, clock=clock
        )

    @model_validator(mode="after")
    def _can_be_opened(self) -> Self:
        try:
            self.open(self.shim, boottime_ns)
        except OSError as error:
            raise ValueError(
                f"{error.filename or self.shim}: {error.strerror}; correct map or options"
            ) from error
        return self


class BackendSettings(Section):
    """One inference backend. `options` have passed the backend's own model.

    `max_memory_bytes` bounds what models take beyond their runtime, `max_load_s` how long one may take to load.
    """

    use: Annotated[str, AfterValidator(_known_backend)]
    max_power_w: Annotated[float, Field(gt=0, le=10_000)]
    max_memory_bytes: Annotated[int, Field(ge=64 * 1024**2)] = MEMORY_BYTES
    max_load_s: Annotated[float, Field(ge=1, le=3600)] = LOAD_S
    options: Annotated[dict[str, Any], AfterValidator(_backend_options)] = Field(
        default_factory=dict, validate_default=True
    )


def _distinct(backends: tuple[BackendSettings, ...]) -> tuple[BackendSettings, ...]:
    names = [backend.use for backend in backends]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"a task names a backend, so each stands once; merge the entries of {twice[0]!r}")
    return backends


class TaskSettings(Section):
    """How much accepted, unfinished work may wait; one task always fits."""

    queue_s: Annotated[float, Field(gt=0, le=86_400)] = 10
    queue_tasks: PositiveInt = 64
    queue_bytes: PositiveInt = 16_777_216


class ModelSettings(Section):
    """Where models come from, `{source}/{sha256}`, and where they are kept.

    `max_bytes` bounds one model, without it only the cache does. `private_networks` and `ca_file` are for https: the
    source and what it redirects to may be on this computer or its networks, and who issues their certificates.
    """

    source: ModelSource = "file:///var/lib/parkwatt/models"
    cache_dir: Path = Path("/var/cache/parkwatt")
    cache_max_bytes: PositiveInt = 2_000_000_000
    max_bytes: PositiveInt | None = None
    private_networks: bool = False
    ca_file: ReadableFile | None = None

    @property
    def largest_bytes(self) -> int:
        """The most that one model may have."""
        return min(self.max_bytes or self.cache_max_bytes, self.cache_max_bytes)

    @property
    def rules(self) -> Rules:
        """What may be fetched as a model: the owner has named the source, so its host needs no further list."""
        return Rules("models", private_networks=self.private_networks, ca_file=self.ca_file)


class InputSettings(Section):
    """Inputs that a task names by URL: from which hosts and folders, and how much at a time. Without either, none."""

    hosts: tuple[Annotated[str, AfterValidator(_host_pattern)], ...] = ()
    file_dirs: tuple[AbsolutePath, ...] = ()
    max_bytes: PositiveInt = 268_435_456
    private_networks: bool = False
    ca_file: ReadableFile | None = None

    @property
    def rules(self) -> Rules:
        """What may be fetched as inputs."""
        hosts = tuple(HostPattern.of(host) for host in self.hosts)
        return Rules("inputs", hosts, self.file_dirs, self.private_networks, self.ca_file)


class TrustSettings(Section):
    """Who may send work, and from where it may come. `residency` defaults to the vehicle's country."""

    require_signatures: bool = True
    task_keys_dir: Path = Path("/etc/parkwatt/keys")
    """`<kid>.pem` is a key that is trusted, `<kid>.revoked` one that is not; both may come and go at any time."""
    max_age_s: Annotated[float, Field(ge=60, le=31_536_000)] = 86_400
    """A signed task that was issued longer ago is refused; a broker keeps one for a day."""
    residency: Annotated[tuple[Region, ...], AfterValidator(_some)] = ()


class StoreSettings(Section):
    """The durable inbox and outbox. `ballast_bytes` of its disk are held, and given back when that is full."""

    path: Path = Path("/var/lib/parkwatt/agent.db")
    max_bytes: Annotated[int, Field(ge=1_000_000)] = 500_000_000
    ballast_bytes: Annotated[int, Field(ge=0, le=1_000_000_000)] = 8_388_608


class ControlSettings(Section):
    """The Unix socket for the vehicle's operating system and `parkwatt status`.

    The agent's user can open it, and the members of `group` if one is set.
    """

    socket: Annotated[Path, AfterValidator(_socket_path)] = Path("/run/parkwatt/agent.sock")
    group: Annotated[str, AfterValidator(_known_group)] | None = None


class LogSettings(Section):
    """Where the log goes (see `agent.logs`), and from which level on."""

    format: LogFormat = "auto"
    level: Literal["debug", "info", "warning", "error"] = "info"


class MetricsSettings(Section):
    """Numbers for Prometheus; none without `listen`. A socket is for the agent's user and the members of `group`."""

    listen: Annotated[str, AfterValidator(_metrics_address)] = ""
    group: Annotated[str, AfterValidator(_known_group)] | None = None

    @property
    def address(self) -> Path | Endpoint | None:
        """A Unix socket or a loopback port; None where no metrics are wanted."""
        return address(self.listen) if self.listen else None

    @model_validator(mode="after")
    def _group_of_a_socket(self) -> Self:
        if self.group is not None and not isinstance(self.address, Path):
            raise ValueError("group is for a Unix socket: set listen to one, or leave it out")
        return self


class Settings(Section):
    """Everything that agent.toml says, checked and frozen."""

    vehicle: VehicleSettings
    mqtt: MqttSettings = Field(default_factory=MqttSettings)
    signals: Annotated[tuple[SignalSettings, ...], AfterValidator(_some)]
    policy: PolicySettings = Field(default_factory=PolicySettings)
    backends: Annotated[tuple[BackendSettings, ...], AfterValidator(_some), AfterValidator(_distinct)]
    meter: MeterSettings = Field(default_factory=MeterSettings)
    tasks: TaskSettings = Field(default_factory=TaskSettings)
    models: ModelSettings = Field(default_factory=ModelSettings)
    inputs: InputSettings = Field(default_factory=InputSettings)
    trust: TrustSettings = Field(default_factory=TrustSettings)
    store: StoreSettings = Field(default_factory=StoreSettings)
    control: ControlSettings = Field(default_factory=ControlSettings)
    log: LogSettings = Field(default_factory=LogSettings)
    metrics: MetricsSettings = Field(default_factory=MetricsSettings)

    def open_signals(self, clock: Clock) -> list[Source]:
        """A source for each `[[signals]]`, in their order; a shim's second one is called `can-2`."""
        names = [section.shim for section in self.signals]
        turns = [names[: index + 1].count(name) for index, name in enumerate(names)]
        return [
            section.open(name if turn == 1 else f"{name}-{turn}", clock)
            for section, name, turn in zip(self.signals, names, turns, strict=True)
        ]

    @model_validator(mode="after")
    def _results_fit(self) -> Self:
        kept_bytes, message_bytes = reserve_of(self.store.max_bytes), self.mqtt.max_payload_bytes
        if kept_bytes < MESSAGES_KEPT * message_bytes:
            raise ValueError(
                f"store.max_bytes = {self.store.max_bytes} keeps {kept_bytes} bytes for results, which should be"
                f" {MESSAGES_KEPT} times mqtt.max_payload_bytes = {message_bytes}: raise the one or lower the other"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _reside_at_home(cls, data: Any) -> Any:
        """Where the vehicle may compute defaults to its own country."""
        match data:
            case {"vehicle": {"region": str(region)}} if re.fullmatch(REGION_PATTERN, region):
                return merged({"trust": {"residency": [region[:2]]}}, data)
        return data


def load(path: Path, environ: Mapping[str, str] = os.environ) -> Settings:
    """The settings in the file at `path` with what `environ` overrides; every fault at once as `ConfigError`."""
    return read(path, environ, Settings)


__all__ = ["ConfigError", "Settings", "load"]
