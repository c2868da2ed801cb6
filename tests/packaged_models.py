"""Models out of packages on PyPI, for the tests: one that cannot be had skips its test."""

from pathlib import Path

import pytest

from backends.kernel import Model, Tensor
from benchmarks import packaged_models
from benchmarks.packaged_models import FACES, SENTENCES, WAKE_WORDS
from benchmarks.wheels import Files, WheelMissingError

__all__ = ["FACES", "SENTENCES", "WAKE_WORDS", "stored"]


def stored(files: Files, name: str, folder: Path, *inputs: Tensor) -> Model:
    """The file whose name ends with `name`, as a model in `folder`; skips the test where it cannot be had."""
    try:
        return packaged_models.stored(files, name, folder, *inputs)
    except WheelMissingError as error:
        pytest.skip(str(error))
