"""What models are fed with: real data where a package or the machine has some, seeded otherwise, and which of the two."""

import math
import sysconfig
import wave
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from backends.datatypes import NUMPY_NAMES
from backends.kernel import Tensor
from benchmarks import real_text

Array = npt.NDArray[Any]
ROWS: Final = 16
SEED: Final = 7
HALF_TOKENS: Final = 1024
PADDING: Final = 256
BLOCK_BYTES: Final = 4096
VOICE_RATE_HZ: Final = 16_000
VOICE_CHUNK: Final = 512
VOICE_CONTEXT: Final = 64


@dataclass(frozen=True, slots=True)
class Samples:
    """Arrays of (rows, *row_shape) by the name of their input; of a shared one its whole."""

    arrays: Mapping[str, Array]
    are: Literal["real", "rendered", "seeded"]
    come_from: str


def seeded(tensors: Sequence[Tensor]) -> Samples:
    """Uniform: floats from 0 to 1, integers of 8 bits over their whole range, others from 0 to 255."""
    rng = np.random.default_rng(SEED)
    return Samples(
        {tensor.name: _uniform(rng, tensor) for tensor in tensors}, "seeded", f"uniform, seed {SEED}"
    )


def files(tensors: Sequence[Tensor]) -> Samples:
    """The first and last tokens of files of this Python's standard library, as the file type model takes them."""
    folder = Path(sysconfig.get_path("stdlib"))
    chosen = sorted(path for path in folder.glob("*.*") if path.is_file())[: 4 * ROWS]
    rows = np.stack([_tokens_of(path) for path in chosen])
    return Samples({tensors[0].name: rows}, "real", f"{len(rows)} files of the Python standard library")


def prompts(tensors: Sequence[Tensor]) -> Samples:
    """Prompts as tokens. Raises `WheelMissingError`."""
    texts = real_text.prompts()[0][: 4 * ROWS]
    tokens = real_text.tokens(texts)
    arrays = {tensor.name: tokens[tensor.name] for tensor in tensors}
    return Samples(arrays, "real", f"{len(texts)} prompts of {real_text.PROMPTS.requirement}")


def lines(tensors: Sequence[Tensor]) -> Samples:
    """Pictures of prompts, half of them upside down. Raises `WheelMissingError`."""
    texts = real_text.prompts()[0][: 4 * ROWS]
    return Samples(
        {tensors[0].name: real_text.lines(texts)[0]},
        "rendered",
        f"{len(texts)} prompts of {real_text.PROMPTS.requirement}",
    )


def pages(tensors: Sequence[Tensor]) -> Samples:
    """Pictures of prompts below and beside one another. Raises `WheelMissingError`."""
    (tensor,) = tensors
    _, height, width = tensor.row_shape
    texts = real_text.prompts()[0]
    pictures, _ = real_text.lines(texts)
    pictures = pictures[::2]  # those that stand upright
    line_height, line_width = real_text.LINE
    down, across = height // line_height, math.ceil(width / line_width)
    rows = min(ROWS, len(pictures) // (down * across))
    grid = pictures[: rows * down * across].reshape(rows, down, across, 3, line_height, line_width)
    whole = grid.transpose(0, 3, 1, 4, 2, 5).reshape(rows, 3, down * line_height, across * line_width)
    page = np.ones((rows, *tensor.row_shape), np.float32)
    page[:, :, : down * line_height] = whole[:, :, :, :width]
    return Samples(
        {tensor.name: page}, "rendered", f"{rows} pages of prompts of {real_text.PROMPTS.requirement}"
    )


def photograph(tensors: Sequence[Tensor]) -> Samples:
    """Crops of the portrait that matplotlib ships, from 0 to 1; the place of the colours follows the shape."""
    import matplotlib as mpl  # noqa: PLC0415 - for its sample data; others run without the extra
    from PIL import Image  # noqa: PLC0415 - as above

    (tensor,) = tensors
    colours_first = tensor.row_shape[0] == 3
    size = tensor.row_shape[1]
    rng = np.random.default_rng(SEED)
    with Image.open(Path(mpl.get_data_path()) / "sample_data" / "grace_hopper.jpg") as picture:
        crops = [_crop(picture, rng, size) for _ in range(ROWS)]
    rows = np.stack(crops).astype(np.float32) / 255
    arrays = rows.transpose(0, 3, 1, 2) if colours_first else rows
    return Samples(
        {tensor.name: np.ascontiguousarray(arrays)},
        "real",
        f"{ROWS} crops of grace_hopper.jpg of matplotlib {mpl.__version__}",
    )


def sound(tensors: Sequence[Tensor]) -> Samples:
    """Chunks of the recording that Python's own tests have, where they are installed; seeded otherwise."""
    recording = Path(sysconfig.get_path("stdlib")) / "test" / "audiodata" / "pluck-pcm16.wav"
    chunks, state, rate = tensors
    fixed: dict[str, Array] = {
        state.name: np.zeros(state.row_shape, np.float32),
        rate.name: np.array(VOICE_RATE_HZ, np.int64),
    }
    if not recording.exists():
        noise = seeded([chunks])
        return Samples({**noise.arrays, **fixed}, "seeded", noise.come_from)
    wave_form = _resampled(recording)
    begins = range(0, len(wave_form) - VOICE_CHUNK - VOICE_CONTEXT, VOICE_CHUNK)
    rows = np.stack([wave_form[begin : begin + VOICE_CHUNK + VOICE_CONTEXT] for begin in begins])
    return Samples(
        {chunks.name: rows.astype(np.float32), **fixed}, "real", f"{recording.name} of Python's own tests"
    )


def _uniform(rng: np.random.Generator, tensor: Tensor) -> Array:
    kind = np.dtype(NUMPY_NAMES[tensor.datatype])
    shape = tensor.row_shape if tensor.shared else (ROWS, *tensor.row_shape)
    if kind.kind == "f":
        return rng.random(shape).astype(kind)
    limits = np.iinfo(kind) if kind.itemsize == 1 else np.iinfo(np.uint8)
    return rng.integers(limits.min, limits.max, shape, endpoint=True).astype(kind)


def _tokens_of(path: Path) -> Array:
    """As the model's `config.min.json` has it: bytes of the first and the last block, padded in the middle."""
    content = path.read_bytes()
    begin = content[:BLOCK_BYTES].lstrip()[:HALF_TOKENS]
    end = content[-BLOCK_BYTES:].rstrip()[-HALF_TOKENS:]
    tokens = np.full(2 * HALF_TOKENS, PADDING, np.int32)
    tokens[: len(begin)] = np.frombuffer(begin, np.uint8)
    if end:
        tokens[-len(end) :] = np.frombuffer(end, np.uint8)
    return tokens


def _crop(picture: Any, rng: np.random.Generator, size: int) -> Array:
    """A square somewhere in the picture, at least half as high as it is wide."""
    width, height = picture.size
    side = int(rng.integers(min(width, height) // 2, min(width, height)))
    left, top = int(rng.integers(0, width - side)), int(rng.integers(0, height - side))
    cut = picture.convert("RGB").crop((left, top, left + side, top + side))
    return np.asarray(cut.resize((size, size)))


def _resampled(recording: Path) -> Array:
    """One channel at the model's rate, from -1 to 1."""
    with wave.open(str(recording)) as opened:
        frames, channels, rate_hz = opened.getnframes(), opened.getnchannels(), opened.getframerate()
        values = np.frombuffer(opened.readframes(frames), "<i2").reshape(frames, channels)[:, 0] / 32768
    times = np.arange(0, frames / rate_hz, 1 / VOICE_RATE_HZ)
    return np.interp(times, np.arange(frames) / rate_hz, values)
