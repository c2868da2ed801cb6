import ctypes
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cars import HandClock

from firmware_shims.power.meter import JouleSource, MeterFailed
from firmware_shims.power.nvml import Nvml, NvmlMeter

NOT_SUPPORTED, DRIVER_NOT_LOADED, GPU_IS_LOST, UNKNOWN = 3, 9, 15, 999
SOURCE = Path(__file__).with_name("nvml_stand_in.c")


def built(folder: Path, *flags: str) -> Path:
    """The stand-in as a library, built by the system's compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler (cc) here to build the stand-in for NVML")
    library = folder / f"libnvidia-ml{''.join(flags)}.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", *flags, "-o", library, SOURCE], check=True)
    return library


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def gpus(library: Path) -> Iterator[ctypes.CDLL]:
    """The test's hand on the GPUs; in the end every session has been closed."""
    hand = ctypes.CDLL(str(library))
    hand.hand_reset()
    hand.hand_energy.argtypes = (ctypes.c_int, ctypes.c_ulonglong)
    yield hand
    assert hand.hand_sessions() == 0


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def meter(library: Path, gpus: ctypes.CDLL, clock: HandClock) -> Iterator[NvmlMeter]:
    del gpus
    nvml = NvmlMeter(clock, library=str(library))
    yield nvml
    nvml.close()


def failure(meter: NvmlMeter) -> MeterFailed:
    with pytest.raises(MeterFailed) as failed:
        meter.read()
    assert failed.value.fix
    return failed.value


def test_all_gpus_are_added_up_from_their_first_reading_on(
    meter: NvmlMeter, gpus: ctypes.CDLL, clock: HandClock
) -> None:
    gpus.hand_energy(0, 5_000_000)
    gpus.hand_energy(1, 70)
    begin = meter.read()
    gpus.hand_energy(0, 5_060_000)
    gpus.hand_energy(1, 1_070)
    clock.forward(1)
    end = meter.read()
    assert end.joules - begin.joules == pytest.approx(61.0)
    assert end.since_ns == begin.at_ns
    assert meter.source is JouleSource.COUNTER


def test_only_the_named_gpu_counts(library: Path, gpus: ctypes.CDLL, clock: HandClock) -> None:
    meter = NvmlMeter(clock, ["GPU-bbbb"], str(library))
    begin = meter.read()
    gpus.hand_energy(0, 9_000)
    gpus.hand_energy(1, 4_000)
    clock.forward(1)
    assert meter.read().joules - begin.joules == pytest.approx(4.0)
    assert meter.name == "nvml GPU-bbbb"
    meter.close()


def test_a_gpu_that_is_not_there_is_said_with_how_to_find_the_right_one(
    library: Path, gpus: ctypes.CDLL, clock: HandClock
) -> None:
    del gpus
    failed = failure(NvmlMeter(clock, ["GPU-cccc"], str(library)))
    assert "nvmlDeviceGetHandleByUUID" in failed.why
    assert "nvidia-smi -L" in failed.fix


def test_the_counter_wraps_around_at_64_bits(meter: NvmlMeter, gpus: ctypes.CDLL, clock: HandClock) -> None:
    gpus.hand_energy(0, 2**64 - 1_000)
    begin = meter.read()
    gpus.hand_energy(0, 2_000)
    clock.forward(1)
    end = meter.read()
    assert end.joules - begin.joules == pytest.approx(3.0)
    assert end.since_ns == begin.at_ns


def test_a_driver_that_was_loaded_again_breaks_the_count(
    meter: NvmlMeter, gpus: ctypes.CDLL, clock: HandClock
) -> None:
    gpus.hand_energy(0, 5_000_000)
    meter.read()
    gpus.hand_energy(0, 12)
    clock.forward(1)
    after = meter.read()
    assert after.since_ns == after.at_ns
    gpus.hand_energy(0, 3_012)
    clock.forward(1)
    assert meter.read().joules - after.joules == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("code", "words"),
    [(NOT_SUPPORTED, "Not Supported"), (GPU_IS_LOST, "GPU is lost"), (UNKNOWN, "Unknown Error")],
)
def test_a_gpu_that_fails_is_told_and_can_come_back(
    meter: NvmlMeter, gpus: ctypes.CDLL, clock: HandClock, code: int, words: str
) -> None:
    gpus.hand_energy(1, 1_000)
    before = meter.read()
    gpus.hand_fail(1, code)
    assert f"nvmlDeviceGetTotalEnergyConsumption: {words} (NVML error {code})" in failure(meter).why
    assert gpus.hand_sessions() == 0  # the next read begins another session
    gpus.hand_fail(1, 0)
    gpus.hand_energy(1, 2_000)
    clock.forward(1)
    assert meter.read().joules - before.joules == pytest.approx(1.0)


def test_a_driver_that_is_not_loaded_is_said(meter: NvmlMeter, gpus: ctypes.CDLL) -> None:
    gpus.hand_fail_init(DRIVER_NOT_LOADED)
    failed = failure(meter)
    assert "nvmlInit_v2: Driver Not Loaded" in failed.why
    assert "kernel module" in failed.fix


def test_a_computer_without_the_library_or_without_a_gpu_says_so(
    meter: NvmlMeter, gpus: ctypes.CDLL, clock: HandClock, tmp_path: Path
) -> None:
    absent = failure(NvmlMeter(clock, library=str(tmp_path / "libnvidia-ml.so.1")))
    assert "cannot be loaded" in absent.why
    gpus.hand_count(0)
    assert failure(meter).why == "NVML knows no GPU here"


def test_an_old_library_names_the_function_that_it_lacks(tmp_path: Path, clock: HandClock) -> None:
    old = NvmlMeter(clock, library=str(built(tmp_path, "-DWITHOUT_ENERGY")))
    assert "no nvmlDeviceGetTotalEnergyConsumption" in failure(old).why


def test_an_error_without_words_has_its_number(tmp_path: Path, clock: HandClock) -> None:
    library = built(tmp_path, "-DWITHOUT_WORDS")
    ctypes.CDLL(str(library)).hand_fail_init(UNKNOWN)
    assert failure(NvmlMeter(clock, library=str(library))).why == "nvmlInit_v2: NVML error 999"


def test_the_power_of_a_gpu_is_there_for_a_gauge(library: Path, gpus: ctypes.CDLL) -> None:
    gpus.hand_power(1, 71_500)
    session = Nvml(str(library))
    assert [gpu.power_w() for gpu in session.gpus()] == [0.0, 71.5]
    session.close()
