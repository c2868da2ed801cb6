"""The models that can be measured, as data: where each comes from, what it is fed with, how late an answer may be."""

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
from msgspec import structs

from backends.kernel import Model, Tensor
from benchmarks import fsd_networks, packaged_models
from benchmarks.throughput import inputs
from benchmarks.throughput.inputs import Samples
from benchmarks.throughput.results import ModelUsed, Shape
from benchmarks.wheels import Files, WheelMissingError

ALL: Final = "all"


class UnknownNameError(ValueError):
    """A name that nothing here goes by, or that cannot be used; one line with what could be."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A model. `latency_bound_ms` is what a server must keep for 99 of 100 queries."""

    id: str
    kind: str
    precision: Literal["float32", "int8"]
    format: Literal["onnx", "tflite"]
    licence: str
    source: str
    content: Callable[[], bytes]
    """The file; raises `WheelMissingError`."""
    inputs: tuple[Tensor, ...]
    samples: Callable[[Sequence[Tensor]], Samples]
    latency_bound_ms: float
    note: str = ""
    """What a reader of its rows must know."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A model whose file is at hand, and what it is fed with."""

    entry: Entry
    model: Model
    samples: Samples

    @property
    def arrays_file(self) -> Path:
        """The samples as an .npz."""
        path = self.model.path.with_suffix(".npz")
        if not path.exists():
            np.savez(path, **self.samples.arrays)  # type: ignore[arg-type] # its stub takes ** for an option
        return path

    @property
    def used(self) -> ModelUsed:
        """As a row of the results has it."""
        return structs.replace(
            used(self.entry),
            sha256=self.model.sha256,
            inputs_are=self.samples.are,
            inputs_from=self.samples.come_from,
        )

    @property
    def rows(self) -> int:
        """How many samples there are."""
        rowed = (tensor.name for tensor in self.entry.inputs if not tensor.shared)
        return len(self.samples.arrays[next(rowed)])


def used(entry: Entry) -> ModelUsed:
    """A model whose file nobody has seen."""
    return ModelUsed(
        id=entry.id,
        kind=entry.kind,
        precision=entry.precision,
        format=entry.format,
        sha256="",
        licence=entry.licence,
        source=entry.source,
        inputs=tuple(Shape(each.name, each.datatype, each.row_shape) for each in entry.inputs),
        inputs_are="none",
        inputs_from="",
    )


def prepared(entry: Entry, folder: Path) -> Subject:
    """Put the model's file into a folder of its own below `folder`; raises `WheelMissingError`."""
    content = entry.content()
    path = Path(tempfile.mkdtemp(prefix=f"{entry.id}-", dir=folder)) / f"model.{entry.format}"
    path.write_bytes(content)
    model = Model(path, hashlib.sha256(content).hexdigest(), entry.format, entry.inputs)
    return Subject(entry, model, entry.samples(entry.inputs))


def chosen(names: Sequence[str]) -> list[Entry]:
    """The models of these names, `all` for all of them; raises `UnknownNameError`."""
    if ALL in names:
        return list(CATALOGUE.values())
    for name in names:
        if name not in CATALOGUE:
            raise UnknownNameError(f"--model {name}: not known: take {ALL}, {', '.join(CATALOGUE)}")
    return [CATALOGUE[name] for name in names]


def _packaged(files: Files, file: str) -> Callable[[], bytes]:
    def content() -> bytes:
        return next(content for path, content in files.load().items() if path.endswith(file))

    return content


def _of_onnx(make: Callable[[], bytes]) -> Callable[[], bytes]:
    def content() -> bytes:
        try:
            return make()
        except ImportError as error:
            raise WheelMissingError(f"{error}: pip install 'parkwatt[bench]'") from error

    return content


def _from(files: Files, file: str) -> str:
    return f"{files.requirement}: {files.inside}{file}"


_RESNET_SOURCE: Final = "onnx: backend/test/data/light/light_resnet50.onnx, weights generated, seed 2"
_RESNET_INPUT: Final = (Tensor("gpu_0/data_0", "FP32", (3, 224, 224)),)

_ENTRIES: Final = (
    Entry(
        id="file-types",
        kind="classifier",
        precision="float32",
        format="onnx",
        licence="Apache-2.0",
        source=_from(packaged_models.FILE_TYPES, "model.onnx"),
        content=_packaged(packaged_models.FILE_TYPES, "model.onnx"),
        inputs=(Tensor("bytes", "INT32", (2048,)),),
        samples=inputs.files,
        latency_bound_ms=50,
    ),
    Entry(
        id="text-detector",
        kind="detector",
        precision="float32",
        format="onnx",
        licence="Apache-2.0",
        source=_from(packaged_models.TEXT_DETECTOR, "PP-OCRv6_det_small.onnx"),
        content=_packaged(packaged_models.TEXT_DETECTOR, "PP-OCRv6_det_small.onnx"),
        inputs=(Tensor("x", "FP32", (3, 320, 320)),),
        samples=inputs.pages,
        latency_bound_ms=100,
    ),
    Entry(
        id="text-angles",
        kind="OCR",
        precision="float32",
        format="onnx",
        licence="Apache-2.0",
        source=_from(packaged_models.TEXT_ANGLES, "ch_ppocr_mobile_v2.0_cls_mobile.onnx"),
        content=_packaged(packaged_models.TEXT_ANGLES, "ch_ppocr_mobile_v2.0_cls_mobile.onnx"),
        inputs=(Tensor("x", "FP32", (3, 48, 192)),),
        samples=inputs.lines,
        latency_bound_ms=15,
    ),
    Entry(
        id="sentence-embedding",
        kind="embedding",
        precision="int8",
        format="onnx",
        licence="Apache-2.0",
        source=_from(packaged_models.SENTENCES, "model.onnx"),
        content=_packaged(packaged_models.SENTENCES, "model.onnx"),
        inputs=tuple(
            Tensor(name, "INT64", (128,)) for name in ("input_ids", "attention_mask", "token_type_ids")
        ),
        samples=inputs.prompts,
        latency_bound_ms=130,
    ),
    Entry(
        id="voice-activity",
        kind="audio",
        precision="float32",
        format="onnx",
        licence="MIT",
        source=_from(packaged_models.VOICES, "silero_vad_16k_op15.onnx"),
        content=_packaged(packaged_models.VOICES, "silero_vad_16k_op15.onnx"),
        inputs=(
            Tensor("input", "FP32", (576,)),
            Tensor("state", "FP32", (2, 1, 128), shared=True),
            Tensor("sr", "INT64", (), shared=True),
        ),
        samples=inputs.sound,
        latency_bound_ms=15,
    ),
    Entry(
        id="resnet-50",
        kind="classifier",
        precision="float32",
        format="onnx",
        licence="Apache-2.0",
        source=_RESNET_SOURCE,
        content=_of_onnx(fsd_networks.resnet50),
        inputs=_RESNET_INPUT,
        samples=inputs.photograph,
        latency_bound_ms=200,
    ),
    Entry(
        id="resnet-50-int8",
        kind="classifier",
        precision="int8",
        format="onnx",
        licence="Apache-2.0",
        source=f"{_RESNET_SOURCE}; quantised by onnxruntime, 4 frames, seed 1",
        content=_of_onnx(fsd_networks.resnet50_int8),
        inputs=_RESNET_INPUT,
        samples=inputs.photograph,
        latency_bound_ms=200,
    ),
    Entry(
        id="hand-landmarks",
        kind="pose",
        precision="float32",
        format="tflite",
        licence="Apache-2.0",
        source=_from(packaged_models.HANDS, "hand_landmark_full.tflite"),
        content=_packaged(packaged_models.HANDS, "hand_landmark_full.tflite"),
        inputs=(Tensor("input_1", "FP32", (224, 224, 3)),),
        samples=inputs.photograph,
        latency_bound_ms=50,
    ),
    Entry(
        id="face-landmarks",
        kind="pose",
        precision="float32",
        format="tflite",
        licence="Apache-2.0",
        source=_from(packaged_models.FACES, "face_landmark.tflite"),
        content=_packaged(packaged_models.FACES, "face_landmark.tflite"),
        inputs=(Tensor("input_1", "FP32", (192, 192, 3)),),
        samples=inputs.photograph,
        latency_bound_ms=15,
    ),
    Entry(
        id="wake-word",
        kind="audio",
        precision="int8",
        format="tflite",
        licence="Apache-2.0",
        source=_from(packaged_models.WAKE_WORDS, "okay_nabu.tflite"),
        content=_packaged(packaged_models.WAKE_WORDS, "okay_nabu.tflite"),
        inputs=(Tensor("input_audio", "INT8", (3, 40)),),
        samples=inputs.seeded,
        latency_bound_ms=15,
        note="keeps state: the worker begins each row with fresh state, the bare runtime keeps its own",
    ),
)

CATALOGUE: Final = {entry.id: entry for entry in _ENTRIES}
