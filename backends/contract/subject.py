"""What is checked, and what a broken contract looks like."""

import contextlib
import hashlib
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from backends import registry
from backends.datatypes import ITEM_BYTES
from backends.kernel import Backend, Device, Model, Program, Tensor
from backends.tiny_onnx import chain, one_node
from backends.tiny_tflite import SOFTMAX, TinyTensor, one_operator

OWN_INPUT: Final = Tensor("x", "FP32", (8,))
OWN_OUTPUT: Final = "y"
LONG_CHAIN: Final = 256
WIDE_INPUT: Final = Tensor("x", "FP32", (32_768,))
"""A node over it takes longer than starting one does, at one row too."""


class Broken(AssertionError):  # noqa: N818 - "the contract is broken", and a test shows it as a failure
    """A backend does not do what the kernel interface says: what was seen, and what to do about it."""

    def __init__(self, seen: str, fix: str) -> None:
        super().__init__(f"{seen}; {fix}")
        self.seen = seen
        self.fix = fix


def require(condition: bool, seen: str, fix: str) -> None:
    """Raise `Broken` unless `condition` holds."""
    if not condition:
        raise Broken(seen, fix)


@dataclass(frozen=True)
class Subject:
    """A backend by name or MODULE:CLASS, its options, and a model that it can run."""

    use: str
    model: Model
    options: Mapping[str, Any] = field(default_factory=dict)
    device: str | None = None

    def backend(self) -> Backend:
        """A fresh backend in this process."""
        return registry.find(self.use)(registry.validate_options(self.use, self.options))

    def usable_device(self, backend: Backend) -> str:
        """The device asked for, else the first usable one."""
        if self.device:
            return self.device
        found = [device for device in backend.probe() if isinstance(device, Device)]
        for device in found:
            if not device.why:
                return device.name
        why = "; ".join(f"{device.name}: {device.why}" for device in found) or "probe() found no device"
        raise Broken(why, "nothing can be checked without a usable device: run the suite where one is")

    @contextlib.contextmanager
    def over_many_nodes(self) -> Iterator["Subject"]:
        """The same with many wide nodes where the suite's own ONNX model has a small one: a run can end between them."""
        if not (is_own(self.model) and self.model.format == "onnx"):
            yield self
            return
        data = chain("Softmax", LONG_CHAIN, WIDE_INPUT.datatype, ("rows", *WIDE_INPUT.row_shape))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "softmaxes.onnx"
            path.write_bytes(data)
            model = Model(path, hashlib.sha256(data).hexdigest(), "onnx", (WIDE_INPUT,))
            yield replace(self, model=model)

    @contextlib.contextmanager
    def program(self) -> Iterator[Program]:
        """The model, loaded in this process."""
        backend = self.backend()
        program = backend.load(self.model, self.usable_device(backend))
        try:
            yield program
        finally:
            program.close()


def own_model(folder: Path, file_format: str = "onnx") -> Model:
    """Write the suite's own model: softmax over eight numbers called x, any number of rows, to y."""
    data = {"onnx": _onnx, "tflite": _tflite}[file_format]()
    path = folder / f"softmax.{file_format}"
    path.write_bytes(data)
    return Model(path, hashlib.sha256(data).hexdigest(), file_format, (OWN_INPUT,))


def _onnx() -> bytes:
    dimensions = ("rows", 8)
    return one_node("Softmax", {"x": ("FP32", dimensions)}, ("FP32", dimensions))


def _tflite() -> bytes:
    return one_operator(SOFTMAX, [TinyTensor("x", "FP32", (-1, 8))], TinyTensor(OWN_OUTPUT, "FP32", (-1, 8)))


def is_own(model: Model) -> bool:
    """Whether this is the suite's own model, whose right answers are known."""
    return model.path.name == f"softmax.{model.format}" and model.inputs == (OWN_INPUT,)


def right_answer(row: Sequence[float]) -> list[float]:
    """What the suite's own model gives for a row."""
    powers = [math.exp(value - max(row)) for value in row]
    return [power / sum(powers) for power in powers]


def given_model(path: Path, file_format: str, inputs: Sequence[str]) -> Model:
    """The model of the command line; an input is NAME:DATATYPE:SIZExSIZE, without the row dimension.

    Raises ValueError and OSError for what makes no sense.
    """
    tensors: list[Tensor] = []
    for text in inputs:
        name, datatype, sizes = text.rsplit(":", 2)
        if datatype not in ITEM_BYTES:
            raise ValueError(f"--input {text}: datatype {datatype!r} is none of {', '.join(ITEM_BYTES)}")
        tensors.append(Tensor(name, datatype, tuple(int(size) for size in sizes.split("x") if size)))
    return Model(path, hashlib.sha256(path.read_bytes()).hexdigest(), file_format, tuple(tensors))
