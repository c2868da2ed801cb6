"""What the checks have in common: inputs, runs, and comparing what comes out."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from backends.contract.subject import require
from backends.datatypes import NUMPY_NAMES
from backends.kernel import KernelError, Program, Tensor
from backends.slots import shape

if TYPE_CHECKING:
    from backends.kernel import Array

ROWS: Final = 5


def most_rows(program: Program) -> int:
    """How many rows the checks give at once."""
    return min(ROWS, program.max_batch or ROWS)


def some_inputs(tensors: Sequence[Tensor], rows: int) -> "dict[str, Array]":
    """Small seeded values, the same each time and different in each row; read-only, as a worker gives them."""
    import numpy as np  # noqa: PLC0415 - the module stays importable without the extras

    generator = np.random.default_rng(20260722)
    inputs: dict[str, Array] = {}
    for tensor in tensors:
        dtype = np.dtype(NUMPY_NAMES[tensor.datatype])
        size = shape(tensor, rows)
        values = generator.normal(size=size) if dtype.kind == "f" else generator.integers(0, 2, size=size)
        inputs[tensor.name] = np.asarray(values).astype(dtype)
        inputs[tensor.name].flags.writeable = False
    return inputs


def blank_outputs(program: Program, rows: int, filling: int) -> "dict[str, Array]":
    """Output arrays with every byte set to `filling`."""
    import numpy as np  # noqa: PLC0415

    outputs: dict[str, Array] = {}
    for tensor in program.outputs:
        size = shape(tensor, rows)
        raw = np.full(
            (*size[:-1], size[-1] * np.dtype(NUMPY_NAMES[tensor.datatype]).itemsize), filling, np.uint8
        )
        outputs[tensor.name] = raw.view(NUMPY_NAMES[tensor.datatype])
    return outputs


def run(program: Program, inputs: "Mapping[str, Array]", rows: int, filling: int = 0) -> "dict[str, Array]":
    """The outputs of one run, into arrays whose bytes were all `filling` before."""
    outputs = blank_outputs(program, rows, filling)
    program.run(inputs, outputs)
    return outputs


def row_of(program: Program, inputs: "Mapping[str, Array]", row: int) -> "dict[str, Array]":
    """The inputs of one row alone."""
    shared = {tensor.name for tensor in program.inputs if tensor.shared}
    return {name: array if name in shared else array[row : row + 1] for name, array in inputs.items()}


def same(left: "Mapping[str, Array]", right: "Mapping[str, Array]", what: str, fix: str) -> None:
    """Require equal bytes."""
    for name, array in left.items():
        require(array.tobytes() == right[name].tobytes(), f"{what}: {name!r} differs", fix)


def alike(left: "Array", right: "Array", tolerance: float, what: str, fix: str) -> None:
    """Require equal values within `tolerance`, relative or absolute."""
    import numpy as np  # noqa: PLC0415

    ours, theirs = left.astype(float), right.astype(float)
    worst = float(np.max(np.abs(ours - theirs), initial=0.0))
    close = np.allclose(ours, theirs, tolerance, tolerance, equal_nan=True)
    require(bool(close), f"{what} differs by up to {worst:.3g}, allowed is {tolerance:g}", fix)


def refusal(action: Callable[[], Program]) -> KernelError | None:
    """The KernelError that `action` raises; None when it gives a program."""
    try:
        program = action()
    except KernelError as error:
        return error
    program.close()
    return None
