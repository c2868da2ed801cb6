"""What the tests of worker processes share: a worker for the length of a test, and what it left behind."""

import contextlib
import hashlib
import os
import select
from collections.abc import AsyncIterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from backends.kernel import Model, Tensor
from backends.limits import Limits
from backends.process import WorkerProcess
from firmware_shims.clock import boottime_ns

BYTES = Model(Path("/no/file/is/needed"), "0" * 64, "onnx", (Tensor("data", "UINT8", (1024,)),))
LONG_US = 60_000_000
NO_MODELS = Limits()
SUPERVISOR = """
import asyncio, sys
from backends.process import WorkerProcess
from workers import BYTES

async def main():
    worker = WorkerProcess.start(sys.argv[1], {"run_us": 60_000_000})
    print(worker.pid, flush=True)
    program = await worker.load(BYTES)
    await worker.run(worker.slot(program, 1))

asyncio.run(main())
"""
"""A program that runs a worker of the backend in its argument for 60 s, and prints its number."""


@contextlib.asynccontextmanager
async def started(
    use: str, *, arena_bytes: int = 1 << 24, limits: Limits = NO_MODELS, **options: Any
) -> AsyncIterator[WorkerProcess]:
    worker = WorkerProcess.start(use, options, limits=limits, arena_bytes=arena_bytes)
    try:
        yield worker
    finally:
        await worker.stop()


def may_read(model: Model) -> Limits:
    """The limits of a worker that is given this model."""
    return Limits(model_folders=(str(model.path.parent),))


def file_type_model() -> Model:
    """The model inside the magika wheel: rows of 2048 numbers, one probability a label."""
    files = metadata.files("magika") or []
    for file in files:
        if file.match("magika/models/standard_v3_3/model.onnx"):
            path = Path(str(file.locate()))
            sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
            return Model(path, sha256, "onnx", (Tensor("bytes", "INT32", (2048,)),))
    pytest.skip("the magika wheel is not installed")


def descriptors() -> list[str]:
    """What the open descriptors of this process point at, without the numbers that differ each time."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(entry.readlink().name.partition(":")[0])
    return sorted(found)


def maps_an_arena() -> bool:
    return "parkwatt-arena" in Path("/proc/self/maps").read_text()


def readable_within(fd: int, seconds: float) -> bool:
    """Whether a descriptor has something to tell; a pidfd does when its process has ended."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def is_alive(pid: int) -> bool:
    """Whether `pid` still has memory: a zombie that init has not waited for yet counts as gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def environment_of(pid: int) -> dict[str, str]:
    entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return dict(os.fsdecode(entry).split("=", 1) for entry in entries if b"=" in entry)


def wait_for_a_run_in(pid: int) -> None:
    deadline_ns = boottime_ns() + 30 * 10**9
    while Path(f"/proc/{pid}/comm").read_text() != "running\n":
        assert boottime_ns() < deadline_ns
