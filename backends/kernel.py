"""The kernel interface: what a hardware team implements to lend its chip to parkwatt.

Plain synchronous Python. Every method is called in the worker process and from one thread, except
`Program.cancel`, which may come from any thread. A backend module imports its runtime inside these
methods, never at its top: the supervisor imports the module to validate options and must stay small.

docs/writing-a-backend.md leads through it; `python -m backends.contract MODULE:CLASS` checks the result.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, Protocol

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
class Cost:
    """What running costs here, measured at load. Empty or None means not measured.

    It holds for the model's hash and shapes, the backend's version, the device and the options; the agent keeps
    it and follows what runs really take. Batch sizes between the measured ones are interpolated.
    """

    run_s: Mapping[int, float] = field(default_factory=dict)
    """Seconds of one run by batch size. Without it the batch is 1."""
    run_j: Mapping[int, float] = field(default_factory=dict)
    """Joules of one run by batch size. A backend gives them only where the device counts them itself; in a cost
    that comes from the agent they are what the system's meter said."""
    bytes_resident: int | None = None
    """Memory that `close` gives back, of host and device together: what decides who is unloaded first."""
    cancel_bound_s: float | None = None
    """From `cancel()` to `run` having returned, at batch 1; it grows with the batch as `run_s` does.

    None: `cancel` cannot end a run that is under way, and preemption is by signal.
    """

    @property
    def batches(self) -> bool:
        """Whether runs of more than one row have been seen to work."""
        return max(self.run_s, default=1) > 1


@dataclass(frozen=True, slots=True)
class Model:
    """What to load. `inputs` are the shapes that will be fed; `outputs` the names wanted, empty for all."""

    path: Path
    sha256: str
    format: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[str, ...] = ()
    known: Cost | None = None
    """What an earlier load of the same has measured: `load` may take it over and measure nothing."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What one run took: CLOCK_BOOTTIME nanoseconds, and joules only where the device has a figure for this run.

    A device that shares its counter with others, or whose window was shorter than the counter's step, gives
    None: the system's meters have an owner of their own outside the worker.
    """

    begin_ns: int
    end_ns: int
    joules: float | None = None
    joules_source: Literal["counter", "model"] = "counter"
    """Counted by the device, or predicted, as an emulator does. What a meter has measured wins over a prediction."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What a backend needs of a worker beyond its interpreter, its libraries and the model's file.

    After `probe` a worker is confined: it sees only these files, has no network, starts no process, and its
    memory, files and processor time are bounded. What was opened in `probe` stays open.
    """

    read: tuple[str, ...] = ()
    """Files and folders, absolute, patterns allowed."""
    devices: tuple[str, ...] = ()
    """Device files that are read, written and controlled, patterns allowed."""
    reserves_addresses: bool = False
    """Its driver reserves far more address space than it fills (as CUDA does): memory is bounded otherwise."""
    file_bytes: int = 64 * 1024**2
    """The largest file that it writes into the worker's scratch folder."""
    interpreter_held_s: float = 1.5
    """Longest time for which native code keeps the interpreter's lock. The worker of a supervisor that hangs
    lives on for so long and 0.4 s more, because no Python code can look in between."""


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
        """End a run that is under way; idempotent, returns at once, without a run it does nothing.

        A runtime that cannot be interrupted does nothing either and leaves `cost.cancel_bound_s` None.
        """

    def close(self) -> None:
        """Let go of the device and the memory; a second time it does nothing."""


class Backend(Protocol):
    """A runtime. `Options` is its configuration: `[backends.options]` in agent.toml goes through it.

    A class attribute `needs: ClassVar[Needs]` says what it needs beyond `Needs()`.
    """

    name: ClassVar[str]
    version: str
    """The runtime's version; may be empty until the first `probe` or `load`."""
    Options: "ClassVar[type[BaseModel]]"

    def __init__(self, options: Any) -> None:
        """Keep the validated options; touch no device yet."""

    def probe(self) -> Sequence[Device]:
        """Really try every device; never raises.

        An absent device is not in the list. One that is there but cannot be used, or that a missing package
        keeps from being used, is: with `why` and what to do.
        """

    def load(self, model: Model, device: str) -> Program:
        """Compile, warm up and measure on `device`, or raise `KernelError`: never run anywhere else.

        The file is not trusted: MODEL_INVALID for what is no model, MODEL_UNSUPPORTED for one that this
        backend, the shapes or the names do not fit, with the name and what would fit in the text.
        """
