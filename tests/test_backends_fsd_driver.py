"""The fsd backend on a driver in C: its programs as they are, its joules as counted, its failures by their codes."""

import contextlib
import gc
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsd_drivers
import numpy as np
import pytest
from fsd_backend import Array
from fsd_fixtures import Told
from workers import may_read, started

from backends.contract import CHECKS, Check, Subject
from backends.fsd import Fsd, FsdOptions
from backends.fsd_program import FsdProgram
from backends.kernel import (
    BACKEND_UNUSABLE,
    INFERENCE_FAILED,
    MODEL_INVALID,
    MODEL_UNSUPPORTED,
    OUT_OF_MEMORY,
    Cancelled,
    Device,
    KernelError,
    Model,
    Spent,
    Tensor,
)
from firmware_shims.fsd.interface import Code

DEVICE = "fsd:0 reference"
CHECKED = pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)


def program(folder: Path, *lines: str, shape: str = "4", ms: int = 0, add: int = 5) -> Model:
    path = folder / "program"
    path.write_bytes(fsd_drivers.program(shape, add, ms, *lines))
    return Model(path, "0" * 64, fsd_drivers.FORMAT, (Tensor("x", "INT8", (4,)),))


@contextlib.contextmanager
def opened(library: Path, model: Model) -> Iterator[FsdProgram]:
    loaded = Fsd(FsdOptions(driver=library)).load(model, DEVICE)
    try:
        yield loaded
    finally:
        loaded.close()


def run(loaded: FsdProgram, rows: Array) -> tuple[Array, Spent]:
    result = np.zeros(rows.shape, np.int8)
    return result, loaded.run({"x": rows}, {"y": result})


def test_a_device_is_named_by_its_driver_and_takes_its_programs(reference_library: Path) -> None:
    backend = Fsd(FsdOptions(driver=reference_library))
    assert backend.probe() == [Device(DEVICE, (fsd_drivers.FORMAT,))]
    assert backend.version.startswith("1.0, onnxruntime ")


@CHECKED
def test_it_keeps_the_contract(check: Check, reference_library: Path, tmp_path: Path) -> None:
    assert check(Subject("fsd", program(tmp_path), {"driver": str(reference_library)}))


def test_rows_are_shared_by_the_npus_and_their_joules_are_counted(
    reference_library: Path, tmp_path: Path
) -> None:
    rows = np.arange(20, dtype=np.int8).reshape(5, 4)
    with opened(reference_library, program(tmp_path, ms=2)) as loaded:
        result, spent = run(loaded, rows)
        one_row_s = loaded.cost.run_s[1]
        assert loaded.cost.run_s[2] < 1.7 * one_row_s
    np.testing.assert_array_equal(result, rows + 5)
    assert spent.joules_source == "counter"
    assert spent.joules == pytest.approx(5 * 2 * 250e-9)


async def test_in_a_worker_the_driver_was_opened_before_its_files_went_out_of_sight(
    reference_library: Path, tmp_path: Path
) -> None:
    model = program(tmp_path)
    async with started("fsd", driver=str(reference_library), limits=may_read(model)) as worker:
        loaded = await worker.load(model)
        with worker.slot(loaded, 3) as slot:
            slot.inputs[0][:] = bytes(range(12))
            done = await worker.run(slot)
            assert bytes(slot.outputs[0]) == bytes(range(5, 17))
    assert (loaded.device, done.spent.joules_source) == (DEVICE, "counter")


def test_a_cancel_reaches_both_npus(reference_library: Path, tmp_path: Path) -> None:
    with opened(reference_library, program(tmp_path, ms=20)) as loaded:
        timer = threading.Timer(0.1, loaded.cancel)
        timer.start()
        with pytest.raises(Cancelled):
            run(loaded, np.zeros((1000, 4), np.int8))
        timer.join()
        assert loaded.cost.cancel_bound_s is not None
        assert loaded.cost.cancel_bound_s < loaded.cost.run_s[1]
        run(loaded, np.zeros((2, 4), np.int8))


def test_unknown_joules_are_none(reference_library: Path, tmp_path: Path, told: Told) -> None:
    told("lie:energy_nj=-1")
    with opened(reference_library, program(tmp_path)) as loaded:
        assert run(loaded, np.zeros((2, 4), np.int8))[1].joules is None


@pytest.mark.parametrize(
    ("code", "meaning"),
    [
        (Code.BUSY, BACKEND_UNUSABLE),
        (Code.BAD_PROGRAM, MODEL_INVALID),
        (Code.UNSUPPORTED, MODEL_UNSUPPORTED),
        (Code.NO_MEMORY, OUT_OF_MEMORY),
        (Code.DEVICE_LOST, BACKEND_UNUSABLE),
        (Code.INTERNAL, INFERENCE_FAILED),
    ],
)
def test_what_a_load_fails_of_is_told_with_the_drivers_words(
    code: Code, meaning: int, reference_library: Path, tmp_path: Path, told: Told
) -> None:
    told(f"fail:load={code}")
    with pytest.raises(KernelError, match="load was told to fail") as refused:
        Fsd(FsdOptions(driver=reference_library)).load(program(tmp_path), DEVICE)
    assert refused.value.code == meaning


@pytest.mark.parametrize("call", ["submit", "wait"])
def test_a_first_run_that_fails_blames_the_model_unless_it_is_the_device(
    call: str, reference_library: Path, tmp_path: Path, told: Told
) -> None:
    blamed = {Code.OVERHEATED: BACKEND_UNUSABLE, Code.INTERNAL: MODEL_UNSUPPORTED}
    for code, meaning in blamed.items():
        told(f"fail:{call}={code}")
        with pytest.raises(KernelError, match=f"{call} was told to fail") as failed:
            Fsd(FsdOptions(driver=reference_library)).load(program(tmp_path), DEVICE)
        assert failed.value.code == meaning
        del failed  # it holds the device open
        gc.collect()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": "onnx"}, f"runs models of format {fsd_drivers.FORMAT}, not onnx"),
        ({"inputs": (Tensor("x", "INT8", (5,)),)}, "input 'x' is given with shape [any, 5]"),
        ({"inputs": (Tensor("x", "UINT8", (4,)),)}, "given as UINT8, the model takes INT8"),
        ({"outputs": ("z",)}, "output 'z' is not one of the model's: y"),
    ],
)
def test_a_program_that_does_not_fit_the_task_is_refused(
    change: dict[str, Any], words: str, reference_library: Path, tmp_path: Path
) -> None:
    fits = program(tmp_path)
    asked = Model(
        fits.path,
        fits.sha256,
        change.get("format", fits.format),
        change.get("inputs", fits.inputs),
        change.get("outputs", ()),
    )
    with pytest.raises(KernelError) as refused:
        Fsd(FsdOptions(driver=reference_library)).load(asked, DEVICE)
    assert refused.value.code == MODEL_UNSUPPORTED
    assert words in refused.value.text


@pytest.mark.parametrize(
    ("driver", "index", "words"),
    [("no/such/lib.so", 0, "no/such/lib.so"), ("reference", 7, "no_device")],
)
def test_a_driver_that_cannot_be_used_says_why(
    driver: str, index: int, words: str, reference_library: Path
) -> None:
    path = reference_library if driver == "reference" else Path(driver)
    (device,) = Fsd(FsdOptions(driver=path, device=index)).probe()
    assert (device.name, device.formats) == (f"fsd:{index}", ("onnx",))
    assert words in device.why
