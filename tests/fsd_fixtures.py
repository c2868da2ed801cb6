"""The reference driver for tests: `reference_drivers` in every variant, `reference_library` as it should be."""

import gc
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fsd_drivers import Drivers, opened

from firmware_shims.fsd.interface import NpuDevice

Told = Callable[..., None]
THREADS = Path("/proc/self/task")


@pytest.fixture(scope="session")
def reference_drivers(tmp_path_factory: pytest.TempPathFactory) -> Drivers:
    return Drivers(tmp_path_factory.mktemp("fsd"))


@pytest.fixture
def reference_library(reference_drivers: Drivers) -> Iterator[Path]:
    """Its path; in the end none of its threads is left."""
    before = sum(1 for _ in THREADS.iterdir())
    yield reference_drivers.built()
    gc.collect()  # an exception that a test has caught may hold a backend, and that its device
    until = time.monotonic() + 5  # a thread that was joined may still be listed for a moment
    while (after := sum(1 for _ in THREADS.iterdir())) > before:
        assert time.monotonic() < until, f"{after - before} threads of a driver left behind"


@pytest.fixture
def npu_device(reference_library: Path) -> Iterator[NpuDevice]:
    with opened(reference_library) as device:
        yield device


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    """Tells reference drivers that are opened from now on what to do wrong."""
    return lambda *instructions: monkeypatch.setenv("FSD_REFERENCE", " ".join(instructions))
