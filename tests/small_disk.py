"""A disk of some MiB that can be filled to the last byte."""

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

MIB = 1024**2


@dataclass(frozen=True)
class SmallDisk:
    """A folder with a file system of its own. What `fill` takes, `free` gives back."""

    folder: Path

    @property
    def _other(self) -> Path:
        return self.folder / "somebody-else"

    def fill(self) -> None:
        with self._other.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            for size_bytes in (MIB, 4096, 1):
                with contextlib.suppress(OSError):
                    while file.write(bytes(size_bytes)):
                        pass

    def free(self) -> None:
        self._other.unlink()

    def remount(self, how: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{how}", str(self.folder)], check=True)


@contextlib.contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[SmallDisk]:
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "parkwatt-test", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a small disk needs the right to mount: {mounted.stderr.strip()}")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", str(folder)], check=True)
