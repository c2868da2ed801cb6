"""What the tests of the fsd backend share: models as tasks bring them, and programs loaded of them."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from fsd_models import small_network
from onnx import ModelProto

from backends.datatypes import NUMPY_NAMES
from backends.fsd import Fsd, FsdOptions
from backends.fsd_program import FsdProgram
from backends.kernel import KernelError, Model, Tensor

Array = npt.NDArray[Any]
FRAME = Tensor("x", "FP32", (3, 32, 32))
"""What `small_network` takes."""


def frames(rows: int, seed: int = 3) -> Array:
    return np.random.default_rng(seed).normal(0, 1, (rows, *FRAME.row_shape)).astype(np.float32)


def saved(model: ModelProto | bytes, path: Path, *inputs: Tensor, outputs: tuple[str, ...] = ()) -> Model:
    data = model if isinstance(model, bytes) else model.SerializeToString()
    path.write_bytes(data)
    return Model(path, hashlib.sha256(data).hexdigest(), "onnx", inputs, outputs)


def loaded(model: Model, **options: Any) -> FsdProgram:
    backend = Fsd(FsdOptions.model_validate(options))
    (device,) = backend.probe()
    assert not device.why
    return backend.load(model, device.name)


def run(program: FsdProgram, inputs: Mapping[str, Array], rows: int) -> dict[str, Array]:
    outputs: dict[str, Array] = {
        each.name: np.zeros((rows, *each.row_shape), NUMPY_NAMES[each.datatype]) for each in program.outputs
    }
    program.run(inputs, outputs)
    return outputs


def refusal(model: Model, **options: Any) -> KernelError:
    with pytest.raises(KernelError) as refused:
        loaded(model, **options)
    return refused.value


@pytest.fixture(scope="session")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows for `small_network`."""
    folder = tmp_path_factory.mktemp("calibration")
    np.save(folder / "x.npy", frames(8))
    return folder


@pytest.fixture
def small(tmp_path: Path) -> Model:
    """A network in floats."""
    return saved(small_network(), tmp_path / "small.onnx", FRAME)
