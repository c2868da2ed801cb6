"""What a program gives: one whose first dimension is not the number of rows belongs as a whole to the one row of its run."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from backends.kernel import INFERENCE_FAILED, MODEL_UNSUPPORTED, KernelError, Tensor

if TYPE_CHECKING:
    from backends.kernel import Array


def described_outputs(
    names: Sequence[str], datatypes: Sequence[str], arrays: "Sequence[Array]"
) -> tuple[Tensor, ...]:
    """The outputs of which a run of one row gave `arrays`; raises `KernelError` 132 for an empty one."""
    for name, array in zip(names, arrays, strict=True):
        if 0 in array.shape:
            raise KernelError(
                MODEL_UNSUPPORTED,
                f"output {name!r} is empty for an input of zeros: its shape depends on the data",
            )
    return tuple(
        Tensor(name, datatype, array.shape[1:] if array.shape[:1] == (1,) else array.shape)
        for name, datatype, array in zip(names, datatypes, arrays, strict=True)
    )


def fill_output(given: "Array", name: str, array: "Array") -> None:
    """Copy what a run gave into the array that was `given` for it; raises `KernelError` 160 for another shape."""
    if array.shape not in {given.shape, given.shape[1:]}:
        raise KernelError(
            INFERENCE_FAILED,
            f"output {name!r} came with shape {list(array.shape)}, expected {list(given.shape)}",
        )
    given.reshape(array.shape)[...] = array
