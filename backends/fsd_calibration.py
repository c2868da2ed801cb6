"""Typical rows of a model's inputs: what the ranges of its activations are measured with."""

import contextlib
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from backends.datatypes import NUMPY_NAMES
from backends.kernel import BACKEND_UNUSABLE, MODEL_UNSUPPORTED, KernelError, Tensor
from backends.slots import shape

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    Feed = Mapping[str, npt.NDArray[np.generic]]

OPTION = "backends.options.calibration"


@dataclass(frozen=True, slots=True)
class Calibration:
    """Arrays by the name of the input: (rows, *row_shape), or the whole of a shared one."""

    arrays: "Mapping[str, npt.NDArray[Any]]"
    where: str
    close: "Callable[[], None]" = lambda: None
    """Lets go of the file."""

    def rows_for(self, inputs: Sequence[Tensor]) -> "Iterator[Feed]":
        """What to feed a model with, row by row; raises `KernelError` 132 where that does not fit its inputs."""
        found = {tensor.name: self._array(tensor) for tensor in inputs}
        counts = {tensor.name: len(found[tensor.name]) for tensor in inputs if not tensor.shared}
        if len(set(counts.values())) != 1:
            raise self._unfit(f"its inputs have different numbers of rows: {counts}")
        for row in range(min(counts.values())):
            yield {
                tensor.name: found[tensor.name] if tensor.shared else found[tensor.name][row : row + 1]
                for tensor in inputs
            }

    def _array(self, tensor: Tensor) -> "npt.NDArray[np.generic]":
        if tensor.name not in self.arrays:
            names = ", ".join(self.arrays) or "nothing"
            raise self._unfit(f"input {tensor.name!r} is missing, it has {names}")
        array = self.arrays[tensor.name]
        wanted = shape(tensor, len(array) if array.ndim else 0)
        if array.shape != wanted or not array.size:
            given, taken = list(array.shape), ["rows", *wanted[1:]] if not tensor.shared else list(wanted)
            raise self._unfit(f"input {tensor.name!r} has the shape {given}, wanted is {taken}")
        dtype = np.dtype(NUMPY_NAMES[tensor.datatype])
        if array.dtype != dtype or (dtype.kind == "f" and not np.isfinite(array).all()):
            raise self._unfit(f"input {tensor.name!r} is {array.dtype}, wanted are finite {dtype}")
        return array

    def _unfit(self, what: str) -> KernelError:
        return KernelError(MODEL_UNSUPPORTED, f"{OPTION} ({self.where}) does not fit the model: {what}")

    @classmethod
    def made_up(cls, inputs: Sequence[Tensor]) -> Self:
        """One row of small random numbers: the shapes are right, the ranges mean nothing."""
        rng = np.random.default_rng(1)
        arrays = {}
        for tensor in inputs:
            dtype, sizes = np.dtype(NUMPY_NAMES[tensor.datatype]), shape(tensor, 1)
            values = rng.normal(size=sizes) if dtype.kind == "f" else rng.integers(0, 2, sizes)
            arrays[tensor.name] = np.asarray(values).astype(dtype)
        return cls(arrays, "made up")


def opened(path: Path) -> Calibration:
    """The data at `path`, not read yet; raises `KernelError` 1020 where there is none."""
    arrays: Mapping[str, npt.NDArray[Any]] = {}
    file = contextlib.ExitStack()
    why = "there is no array in it that has a name"
    try:
        if path.is_dir():
            arrays = {file.stem: np.load(file, mmap_mode="r") for file in sorted(path.glob("*.npy"))}
        elif path.stat() and zipfile.is_zipfile(path):
            arrays = file.enter_context(np.load(path))
    except (OSError, ValueError, EOFError) as error:
        why = str(error)
    if not arrays:
        text = f"{OPTION} = {path}: {why}; name a folder of INPUT.npy, or an .npz"
        raise KernelError(BACKEND_UNUSABLE, text)
    return Calibration(arrays, str(path), file.close)
