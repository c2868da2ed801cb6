"""Libraries that are no driver, of another time, that lie, crash or hang: each is told apart and hurts nothing else."""

import math
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from fsd_drivers import (
    FORMAT,
    Drivers,
    bound,
    compiler,
    every_call,
    long_run,
    opened,
    program,
    python,
    refused,
)
from fsd_fixtures import Told

from firmware_shims.fsd.driver import open_device
from firmware_shims.fsd.interface import Code, NpuDevice

# ---- libraries that are no driver, or of another time


def test_a_library_that_is_not_there_is_said(tmp_path: Path) -> None:
    with refused(Code.NO_DEVICE, "open", "libfsd.so", "No such file"):
        open_device(tmp_path / "libfsd.so")


def test_a_file_that_is_no_library_is_said(tmp_path: Path) -> None:
    file = tmp_path / "libfsd.so"
    file.write_text("not ELF")
    with refused(Code.NO_DEVICE, "open", str(file)):
        open_device(file)


def test_a_library_of_something_else_is_said() -> None:
    with refused(Code.UNSUPPORTED, "open", "has no fsd_npu_abi_version", "no driver of an FSD NPU"):
        open_device(Path(math.__file__))


def test_a_device_that_is_not_there_is_said_before_there_is_one_to_ask(reference_library: Path) -> None:
    with refused(Code.NO_DEVICE, "open", "there is no device 2, only 0 to 1"):
        open_device(reference_library, 2)


def test_two_devices_of_one_library_are_independent(reference_library: Path) -> None:
    first, second = open_device(reference_library, 0), open_device(reference_library, 1)
    running = long_run(first)
    second.close()
    with refused(Code.TIMED_OUT, "wait"):
        running.wait(0)
    first.close()


@pytest.mark.parametrize("minor", [2, 65_535])
def test_a_driver_of_a_newer_minor_works_as_ours(reference_drivers: Drivers, minor: int) -> None:
    with opened(reference_drivers.of_abi(1, minor)) as device:
        assert device.capabilities.energy_source == "counter"
        loaded, y = bound(device, program(ms=1))
        loaded.submit()
        assert loaded.wait(10).energy_nj == 250
        assert y == bytes([6, 7, 8, 9])


def test_a_driver_of_an_older_minor_works_without_what_came_later(reference_drivers: Drivers) -> None:
    with opened(reference_drivers.of_abi(1, 0)) as device:
        assert device.capabilities.energy_source == "none"
        assert device.energy_nj(0) is None
        assert device.temperature_c(0) is None
        loaded, y = bound(device, program(ms=1))
        loaded.submit()
        done = loaded.wait(10)
        assert (done.cycles, done.energy_nj) == (1_000, None)
        assert y == bytes([6, 7, 8, 9])


@pytest.mark.parametrize("major", [0, 2])
def test_a_driver_of_another_major_is_refused_with_both_versions(
    reference_drivers: Drivers, major: int
) -> None:
    with refused(Code.UNSUPPORTED, "open", f"speaks ABI {major}.1, not 1.1: take a driver for 1.x"):
        open_device(reference_drivers.of_abi(major, 1))


def test_a_driver_that_lacks_a_function_of_its_version_is_refused_by_the_name_of_it(
    reference_drivers: Drivers,
) -> None:
    with refused(Code.UNSUPPORTED, "open", "claims ABI 1.1 and does not export fsd_npu_submit"):
        open_device(reference_drivers.built("-DWITHOUT_SUBMIT"))


# ---- drivers that lie


@pytest.mark.parametrize("call", ["query", "describe", "describe_tensor", "wait"])
@pytest.mark.parametrize(
    ("lie", "words"),
    [
        ("overrun:{}", "wrote beyond the"),
        ("filled:{}=100000", "filled 100000 bytes"),
        ("filled:{}=8", "filled 8 bytes"),
        ("filled:{}=0", "filled 0 bytes"),
    ],
)
def test_a_driver_that_lies_about_sizes_is_told_so(
    reference_library: Path, told: Told, call: str, lie: str, words: str
) -> None:
    told(lie.format(call))
    with refused(Code.INTERNAL, call, "lies about sizes", words):
        every_call(reference_library)


@pytest.mark.parametrize(
    ("lie", "call", "words"),
    [
        ("nothing", "open", "says ok and gives nothing"),
        ("no_program", "load", "says ok and gives nothing"),
        ("npus=0", "query", "0 NPUs; 1 to 64"),
        ("npus=65", "query", "65 NPUs; 1 to 64"),
        ("sram_bytes=0", "query", "`sram_bytes` is 0"),
        ("clock_hz=0", "query", "`clock_hz` is 0"),
        ("macs_per_cycle=0", "query", "`macs_per_cycle` is 0"),
        ("energy_source=3", "query", "`energy_source` is 3; 0 to 2"),
        ("no_operators", "query", "`operators` names none"),
        ("endless_name", "query", "`name` has no end within its 64 bytes"),
        ("name_begins=0", "query", "`name` is ''"),
        ("name_begins=27", "query", r"`name` is '\x1beference'"),
        ("name_begins=255", "query", "`name` is no UTF-8"),
        ("npu=1", "describe", "on NPU 1, and was loaded on 0"),
        ("inputs=0", "describe", "0 inputs and 1 outputs"),
        ("outputs=0", "describe", "1 inputs and 0 outputs"),
        ("outputs=256", "describe", "1 inputs and 256 outputs; 1 of each and 256 together"),
        ("datatype=0", "describe_tensor", "`datatype` of 'x' is 0; 1 to 12"),
        ("datatype=13", "describe_tensor", "`datatype` of 'x' is 13"),
        ("dims=9", "describe_tensor", "'x' has 9 dimensions; 8 is the limit"),
        ("size=0 lie:row_bytes=0", "describe_tensor", "a row of 'x', INT8 [0], has 0 bytes, not 0"),
        ("size=0", "describe_tensor", "a row of 'x', INT8 [0], has 0 bytes, not 4"),
        ("row_bytes=5", "describe_tensor", "a row of 'x', INT8 [4], has 4 bytes, not 5"),
        ("row_bytes=-1", "describe_tensor", "a row of 'x', INT8 [4], has 4 bytes, not 18446744073709551615"),
    ],
)
def test_a_driver_that_says_what_cannot_be_is_not_believed(
    reference_library: Path, told: Told, lie: str, call: str, words: str
) -> None:
    told(f"lie:{lie}")
    with refused(Code.INTERNAL, call, words, "take a corrected driver"):
        every_call(reference_library)


@pytest.mark.parametrize("names", [("a", "a", "c", "d"), ("a", "b", "c", "c")])
def test_two_tensors_of_one_name_are_not_believed(npu_device: NpuDevice, names: tuple[str, ...]) -> None:
    kinds = ("input", "input", "output", "output")
    lines = [f"{kind} {name} INT8 1" for kind, name in zip(kinds, names, strict=True)]
    with refused(Code.INTERNAL, "describe_tensor", "same name"):
        npu_device.load("\n".join((FORMAT, *lines)).encode(), 0)


def test_a_program_that_is_not_believed_does_not_stay_on_the_npu(reference_library: Path, told: Told) -> None:
    told("lie:row_bytes=5")
    with opened(reference_library) as device:
        for _ in range(3):
            with refused(Code.INTERNAL, "describe_tensor"):
                device.load(program("4", 5, 0, "weights 20000000"), 0)


# ---- drivers that crash or hang: in a process of their own, as a worker is one

WORKER = """
import resource, sys
from pathlib import Path
from fsd_drivers import bound, opened, program
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
with opened(Path(sys.argv[1])) as device:
    loaded, _ = bound(device, program(ms=50))
    loaded.submit()
    print("submitted", flush=True)
    loaded.wait(60)
"""


@pytest.mark.parametrize("call", ["open", "load", "submit", "wait", "run", "unload", "close"])
def test_a_driver_that_crashes_ends_its_process_and_nothing_else(
    reference_library: Path, npu_device: NpuDevice, call: str
) -> None:
    running = long_run(npu_device)
    with python(WORKER, str(reference_library), FSD_REFERENCE=f"crash:{call}") as worker:
        worker.communicate(timeout=60)
        assert worker.returncode == -signal.SIGSEGV
    with refused(Code.TIMED_OUT, "wait"):
        running.wait(0)


@pytest.mark.parametrize("call", ["wait", "run", "unload"])
def test_a_driver_that_hangs_goes_with_its_process(reference_library: Path, call: str) -> None:
    with python(WORKER, str(reference_library), FSD_REFERENCE=f"hang:{call}") as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "submitted\n"
        worker.kill()
        assert worker.wait(timeout=30) == -signal.SIGKILL


def test_no_call_touches_memory_that_is_not_its_own(reference_drivers: Drivers) -> None:
    sanitizers = "-fsanitize=address,undefined"
    runtime = sanitizer_runtime()
    try:
        library = reference_drivers.built(sanitizers, "-fno-sanitize-recover=undefined")
    except subprocess.CalledProcessError:
        pytest.skip(f"the compiler does not build with {sanitizers}")
    script = "import sys, fsd_drivers, pathlib; fsd_drivers.tour(pathlib.Path(sys.argv[1])); print('clean')"
    environment = {
        "LD_PRELOAD": runtime,
        "PYTHONMALLOC": "malloc",  # so that Python's own memory is watched too
        "ASAN_OPTIONS": "detect_leaks=0",  # the interpreter leaves some at its end
    }
    with python(script, str(library), **environment) as worker:
        said, complaints = worker.communicate(timeout=100)
        assert (worker.returncode, said) == (0, "clean\n"), complaints


def sanitizer_runtime() -> str:
    """What has to be in an unsanitized process first; skips where the compiler has none."""
    found = subprocess.run(
        [compiler("cc"), "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    )
    path = Path(found.stdout.strip())
    if not (path.is_absolute() and path.read_bytes()[:4] == b"\x7fELF"):
        pytest.skip("the compiler has no libasan")
    return str(path)


def test_the_binding_brings_no_numpy() -> None:
    script = "import sys, firmware_shims.fsd.driver; print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
