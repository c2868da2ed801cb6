"""The configuration: one TOML file, every key overridable by environment (`PARKWATT_MQTT__PORT=1884`)."""

import grp
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Self, TypeVar, get_args

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

from agent import stay_prior
from agent.config_file import ConfigError, OptionsError, merged, read
from agent.meter_settings import MeterSettings
from agent.policy.settings import PolicySettings
from agent.protocol import messages
from backends import registry as backend_registry
from backends.limits import LOAD_S, MEMORY_BYTES
from firmware_shims import registry as signal_registry
from firmware_shims.clock import Clock, boottime_ns
from firmware_shims.reading import Source

T = TypeVar("T")
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


def _socket_path(path: Path) -> Path:
    if len(os.fsencode(path)) > SOCKET_PATH_MAX_BYTES:
        raise ValueError(f"should be a path of at most {SOCKET_PATH_MAX_BYTES} bytes (unix(7))")
    return path


def _prior(path: Path) -> Path:
    stay_prior.load(path)
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
ModelSource = Annotated[str, _matching(r"(file:///|https://[^/]).*", "file:///a/folder or https://host/path")]
ReadableFile = Annotated[Path, AfterValidator(_readable_file)]


class Section(BaseModel):
    """A table of agent.toml: unknown keys are an error and nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class VehicleSettings(Section):
    """Which car this is and where it may be said to be."""

    id: VehicleId
    region: Region
    stay_prior_file: Annotated[Path, AfterValidator(_prior)] | None = None
    """How long cars like this one stay, from the fleet; without it the curves that ship."""

    @property
    def country(self) -> str:
        """ISO 3166-1 alpha-2."""
        return self.region[:2]


class MqttSettings(Section):
    """The broker. TLS is on when `ca_file` is set."""

    host: Annotated[str, Field(min_length=1, max_length=253)] = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65_535)] = 1883
    root: TopicRoot = "fleet/v1"
    keepalive_s: Annotated[int, Field(ge=5, le=65_535)] = 30
    max_payload_bytes: Annotated[int, Field(ge=1_024, le=134_217_728)] = 131_072
    receive_maximum: Annotated[int, Field(ge=1, le=65_535)] = 64
    username: str | None = None
    password_file: ReadableFile | None = None
    ca_file: ReadableFile | None = None
    cert_file: ReadableFile | None = None
    key_file: ReadableFile | None = None

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
    """Where models come from, `{source}/{sha256}`, and where they are kept."""

    source: ModelSource = "file:///var/lib/parkwatt/models"
    cache_dir: Path = Path("/var/cache/parkwatt")
    cache_max_bytes: PositiveInt = 2_000_000_000


class TrustSettings(Section):
    """Who may send work, and from where it may come. `residency` defaults to the vehicle's country."""

    require_signatures: bool = True
    task_keys_dir: Path = Path("/etc/parkwatt/keys")
    residency: Annotated[tuple[Region, ...], AfterValidator(_some)] = ()


class StoreSettings(Section):
    """The durable inbox and outbox."""

    path: Path = Path("/var/lib/parkwatt/agent.db")
    max_bytes: Annotated[int, Field(ge=1_000_000)] = 500_000_000


class ControlSettings(Section):
    """The Unix socket for the vehicle's operating system and `parkwatt status`.

    The agent's user can open it, and the members of `group` if one is set.
    """

    socket: Annotated[Path, AfterValidator(_socket_path)] = Path("/run/parkwatt/agent.sock")
    group: Annotated[str, AfterValidator(_known_group)] | None = None


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
    trust: TrustSettings = Field(default_factory=TrustSettings)
    store: StoreSettings = Field(default_factory=StoreSettings)
    control: ControlSettings = Field(default_factory=ControlSettings)

    def open_signals(self, clock: Clock) -> list[Source]:
        """A source for each `[[signals]]`, in their order; a shim's second one is called `can-2`."""
        names = [section.shim for section in self.signals]
        turns = [names[: index + 1].count(name) for index, name in enumerate(names)]
        return [
            section.open(name if turn == 1 else f"{name}-{turn}", clock)
            for section, name, turn in zip(self.signals, names, turns, strict=True)
        ]

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
