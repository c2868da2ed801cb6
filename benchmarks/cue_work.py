"""What the worker can be busy with when a cue comes: models of several kinds, and a backend that stamps the clock."""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from agent.protocol.messages import Datatype, ModelFormat, ModelRef
from backends import tiny_onnx
from benchmarks import stamping
from benchmarks.cue_kinds import Kind
from benchmarks.packaged_models import FILE_TYPES, IRISES
from fleet.client import Input

IMAGE, KERNEL, CHANNELS = 240, 208, 24
"""One run takes some 20 ms on one processor of a server; input and output fit into messages of 128 KB."""
RUN_US: Final = 200_000
PROCESSORS: Final = len(os.sched_getaffinity(0))
STAMPS_FILE: Final = "stamps"


@dataclass(frozen=True, slots=True)
class Work:
    """A backend with a model, and the inputs of one task."""

    name: str
    use: str
    model: bytes
    inputs: Sequence[Input]
    format: ModelFormat = ModelFormat.ONNX
    options: Mapping[str, object] = field(default_factory=dict)
    neighbours: int = 0
    """Busy processes beside the worker, so that every processor has something to do."""
    stamps: bool = False
    """Whether the worker stamps the clock into the file `STAMPS_FILE`."""

    def stored(self, models: Path) -> ModelRef:
        """Put the model where the agent fetches it."""
        sha256 = hashlib.sha256(self.model).hexdigest()
        models.mkdir(exist_ok=True)
        (models / sha256).write_bytes(self.model)
        return ModelRef("model", "1", sha256, self.format)


def chosen(kinds: Sequence[Kind], folder: Path) -> Iterator[Work]:
    """Raises `WheelMissingError`. The stamping worker's file lies in `folder`."""
    makers: Mapping[Kind, Callable[[], Work]] = {
        Kind.FILE_TYPES: file_types,
        Kind.LONG_NODE: long_node,
        Kind.IRISES: irises,
        Kind.STAMPING: lambda: stamping_into(folder / STAMPS_FILE),
    }
    for kind in kinds:
        yield makers[kind]()


def file_types() -> Work:
    """Batches of a small model."""
    (model,) = FILE_TYPES.load().values()
    rows = Input("bytes", Datatype.INT32, [8, 2048], bytes(4 * 8 * 2048))
    return Work("cpu, file types", "cpu", model, [rows], options={"threads": PROCESSORS})


def long_node() -> Work:
    """One convolution of bytes, which runs on one thread: nothing can cancel it before its end."""
    size = IMAGE - KERNEL + 1
    kernels = tiny_onnx.constant("w", "UINT8", (CHANNELS, 1, KERNEL, KERNEL), b"\1" * (CHANNELS * KERNEL**2))
    model = tiny_onnx.one_node(
        "ConvInteger",
        {"x": ("UINT8", (1, 1, IMAGE, IMAGE))},
        ("INT32", (1, CHANNELS, size, size)),
        kernels,
        ("w",),
    )
    image = Input("x", Datatype.UINT8, [1, 1, IMAGE, IMAGE], bytes(IMAGE**2))
    return Work("cpu, one long node", "cpu", model, [image], neighbours=PROCESSORS - 1)


def irises() -> Work:
    """A TFLite model whose input fits into a message."""
    (model,) = IRISES.load().values()
    image = Input("input_1", Datatype.FP32, [1, 64, 64, 3], bytes(4 * 64 * 64 * 3))
    options = {"threads": PROCESSORS}
    return Work("tflite, iris landmarks", "tflite", model, [image], ModelFormat.TFLITE, options)


def stamping_into(path: Path) -> Work:
    """A worker that stamps the clock."""
    options = {"stamps": str(path), "run_us": RUN_US}
    byte = Input("x", Datatype.UINT8, [1, 1], bytes(1))
    return Work(
        "stamping",
        stamping.USE,
        b"stamping reads no model",
        [byte],
        options=options,
        neighbours=PROCESSORS - 1,
        stamps=True,
    )
