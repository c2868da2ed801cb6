"""The kernel interface: what a hardware team implements to lend its chip to parkwatt.

Plain synchronous Python. Every method is called in the worker process and from one thread, except
`Program.cancel`, which may come from any thread. A backend module imports its runtime inside these
methods, never at its top: the supervisor imports the module to validate options and must stay small.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from pydantic import BaseModel

    Array = npt.NDArray[np.generic]

# Reason codes of the wire contract that a backend may give (agent.protocol.reasons has them all)
MODEL_NOT_FOUND: Final = 130
MODEL_UNSUPPORTED: Final = 132
MODEL_INVALID: Final = 133
INFERENCE_FAILED: Final = 160
BACKEND_UNUSABLE: Final = 1020
OUT_OF_MEMORY: Final = 1023
CODES: Final = frozenset(
    {MODEL_NOT_FOUND, MODEL_UNSUPPORTED, MODEL_INVALID, INFERENCE_FAILED, BACKEND_UNUSABLE, OUT_OF_MEMORY}
)


@dataclass(frozen=True, slots=True)
class Device:
    """A device that was found. `why` says why it is unusable; empty means usable."""

    name: str
    formats: tuple[str, ...]
    why: str = ""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor's description. `row_shape` is the shape behind the row (batch) dimension.

    `datatype` is the Open Inference Protocol's name. A `shared` tensor has no row dimension: `row_shape`
    is its whole shape and every row sees the same values.
    """

    name: str
    datatype: str
    row_shape: tuple[int, ...]
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Model:
    """What to load. `inputs` are the shapes that will be fed; `outputs` the names wanted, empty for all."""

    path: Path
    sha256: str
    format: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Cost:
    """What running costs here, measured at load. None means not measured.

    `cancel_bound_s` bounds `cancel()` to `run` having returned, at batch 1; it grows with the batch as
    `run_s` does. Without it preemption is by signal.
    """

    run_s: Mapping[int, float] = field(default_factory=dict)
    """Seconds of one run by batch size."""
    bytes_resident: int | None = None
    cancel_bound_s: float | None = None


@dataclass(frozen=True, slots=True)
class Spent:
    """What one run took: CLOCK_BOOTTIME nanoseconds, and joules only where the device counts them itself."""

    begin_ns: int
    end_ns: int
    joules: float | None = None


class KernelError(Exception):
    """A failure with data. `code` is a reason code of the wire contract, one of `CODES`."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class Cancelled(Exception):  # noqa: N818 - an outcome that was asked for, not an error
    """The run was given up because `cancel` was called."""


class Program(Protocol):
    """A model that is loaded on a device."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    max_batch: int | None
    """Largest number of rows in one run; None without a limit, 1 for a model of fixed batch."""
    cost: Cost

    def run(self, inputs: "Mapping[str, Array]", outputs: "Mapping[str, Array]") -> Spent:
        """Fill `outputs` (given C-contiguous arrays of shape (batch, *row_shape)) from `inputs`.

        `inputs` are read-only, and both are valid until `run` returns and not a moment longer. Raises
        `Cancelled` after `cancel`, `KernelError` for a failure. Never fills in zeros for one.
        """

    def cancel(self) -> None:
        """End a run that is under way; idempotent, returns at once, without a run it does nothing."""

    def close(self) -> None:
        """Let go of the device and the memory."""


class Backend(Protocol):
    """A runtime. `Options` is its configuration: `[backends.options]` in agent.toml goes through it."""

    name: ClassVar[str]
    version: str
    """The runtime's version; may be empty until the first `probe` or `load`."""
    Options: "ClassVar[type[BaseModel]]"

    def __init__(self, options: Any) -> None:
        """Keep the validated options; touch no device yet."""

    def probe(self) -> Sequence[Device]:
        """Really try every device. An absent driver is an empty list; never raises."""

    def load(self, model: Model, device: str) -> Program:
        """Compile, warm up and measure on `device`, or raise `KernelError`: never run anywhere else."""
