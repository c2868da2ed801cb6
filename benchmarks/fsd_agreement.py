"""How often a model in int8 on the FSD backend says the same as its floats do in onnxruntime, on real inputs."""

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from backends.fsd import Fsd, FsdOptions
from backends.kernel import Model
from benchmarks import real_text
from benchmarks.packaged_models import MEASURED, Packaged
from firmware_shims.telemetry import NO_TELEMETRY

Array = npt.NDArray[Any]
Inputs = Mapping[str, Array]
CALIBRATION_ROWS: Final = 48
"""The first ones; the others are compared."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """Top-1 answers of floats and of int8 beside the truth, all by row."""

    what: str
    floats: Array
    int8: Array
    truth: Array
    more: str = ""

    def __str__(self) -> str:
        rows, same = len(self.truth), int(np.count_nonzero(self.floats == self.int8))
        right = [int(np.count_nonzero(answers == self.truth)) for answers in (self.floats, self.int8)]
        return (
            f"{self.what:<40} the same top-1 in {same} of {rows} ({same / rows:.1%}); "
            f"right: floats {right[0]}, int8 {right[1]}{self.more}"
        )


def measure() -> list[str]:
    """Print-ready lines. Raises `WheelMissingError` where models or texts cannot be had."""
    title = f"fsd in int8 beside onnxruntime in floats, calibrated with {CALIBRATION_ROWS} other rows"
    return [title, str(angles()), str(sentences())]


def angles() -> Agreement:
    """Whether a line of text stands upside down."""
    texts, _ = real_text.prompts()
    pictures, turned = real_text.lines(texts)
    floats, int8 = (np.argmax(each, axis=-1) for each in _both(_model("text angles"), {"x": pictures}))
    return Agreement("vision: text angles, rendered lines", floats, int8, turned[CALIBRATION_ROWS:])


def sentences() -> Agreement:
    """Which kind of task the nearest of the other prompts is of."""
    texts, kinds = real_text.prompts()
    inputs, compared = real_text.tokens(texts), kinds[CALIBRATION_ROWS:]
    mask = inputs["attention_mask"][CALIBRATION_ROWS:, :, None]
    directions = [_directions(states, mask) for states in _both(_model("sentence embedding"), inputs)]
    nearest = [_nearest(each) for each in directions]
    cosine = float(np.mean(np.sum(directions[0] * directions[1], axis=1)))
    same = int(np.count_nonzero(nearest[0] == nearest[1]))
    more = f"; the same prompt is nearest in {same}; cosine between the two {cosine:.3f}"
    return Agreement(
        "embedding: kind of the nearest prompt", compared[nearest[0]], compared[nearest[1]], compared, more
    )


def _directions(states: Array, mask: Array) -> Array:
    mean: Array = (states * mask).sum(axis=1) / mask.sum(axis=1)
    unit: Array = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    return unit


def _nearest(directions: Array) -> Array:
    likeness = directions @ directions.T
    np.fill_diagonal(likeness, -1)
    nearest: Array = np.argmax(likeness, axis=1)
    return nearest


def _model(name: str) -> Packaged:
    return next(each for each in MEASURED if each.name.startswith(name))


def _both(packaged: Packaged, inputs: Inputs) -> tuple[Array, Array]:
    """What floats and int8 give for the rows that were not calibrated with."""
    with tempfile.TemporaryDirectory() as folder:
        model = packaged.stored(Path(folder))
        rows = {name: array[CALIBRATION_ROWS:] for name, array in inputs.items()}
        for name, array in inputs.items():
            np.save(Path(folder) / f"{name}.npy", array[:CALIBRATION_ROWS])
        return _in_floats(model, rows), _in_int8(model, rows, Path(folder))


def _in_floats(model: Model, rows: Inputs) -> Array:
    os.environ.update(NO_TELEMETRY)
    import onnxruntime  # noqa: PLC0415 - not before its telemetry is off

    session = onnxruntime.InferenceSession(model.path, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, feed)[0] for feed in _one_by_one(rows)])


def _in_int8(model: Model, rows: Inputs, calibration: Path) -> Array:
    backend = Fsd(FsdOptions(calibration=calibration))
    (device,) = backend.probe()
    program = backend.load(model, device.name)
    count = len(next(iter(rows.values())))
    (output,) = program.outputs
    found = np.zeros((count, *output.row_shape), np.float32)
    program.run(rows, {output.name: found})
    program.close()
    return found


def _one_by_one(rows: Inputs) -> Sequence[Inputs]:
    count = len(next(iter(rows.values())))
    return [{name: array[row : row + 1] for name, array in rows.items()} for row in range(count)]


if __name__ == "__main__":
    for line in measure():
        print(line)
