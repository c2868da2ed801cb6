"""The reference driver, built by the system's compiler, and what the tests have it do."""

import contextlib
import functools
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from firmware_shims.fsd.driver import HEADER, open_device
from firmware_shims.fsd.interface import Code, FsdError, NpuDevice, NpuProgram

TESTS = Path(__file__).parent
SOURCE = TESTS / "fsd_reference_driver.c"
STRICT = ("-Wall", "-Wextra", "-Werror", "-pedantic")
FORMAT = "fsd-reference-1"
LONG_MS = 60_000


def compiler(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"no compiler {name} here to build the reference driver")
    return found


@dataclass(frozen=True)
class Drivers:
    """Variants of the reference driver, each built once."""

    folder: Path

    @functools.cache  # noqa: B019 - lives as long as the tests do
    def built(self, *flags: str) -> Path:
        library = self.folder / f"libfsd{len(list(self.folder.iterdir()))}.so"
        strict = ("-std=c11", *STRICT, "-O1", "-g", "-shared", "-fPIC", "-pthread", f"-I{HEADER.parent}")
        subprocess.run([compiler("cc"), *strict, *flags, "-o", library, SOURCE], check=True)
        return library

    def of_abi(self, major: int, minor: int) -> Path:
        return self.built(f"-DREFERENCE_ABI={major << 16 | minor}u")


def program(shape: str = "4", add: int = 5, ms: int = 0, *lines: str, datatype: str = "INT8") -> bytes:
    """A program that adds `add`; a row takes `ms` steps of a millisecond and 250 nJ each."""
    head = (FORMAT, f"input x {datatype} {shape}", f"output y {datatype} {shape}")
    tail = (f"add {add}", f"steps {ms}", "step_us 1000", "step_nj 250", *lines)
    return "\n".join((*head, *tail)).encode()


@contextlib.contextmanager
def opened(library: Path) -> Iterator[NpuDevice]:
    device = open_device(library)
    try:
        yield device
    finally:
        device.close()


def bound(device: NpuDevice, text: bytes, npu: int = 0, rows: int = 1) -> tuple[NpuProgram, bytearray]:
    """A loaded program with buffers: rows of 1, 2, 3 ... and where its output goes."""
    loaded = device.load(text, npu)
    size = rows * loaded.inputs[0].row_bytes
    y = bytearray(size)
    loaded.bind([bytes(i % 100 + 1 for i in range(size))], [y])
    return loaded, y


def long_run(device: NpuDevice, npu: int = 0) -> NpuProgram:
    """A run that is under way and has a minute to go."""
    loaded, _ = bound(device, program(ms=LONG_MS), npu)
    loaded.submit()
    return loaded


@contextlib.contextmanager
def refused(code: Code, call: str, *words: str) -> Iterator[pytest.ExceptionInfo[FsdError]]:
    with pytest.raises(FsdError) as refusal:
        yield refusal
    assert (refusal.value.code, refusal.value.call) == (code, call), str(refusal.value)
    for word in words:
        assert word in refusal.value.text
    assert "\n" not in str(refusal.value)


def python(script: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """A process of its own, as a worker is one; it finds this module."""
    paths = os.pathsep.join((str(TESTS), str(TESTS.parent)))
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        env={**os.environ, "PYTHONPATH": paths, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until_both_npus_have_worked(device: NpuDevice, deadline_s: float = 30) -> None:
    until = time.monotonic() + deadline_s
    while not (device.energy_nj(0) and device.energy_nj(1)):
        assert time.monotonic() < until, f"an NPU has done nothing within {deadline_s} s"
        time.sleep(0.001)


def abort_storm(device: NpuDevice, rounds: int, threads: int = 4) -> tuple[int, int]:
    """Load, run and unload again and again while threads abort without a break; how often (done, aborted)."""
    under_attack: list[NpuProgram] = []
    over = threading.Event()

    def attack() -> None:
        while not over.is_set():
            for each in under_attack[-1:]:
                each.abort()
            time.sleep(0.0002)

    attackers = [threading.Thread(target=attack) for _ in range(threads)]
    for each in attackers:
        each.start()
    ends = {Code.OK: 0, Code.ABORTED: 0}
    try:
        for number in range(rounds):
            loaded, _ = bound(device, program(ms=number % 3), number % 2)
            under_attack.append(loaded)
            ends[_end_of_a_run(loaded)] += 1
            loaded.unload()
    finally:
        over.set()
        for each in attackers:
            each.join()
    return ends[Code.OK], ends[Code.ABORTED]


def _end_of_a_run(loaded: NpuProgram) -> Code:
    try:
        loaded.submit()
        loaded.wait(10)
    except FsdError as error:
        return error.code
    return Code.OK


def every_call(library: Path) -> None:
    with opened(library) as device:
        device.energy_nj(0)
        device.temperature_c(0)
        loaded, _ = bound(device, program())
        loaded.submit()
        loaded.wait(10)
        loaded.abort()


def tour(library: Path) -> None:
    """Every call, well and badly, for a build that watches memory."""
    every_call(library)
    with opened(library) as device:
        loaded, _ = bound(device, program(shape="3x5"), rows=7)
        loaded.submit(7)
        loaded.wait(10)
        for text in (b"", b"nothing", program("0"), program("4", 5, 0, "operator Sqrt")):
            with pytest.raises(FsdError):
                device.load(text, 0)
        loaded.bind([bytes(15)], [bytearray(15)])
        with pytest.raises(FsdError):
            loaded.wait(0)
        for _ in range(20):
            busy = device.load(program("1000"), 0)
            busy.bind([bytes(2_000_000)], [bytearray(2_000_000)])
            busy.submit(2000)
            busy.unload()  # in the middle of writing
        abort_storm(device, rounds=60)
        long_run(device, 0)
        long_run(device, 1)  # closed while both are under way
