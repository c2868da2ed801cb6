"""What a device behind the driver interface says, in the kernel's words."""

import contextlib
from collections.abc import Iterator
from typing import Final

from backends.kernel import (
    BACKEND_UNUSABLE,
    INFERENCE_FAILED,
    MODEL_INVALID,
    MODEL_UNSUPPORTED,
    OUT_OF_MEMORY,
    KernelError,
)
from backends.onnx_runs import code_of
from firmware_shims.fsd.interface import Code, FsdError

MEANINGS: Final = {
    Code.NO_DEVICE: BACKEND_UNUSABLE,
    Code.BUSY: BACKEND_UNUSABLE,
    Code.BAD_ARGUMENT: INFERENCE_FAILED,
    Code.BAD_PROGRAM: MODEL_INVALID,
    Code.UNSUPPORTED: MODEL_UNSUPPORTED,
    Code.NO_MEMORY: OUT_OF_MEMORY,
    Code.TIMED_OUT: INFERENCE_FAILED,
    Code.ABORTED: INFERENCE_FAILED,
    Code.DEVICE_LOST: BACKEND_UNUSABLE,
    Code.OVERHEATED: BACKEND_UNUSABLE,
}


def kernel_error(error: FsdError) -> KernelError:
    """The same failure. One inside of the emulator may be onnxruntime's, for want of memory."""
    return KernelError(MEANINGS.get(error.code) or code_of(error), str(error))


@contextlib.contextmanager
def as_kernel_errors(code: int | None = None) -> Iterator[None]:
    """Turn what a device says into `KernelError`, of `code` where one is given."""
    try:
        yield
    except FsdError as error:
        raise (KernelError(code, str(error)) if code else kernel_error(error)) from error
