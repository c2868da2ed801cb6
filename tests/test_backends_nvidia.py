"""The nvidia backend against a stand-in for the driver and an onnxruntime that only says that it has a GPU."""

import ctypes
import importlib
import importlib.util
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError
from test_meter_nvml import GPU_IS_LOST, built
from workers import may_read, started

from backends import registry
from backends.contract import CHECKS, Check, Subject, own_model
from backends.datatypes import NUMPY_NAMES
from backends.kernel import Cancelled, KernelError, Model, Tensor
from backends.nvidia import Nvidia, NvidiaOptions
from backends.onnx_cuda import CudaProgram
from backends.tiny_onnx import external_constant, one_node
from firmware_shims.power.nvml import Nvml

if TYPE_CHECKING:
    from backends.kernel import Array

np = pytest.importorskip("numpy")
if importlib.util.find_spec("onnxruntime") is None:
    pytest.skip("onnxruntime, which the fake GPU computes with, is not installed", allow_module_level=True)
ROW = Tensor("x", "FP32", (4,))
FIRST, SECOND = "cuda:0 NVIDIA Stand-in", "cuda:1 NVIDIA Other Stand-in"
FAKE = Path(__file__).with_name("fake_gpu")
Provider = Callable[[str], ModuleType]


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("driver"))


@pytest.fixture
def gpus(driver: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ctypes.CDLL]:
    """Two GPUs, in the test's hand; in the end every session with the driver has been closed."""
    hand = ctypes.CDLL(str(driver))
    hand.hand_reset()
    monkeypatch.setattr("backends.nvidia.LIBRARY", str(driver))
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    yield hand
    assert hand.hand_sessions() == 0


@pytest.fixture
def provider(gpus: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> Provider:
    """How onnxruntime's CUDA provider is in this process."""
    del gpus
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "1")
    runtime = importlib.import_module("onnxruntime")
    spec = importlib.util.spec_from_file_location("fake_gpu", FAKE / "onnxruntime.py")
    assert spec is not None
    assert spec.loader is not None
    fake = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fake)
    real = runtime.InferenceSession

    def behaves(behaviour: str) -> ModuleType:
        monkeypatch.setattr(runtime, "InferenceSession", real)
        monkeypatch.setattr(runtime, "InferenceSession", fake.sessions_of(runtime, behaviour))
        monkeypatch.setattr(runtime, "get_available_providers", fake.available)
        return runtime

    return behaves


def stored(folder: Path, data: bytes, *inputs: Tensor) -> Model:
    path = folder / "model"
    path.write_bytes(data)
    return Model(path, "0" * 64, "onnx", inputs or (ROW,))


def softmax(operator: str = "Softmax") -> bytes:
    return one_node(operator, {"x": ("FP32", ("n", 4))}, ("FP32", ("n", 4)))


def backend(**options: Any) -> Nvidia:
    return Nvidia(NvidiaOptions.model_validate(options))


def seen(**options: Any) -> dict[str, str]:
    return {device.name: device.why for device in backend(**options).probe()}


def refusal(model: Model, device: str = FIRST) -> tuple[int, str]:
    with pytest.raises(KernelError) as caught:
        backend().load(model, device)
    return caught.value.code, caught.value.text


def outputs_of(program: CudaProgram, rows: int, **inputs: "Array") -> "Array":
    output = program.outputs[0]
    given: Array = np.full((rows, *output.row_shape), 7, NUMPY_NAMES[output.datatype])
    program.run(inputs, {output.name: given})
    return given


def test_a_computer_without_the_driver_has_no_nvidia_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backends.nvidia.LIBRARY", str(tmp_path / "libnvidia-ml.so.1"))
    assert seen() == {}
    assert "here: no GPU" in refusal(stored(tmp_path, softmax()))[1]


def test_a_driver_that_is_not_loaded_is_said_with_its_fix(gpus: ctypes.CDLL) -> None:
    gpus.hand_fail_init(9)
    assert seen() == {"cuda": "nvmlInit_v2: Driver Not Loaded (NVML error 9); load the nvidia kernel module"}


def test_the_cpu_build_of_onnxruntime_is_told_from_the_gpus_one(gpus: ctypes.CDLL) -> None:
    del gpus
    fix = "pip install 'parkwatt[nvidia]' in an environment without the cpu extra"
    assert seen() == dict.fromkeys((FIRST, SECOND), f"onnxruntime here is the CPU build: {fix}")


def test_every_gpu_that_runs_a_model_is_a_device(provider: Provider) -> None:
    provider("works")
    assert seen() == {FIRST: "", SECOND: ""}
    assert seen(provider="tensorrt") == {FIRST: "", SECOND: ""}
    assert seen(devices=[1]) == {SECOND: ""}
    assert seen(devices=[0, 7]) == {
        FIRST: "",
        "cuda:7": "no such GPU: backends.options.devices may name 0, 1",
    }


def test_the_driver_tells_a_gpus_product_and_the_memory_in_use(driver: Path, gpus: ctypes.CDLL) -> None:
    del gpus
    nvml = Nvml(str(driver))
    assert [(gpu.product(), gpu.used_bytes()) for gpu in nvml.gpus()] == [
        ("NVIDIA Stand-in", 1 << 30),
        ("NVIDIA Other Stand-in", 1 << 30),
    ]
    nvml.close()


def test_gpus_are_counted_as_the_driver_counts_them(provider: Provider) -> None:
    provider("works")
    backend().probe()
    assert os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


def test_a_lost_gpu_has_its_reason_and_the_other_one_works_on(
    provider: Provider, gpus: ctypes.CDLL, tmp_path: Path
) -> None:
    provider("works")
    gpus.hand_fail(0, GPU_IS_LOST)
    devices = seen()
    assert devices[SECOND] == ""
    assert "GPU is lost (NVML error 15); restart the computer" in devices["cuda:0"]
    code, text = refusal(stored(tmp_path, softmax()))
    assert code == 1020
    assert text.startswith(f"nvidia cannot use {FIRST!r}; here: 'cuda:0' (nvmlDeviceGetName")
    assert refusal(stored(tmp_path, softmax()), "cuda:0")[0] == 1020


@pytest.mark.parametrize(
    ("behaviour", "says"),
    [
        ("does not start", "assigned to the default CPU EP"),
        ("ignores the flag", "CUDAExecutionProvider did not start and onnxruntime took CPUExecutionProvider"),
        ("lost", "CUDA failure 46: device busy or unavailable"),
    ],
)
def test_a_provider_that_does_not_start_is_never_replaced_by_the_processor(
    provider: Provider, behaviour: str, says: str, tmp_path: Path
) -> None:
    provider(behaviour)
    assert all(says in why for why in seen().values())
    code, text = refusal(stored(tmp_path, softmax()))
    assert code == 1020
    assert says in text


def test_a_session_on_another_gpu_than_the_one_asked_for_is_refused(
    provider: Provider, tmp_path: Path
) -> None:
    provider("first GPU")
    says = f"the session is on GPU 0, asked for was 1 ({SECOND})"
    assert seen() == {FIRST: "", SECOND: says}
    assert refusal(stored(tmp_path, softmax()), SECOND) == (1020, says)


def test_a_gpu_that_is_lost_while_a_model_loads_is_not_the_models_fault(
    provider: Provider, tmp_path: Path
) -> None:
    provider("works")
    nvidia = backend()
    assert [device.why for device in nvidia.probe()] == ["", ""]
    provider("lost")
    with pytest.raises(KernelError, match="CUDA failure 46") as caught:
        nvidia.load(stored(tmp_path, softmax()), FIRST)
    assert caught.value.code == 1020


def test_a_model_with_a_node_that_the_gpu_cannot_run_is_unsupported(
    provider: Provider, tmp_path: Path
) -> None:
    provider("works")
    code, text = refusal(stored(tmp_path, softmax("Hardmax")))
    assert code == 132
    assert "assigned to the default CPU EP" in text


@pytest.mark.parametrize(
    "data", [b"", b"no model" * 99, softmax("Nope")], ids=["empty", "junk", "no operator"]
)
def test_files_that_are_no_models_are_invalid(provider: Provider, data: bytes, tmp_path: Path) -> None:
    provider("works")
    assert refusal(stored(tmp_path, data))[0] == 133


@pytest.mark.parametrize("name", ["cuda", "tensorrt"])
def test_a_model_is_its_own_bytes_and_nothing_else(
    provider: Provider, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider("works")
    (tmp_path / "w.bin").write_bytes(np.ones(4, "f4").tobytes())
    monkeypatch.chdir(tmp_path)
    weights = external_constant("w", "FP32", [4], "w.bin")
    dimensions = ("FP32", ("n", 4))
    data = one_node("Add", {"x": dimensions}, dimensions, constants=weights, constant_names=["w"])
    with pytest.raises(KernelError) as caught:
        backend(provider=name).load(stored(tmp_path, data), FIRST)
    assert caught.value.code == 133


def test_a_program_fills_the_given_arrays(provider: Provider, tmp_path: Path) -> None:
    provider("works")
    nvidia = backend()
    program = nvidia.load(stored(tmp_path, softmax()), SECOND)
    assert program.max_batch is None
    assert np.allclose(outputs_of(program, 3, x=np.ones((3, 4), "f4")), 0.25)
    turned = one_node("Transpose", {"x": ("FP32", ("n", 4))}, ("FP32", (4, "n")))
    other = nvidia.load(stored(tmp_path, turned), SECOND)
    assert other.max_batch == 1
    assert other.outputs[0].row_shape == (4, 1)
    assert outputs_of(other, 1, x=np.arange(4, dtype="f4").reshape(1, 4)).ravel().tolist() == [0, 1, 2, 3]
    with pytest.raises(KernelError, match="onnxruntime: "):
        outputs_of(other, 2, x=np.ones((2, 4), "f4"))


@pytest.mark.parametrize(
    ("datatype", "dtype"), [("FP16", "f2"), ("INT8", "i1"), ("BOOL", "?"), ("INT64", "i8")]
)
def test_every_datatype_passes_through(provider: Provider, datatype: str, dtype: str, tmp_path: Path) -> None:
    provider("works")
    data = one_node("Identity", {"x": (datatype, ("n", 4))}, (datatype, ("n", 4)))
    program = backend().load(stored(tmp_path, data, Tensor("x", datatype, (4,))), FIRST)
    values = np.array([[1, 0, 3, 100]]).astype(dtype)
    assert np.array_equal(outputs_of(program, 1, x=values), values)


def test_a_run_that_was_cancelled_says_so_and_the_next_one_is_good(
    provider: Provider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = provider("works")
    program = backend().load(stored(tmp_path, softmax()), FIRST)
    assert program.cost.cancel_bound_s is not None
    assert program.cost.cancel_bound_s >= program.cost.run_s[1]
    bound = runtime.InferenceSession.run_with_iobinding

    def cancelled_in_its_middle(session: Any, binding: Any, options: Any) -> None:
        program.cancel()
        bound(session, binding, options)

    monkeypatch.setattr(runtime.InferenceSession, "run_with_iobinding", cancelled_in_its_middle)
    with pytest.raises(Cancelled):
        outputs_of(program, 1, x=np.ones((1, 4), "f4"))
    monkeypatch.setattr(runtime.InferenceSession, "run_with_iobinding", bound)
    assert np.allclose(outputs_of(program, 1, x=np.ones((1, 4), "f4")), 0.25)


@pytest.mark.parametrize(
    ("says", "code"),
    [
        ("CUDA failure 46: device busy or unavailable", 1020),
        ("CUDA failure 2: out of memory", 1023),
        ("Tensor size mismatch", 160),
    ],
)
def test_a_run_that_fails_says_whose_fault_it_is(
    provider: Provider, says: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = provider("works")
    program = backend().load(stored(tmp_path, softmax()), FIRST)

    def fails(*_: Any) -> None:
        raise RuntimeError(f"Error in execution: {says}")

    monkeypatch.setattr(runtime.InferenceSession, "run_with_iobinding", fails)
    with pytest.raises(KernelError, match=says) as caught:
        outputs_of(program, 1, x=np.ones((1, 4), "f4"))
    assert caught.value.code == code


def test_memory_that_the_driver_does_not_tell_is_taken_for_the_whole_limit(
    provider: Provider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider("works")
    model = stored(tmp_path, softmax())
    known = backend(gpu_memory_bytes=1 << 30).load(model, FIRST).cost.bytes_resident
    assert known is not None
    assert len(softmax()) <= known < 1 << 30
    monkeypatch.setattr("backends.nvidia.LIBRARY", str(built(tmp_path, "-DWITHOUT_MEMORY")))
    unknown = backend(gpu_memory_bytes=1 << 30).load(model, FIRST).cost.bytes_resident
    assert unknown is not None
    assert unknown >= 1 << 30


def test_options_reach_the_provider_by_onnxruntimes_names(provider: Provider, tmp_path: Path) -> None:
    provider("works")
    model = stored(tmp_path, softmax())
    cuda = backend(gpu_memory_bytes=1 << 28, tf32=True).load(model, SECOND)
    settings = cuda._runs.session.get_provider_options()["CUDAExecutionProvider"]
    assert settings["device_id"] == "1"
    assert settings["gpu_mem_limit"] == "268435456"
    assert settings["use_tf32"] == "1"
    nvidia = backend(provider="tensorrt", fp16=True)
    settings = nvidia.load(model, FIRST)._runs.session.get_provider_options()["TensorrtExecutionProvider"]
    assert settings["trt_fp16_enable"] == "True"
    engines = Path(settings["trt_engine_cache_path"])
    assert engines.is_dir()
    del nvidia
    assert not engines.exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"fp16": True}, "fp16 = true needs provider = 'tensorrt'"),
        ({"provider": "tensorrt", "tf32": True}, "tf32 = true needs provider = 'cuda'"),
        ({"provider": "rocm"}, "provider"),
        ({"devices": [-1]}, "devices"),
        ({"gpu_memory_bytes": 1}, "gpu_memory_bytes"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        registry.validate_options("nvidia", options)


def put_in_place(driver: Path, behaviour: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the processes that the test starts find: the driver's library, and the fake onnxruntime."""
    before: Sequence[str] = [os.environ["PYTHONPATH"]] if "PYTHONPATH" in os.environ else []
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(FAKE), *before]))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(driver.parent))
    monkeypatch.setenv("FAKE_GPU", behaviour)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_nvidia_keeps_the_contract_as_far_as_no_gpu_is_needed(
    check: Check, provider: Provider, driver: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider("works")
    put_in_place(driver, "works", monkeypatch)
    assert check(Subject("nvidia", own_model(tmp_path), device=FIRST))


async def test_a_worker_uses_the_gpu_that_works_and_names_the_lost_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half_dead = built(tmp_path, f"-DFAILURE_OF_GPU_1={GPU_IS_LOST}").rename(tmp_path / "libnvidia-ml.so.1")
    put_in_place(half_dead, "works", monkeypatch)
    model = stored(tmp_path, softmax())
    async with started("nvidia", limits=may_read(model)) as worker:
        first, lost = await worker.probe()
        assert (first.name, first.why) == (FIRST, "")
        assert "GPU is lost" in lost.why
        program = await worker.load(model, FIRST)
        with worker.slot(program, 2) as slot:
            slot.inputs[0][:] = np.ones((2, 4), "f4").tobytes()
            await worker.run(slot)
            assert np.allclose(np.frombuffer(slot.outputs[0], "f4"), 0.25)


async def test_a_worker_whose_provider_falls_back_runs_nothing(
    driver: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_in_place(driver, "ignores the flag", monkeypatch)
    model = stored(tmp_path, softmax())
    async with started("nvidia", limits=may_read(model)) as worker:
        assert all("did not start" in device.why for device in await worker.probe())
        with pytest.raises(KernelError) as caught:
            await worker.load(model, FIRST)
        assert caught.value.code == 1020
