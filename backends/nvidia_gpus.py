"""The NVIDIA GPUs of this computer, as its driver lists them, and the memory that a model takes of one."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from backends.resident import grown_bytes, resident_bytes
from firmware_shims.power.meter import MeterFailed
from firmware_shims.power.nvml import LibraryAbsent, Nvml


@dataclass(frozen=True, slots=True)
class Gpu:
    """`index` is the place in the order of the PCI bus; `why` says why it cannot be used, empty if it can."""

    index: int
    name: str
    why: str = ""


def gpus_here(library: str) -> list[Gpu]:
    """Every GPU; empty without NVIDIA's driver, and one named `cuda` where the driver itself fails."""
    try:
        with _nvml(library) as nvml:
            return [_gpu(nvml, index) for index in range(nvml.count())]
    except LibraryAbsent:
        return []
    except MeterFailed as failed:
        return [Gpu(0, "cuda", _said(failed))]


def _gpu(nvml: Nvml, index: int) -> Gpu:
    try:
        return Gpu(index, f"cuda:{index} {nvml.gpu_at(index).product()}")
    except MeterFailed as failed:
        return Gpu(index, f"cuda:{index}", _said(failed))


def _said(failed: MeterFailed) -> str:
    return f"{failed.why}; {failed.fix}"


@contextlib.contextmanager
def _nvml(library: str) -> Iterator[Nvml]:
    nvml = Nvml(library)
    try:
        yield nvml
    finally:
        nvml.close()


class MemoryTaken:
    """What host and GPU together have less than when this was made.

    NVML tells of the whole GPU: what another process takes or gives back meanwhile is counted with it.
    """

    def __init__(self, library: str, index: int) -> None:
        self._library = library
        self._index = index
        self._host_bytes = resident_bytes()
        self._gpu_bytes = self._used_bytes()

    def bytes(self, file_bytes: int, limit_bytes: int) -> int:
        """At least the file's size; `limit_bytes` stands for the GPU's part where NVML does not tell."""
        used = self._used_bytes()
        taken = limit_bytes if used is None or self._gpu_bytes is None else used - self._gpu_bytes
        return max(taken, file_bytes) + grown_bytes(self._host_bytes, file_bytes=0)

    def _used_bytes(self) -> int | None:
        try:
            with _nvml(self._library) as nvml:
                return nvml.gpu_at(self._index).used_bytes()
        except MeterFailed:
            return None
