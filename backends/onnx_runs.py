"""Runs of an onnxruntime session: each can be cancelled from any thread, and fails in the kernel's words."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from backends.kernel import BACKEND_UNUSABLE, INFERENCE_FAILED, OUT_OF_MEMORY, Cancelled, KernelError, Tensor
from backends.measuring import zeros
from firmware_shims.clock import boottime_ns

if TYPE_CHECKING:
    from backends.kernel import Array

FATAL: Final = 4  # onnxruntime's log level: what fails comes back as an exception
NO_ROOM: Final = (
    "Failed to allocate memory",
    "Available memory of",
    "bad_alloc",
    "bad allocation",
    "out of memory",
)
"""How the allocators' failures, CUDA's too, are told from others: they have no class of their own."""
GPU_FAILED: Final = ("CUDA failure", "CUBLAS failure", "CUDNN failure")
"""Errors after which CUDA does nothing more in this process, whichever model comes next."""

Result = TypeVar("Result")


class OnnxRuns:
    """A session and its runs, one at a time, until it is closed."""

    def __init__(self, runtime: Any, session: Any) -> None:
        self.session = session
        self._runtime = runtime
        self._failures = failures_of(runtime)
        self._under_way: Any = None
        self._given_up: Any = None

    def call(self, run: Callable[[Any, Any], Result]) -> Result:
        """What `run` returns when given the session and its RunOptions; raises `Cancelled` and `KernelError`."""
        options = self._runtime.RunOptions()  # new each time: `terminate` is sticky
        options.log_severity_level = FATAL
        self._under_way = options
        try:
            return run(self.session, options)
        except self._failures as error:
            if self._given_up is options:  # the exception itself does not tell
                raise Cancelled from error
            raise KernelError(code_of(error), f"onnxruntime: {error}") from error
        finally:
            self._under_way = None

    def cancel(self) -> None:
        """End the run that is under way, if there is one: onnxruntime looks at the flag between nodes."""
        options = self._under_way
        if options is not None:
            self._given_up = options
            options.terminate = True

    def of_zeros(
        self, inputs: Sequence[Tensor], wanted: Sequence[str], rows: int
    ) -> "tuple[float, list[Array]]":
        """Seconds and outputs of a run of so many rows."""
        feed = zeros(inputs, rows)
        begin_ns = boottime_ns()
        arrays = self.call(lambda session, options: session.run(list(wanted), feed, options))
        return (boottime_ns() - begin_ns) / 1e9, arrays

    def close(self) -> bool:
        """Let go of the session; whether it was still held."""
        held, self.session = self.session is not None, None
        return held


def failures_of(runtime: Any) -> tuple[type[Exception], ...]:
    """Every exception class of onnxruntime; they have no base of their own.

    A provider that fails while it starts, and whatever fails in a run with IO binding, is a RuntimeError.
    """
    kinds = vars(runtime.capi.onnxruntime_pybind11_state).values()
    own = (kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Exception))
    return (*own, RuntimeError)


def code_of(error: Exception) -> int:
    """The reason code of a failed run."""
    text = str(error)
    if any(words in text for words in NO_ROOM):
        return OUT_OF_MEMORY
    return BACKEND_UNUSABLE if any(words in text for words in GPU_FAILED) else INFERENCE_FAILED
