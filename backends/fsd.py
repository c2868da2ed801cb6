"""ONNX models on the FSD computer's NPUs: behind a driver of whoever has the hardware, or on the emulator.

The emulator computes real results on the host's processor; its joules come out of a model and are marked as that.
docs/fsd.md says what is published of the chip, what is fitted, and what fits it badly.
"""

import weakref
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, model_validator

from backends.fsd_failures import as_kernel_errors
from backends.kernel import BACKEND_UNUSABLE, Device, KernelError, Model, Needs
from backends.onnx_session import model_bytes, runtime_imported
from firmware_shims.fsd.driver import open_device
from firmware_shims.fsd.interface import PROGRAM_FORMAT, NpuDevice

if TYPE_CHECKING:
    from backends.explanation import Explanation
    from backends.fsd_calibration import Calibration
    from backends.fsd_program import FsdProgram

EMULATOR: Final = "emulator"
INSTALL: Final = "pip install 'parkwatt[fsd]'"


class FsdOptions(BaseModel):
    """`[backends.options]` of the fsd backend."""

    model_config = ConfigDict(extra="forbid")

    driver: Path | None = Field(
        default=None, description="shared library that implements fsd_npu.h; without one, the emulator"
    )
    device: NonNegativeInt = Field(default=0, description="which of the driver's devices")
    calibration: Path | None = Field(
        default=None,
        description="typical rows for models in floats: a folder of INPUT.npy, or an .npz with an array for each INPUT",
    )
    way: Literal["fast", "reference"] = Field(
        default="fast",
        description="the emulator computes by onnxruntime, or by NumPy: the same results, some hundred times slower",
    )
    threads: int = Field(
        default=1,
        ge=1,
        le=256,
        description="threads of one run, of each emulated NPU and of the host's parts",
    )
    pace: bool = Field(
        default=False,
        description="the emulator's runs take at least the time that the chip is modelled to take",
    )
    arena_bytes: int = Field(
        default=1 << 30,
        ge=1 << 20,
        description="what a part on the host keeps at most for intermediate results, and the largest tensor",
    )

    @model_validator(mode="after")
    def _fits_the_device(self) -> Self:
        if self.driver is None:
            if self.device:
                raise ValueError(f"device = {self.device} needs a driver: there is one emulator, device = 0")
            return self
        if self.pace:
            raise ValueError("pace = true is the emulator's: a driver's device has a speed of its own")
        if self.way != "fast":
            raise ValueError(f"way = {self.way!r} is the emulator's: leave it out where a driver is set")
        return self


class Fsd:
    """One device: `emulator`, or what the driver opens. It is opened once, for as long as the backend lives."""

    name: ClassVar[str] = "fsd"
    Options: ClassVar[type[BaseModel]] = FsdOptions
    # quantising writes the floats of a model to a file, and looks at them whole
    needs: ClassVar[Needs] = Needs(file_bytes=2 << 30, interpreter_held_s=4.0)

    def __init__(self, options: FsdOptions) -> None:
        self._options = options
        self._device: NpuDevice | None = None
        self._calibration: Calibration | None = None
        self.version = ""

    def probe(self) -> Sequence[Device]:
        """Open the device, and the calibration data: a confined worker opens neither."""
        try:
            device = self._opened()
        except KernelError as error:
            name = EMULATOR if self._options.driver is None else f"fsd:{self._options.device}"
            return [Device(name, ("onnx",), why=error.text)]
        return [Device(self._name(device), (_format(device),))]

    def load(self, model: Model, device: str) -> "FsdProgram":
        """Take an ONNX model, or for a driver with a program format of its own a program, as it is."""
        opened = self._opened()
        if device != self._name(opened):
            raise KernelError(BACKEND_UNUSABLE, f"fsd has no device {device!r}, only {self._name(opened)!r}")
        from backends.fsd_loading import Loading  # noqa: PLC0415 - brings numpy

        options = self._options
        loading = Loading(opened, self, options.threads, options.arena_bytes, options.pace)
        if _format(opened) == "onnx":
            return loading.of_model(model, self._calibration)
        return loading.of_program(model)

    def explain(self, model: Model) -> "Explanation":
        """Where the layers of an ONNX model run and what they are modelled to cost; no device is opened.

        A model without inputs is explained with the sizes that its file fixes. Raises `KernelError`.
        """
        _runtime()
        from backends.fsd_explain import explained  # noqa: PLC0415 - brings numpy

        return explained(model_bytes(model, self.name), model, self._options.arena_bytes)

    def _opened(self) -> NpuDevice:
        if self._device is None:
            runtime = _runtime()
            self._calibration = self._calibration_set()
            with as_kernel_errors(BACKEND_UNUSABLE):
                self._device = self._open()
            weakref.finalize(self, self._device.close)
            self.version = f"{self._device.capabilities.version}, {runtime}"
        return self._device

    def _open(self) -> NpuDevice:
        if self._options.driver is not None:
            return open_device(self._options.driver, self._options.device)
        from firmware_shims.fsd.emulator import Emulator  # noqa: PLC0415 - brings numpy

        return Emulator(self._options.way, self._options.threads)

    def _calibration_set(self) -> "Calibration | None":
        if self._options.calibration is None:
            return None
        from backends.fsd_calibration import opened  # noqa: PLC0415 - brings numpy

        found = opened(self._options.calibration)
        weakref.finalize(self, found.close)
        return found

    def _name(self, device: NpuDevice) -> str:
        if self._options.driver is None:
            return EMULATOR
        return f"fsd:{self._options.device} {device.capabilities.name}"


def _runtime() -> str:
    """What quantises, and computes the host's part; raises `KernelError` where it is missing."""
    try:
        runtime = runtime_imported()
        import onnx  # noqa: F401, PLC0415 - only in the worker
    except ImportError as error:
        raise KernelError(BACKEND_UNUSABLE, f"{error}; {INSTALL}") from error
    return f"onnxruntime {runtime.__version__}, onnx {metadata.version('onnx')}"


def _format(device: NpuDevice) -> str:
    """The format of the models that are loaded on a device."""
    own = device.capabilities.program_format
    return "onnx" if own == PROGRAM_FORMAT else own
