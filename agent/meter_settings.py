"""Section `[meter]` of agent.toml: where joules come from when no device counts them for a run by itself."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from agent.config_file import OptionsError
from firmware_shims.clock import Clock, boottime_ns
from firmware_shims.power.hwmon import HwmonCounter, hwmon_power
from firmware_shims.power.ina3221 import ina3221
from firmware_shims.power.meter import Meter, Scope
from firmware_shims.power.nvml import LIBRARY, NvmlMeter
from firmware_shims.power.pack import pack
from firmware_shims.power.rapl import RaplMeter
from firmware_shims.power.sampled import PERIOD_S
from firmware_shims.reading import Snapshot

SeenSignals = Callable[[], Snapshot]
SYSFS: Final = Path("/sys")
GPU_BACKENDS: Final = frozenset({"nvidia"})
"""What a meter of GPUs measures and one of processors does not, where `covers` does not say it."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ModelMeterOptions(_Table):
    """Joules as CPU seconds x watts per core: a model, and reported as one."""

    watts_per_core: Annotated[float, Field(gt=0, le=1_000)]


class RaplOptions(_Table):
    """`root` is where sysfs is mounted."""

    root: Path = SYSFS

    def meter(self, _: SeenSignals, clock: Clock) -> Meter:
        """The processor packages."""
        return RaplMeter(clock, self.root)


class HwmonOptions(_Table):
    """Sensors as `hwmon:CHIP/LABEL`. `resolution_s`: the averaging interval of the chip, where it has one."""

    sensors: Annotated[tuple[str, ...], Field(min_length=1)]
    counts: Literal["watts", "joules"] = "watts"
    resolution_s: Annotated[float, Field(ge=0.001, le=60)] = PERIOD_S
    root: Path = SYSFS

    def meter(self, _: SeenSignals, clock: Clock) -> Meter:
        """The sum of the sensors."""
        kind = HwmonCounter if self.counts == "joules" else hwmon_power
        return kind(self.sensors, clock, self.root, self.resolution_s)


class Ina3221Options(_Table):
    """Rails by label."""

    rails: Annotated[tuple[str, ...], Field(min_length=1)]
    root: Path = SYSFS

    def meter(self, _: SeenSignals, clock: Clock) -> Meter:
        """The sum of the rails."""
        return ina3221(self.rails, clock, self.root)


class NvmlOptions(_Table):
    """GPUs by UUID (`nvidia-smi -L`); all of them when none is named. `library`: another file than the driver's."""

    gpus: tuple[str, ...] = ()
    library: str = LIBRARY

    def meter(self, _: SeenSignals, clock: Clock) -> Meter:
        """The sum of the GPUs."""
        return NvmlMeter(clock, self.gpus, self.library)


class PackOptions(_Table):
    """The car's signals of its traction battery need no options."""

    def meter(self, snapshot: SeenSignals, clock: Clock) -> Meter:
        """What the traction battery gives."""
        return pack(snapshot, clock)


MeterOptions = ModelMeterOptions | RaplOptions | HwmonOptions | Ina3221Options | NvmlOptions | PackOptions
_OPTIONS: Final[dict[str, type[MeterOptions]]] = {
    "model": ModelMeterOptions,
    "rapl": RaplOptions,
    "hwmon": HwmonOptions,
    "ina3221": Ina3221Options,
    "nvml": NvmlOptions,
    "pack": PackOptions,
}


def _options(raw: Any, section: ValidationInfo) -> MeterOptions | None:
    if "use" not in section.data:
        return None  # that is wrong already
    kind = _OPTIONS.get(section.data["use"])
    if kind is None:
        if raw:
            raise ValueError("options are for a meter: name it in meter.use, or remove [meter.options]")
        return None
    try:
        return kind.model_validate(raw or {})
    except ValidationError as error:
        raise OptionsError(kind, error) from error


class MeterSettings(_Table):
    """One meter for the whole computer. A task's joules are comparable only where they come from one source.

    `covers`: the backends whose work it measures. By default a meter of GPUs covers `nvidia`, one of processor
    packages every other, and the rest all of them. What is not covered has no joules, unless its device counts them.
    """

    use: Literal["none", "model", "rapl", "hwmon", "ina3221", "nvml", "pack"] = "none"
    covers: tuple[str, ...] = ()
    options: Annotated[MeterOptions | None, BeforeValidator(_options)] = Field(
        default=None, validate_default=True
    )

    @property
    def watts_per_core(self) -> float | None:
        """What the model is configured with; None for every other meter."""
        return self.options.watts_per_core if isinstance(self.options, ModelMeterOptions) else None

    def meter(self, snapshot: SeenSignals, clock: Clock) -> Meter | None:
        """The meter itself, which nothing has been read from; None without one. `snapshot`: the car's signals."""
        if self.options is None or isinstance(self.options, ModelMeterOptions):
            return None
        return self.options.meter(snapshot, clock)

    def covered(self, backend: str, scope: Scope) -> bool:
        """Whether a meter of this scope measures what a backend does."""
        if self.covers:
            return backend in self.covers
        match scope:
            case Scope.GPU:
                return backend in GPU_BACKENDS
            case Scope.PACKAGE:
                return backend not in GPU_BACKENDS
        return True

    @model_validator(mode="after")
    def _can_be_made(self) -> Self:
        self.meter(lambda: Snapshot(0, {}), boottime_ns)
        return self
