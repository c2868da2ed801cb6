"""ONNX models on NVIDIA GPUs, by onnxruntime's CUDA provider or, by option, its TensorRT provider.

NOT YET RUN ON A GPU. What stands here is tried against a C stand-in for NVML, and against an onnxruntime whose
CUDA provider is told apart by name only and computes on the processor (tests/fake_gpu). Never seen on hardware:
- that the providers take these settings, and that a CUDA process lives within a worker's limits (Landlock,
  seccomp, RLIMIT_DATA) after its probe has started CUDA;
- that CUDA counts GPUs as NVML does, which CUDA_DEVICE_ORDER=PCI_BUS_ID promises; MIG parts are not told apart;
- what a GPU that falls off its bus does to a run, what a cancel really takes, what a model takes of GPU memory;
- everything about TensorRT: build times, its engine cache, engines above the worker's limit for one file.

Known limits: a computer whose driver has no NVML (older Tegra) shows no GPU at all. A model of which onnxruntime
itself places nodes on the processor is refused with code 132, and it does so with the arithmetic on shapes that
some exports carry along: there is no exception from session.disable_cpu_ep_fallback for those.
"""

import contextlib
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, model_validator

from backends.kernel import (
    BACKEND_UNUSABLE,
    MODEL_INVALID,
    MODEL_UNSUPPORTED,
    Cost,
    Device,
    KernelError,
    Model,
    Needs,
    Tensor,
)
from backends.measuring import the_model_is_to_blame
from backends.nvidia_gpus import Gpu, MemoryTaken, gpus_here
from backends.onnx_cuda import CudaProgram
from backends.onnx_runs import FATAL, OnnxRuns
from backends.onnx_session import (
    OWN_BYTES_ONLY,
    Fitted,
    fitted,
    model_bytes,
    opened,
    runtime_imported,
)
from backends.tiny_onnx import one_node
from firmware_shims.power.nvml import LIBRARY

MIB: Final = 1 << 20
CUDA: Final = "CUDAExecutionProvider"
PROVIDERS: Final = {"cuda": CUDA, "tensorrt": "TensorrtExecutionProvider"}
TRIAL_INPUT: Final = Tensor("x", "FP32", (4,))
TRIAL_MODEL: Final = one_node("Softmax", {"x": ("FP32", (1, 4))}, ("FP32", (1, 4)))
"""Known to be good: when it fails, the GPU or its libraries are to blame."""
INSTALL: Final = "pip install 'parkwatt[nvidia]' in an environment without the cpu extra"


class NvidiaOptions(BaseModel):
    """`[backends.options]` of the nvidia backend."""

    model_config = ConfigDict(extra="forbid")

    provider: Literal["cuda", "tensorrt"] = Field(
        default="cuda", description="tensorrt compiles each model for minutes and needs TensorRT 10 installed"
    )
    devices: tuple[NonNegativeInt, ...] = Field(
        default=(), description="GPUs to use, numbered as nvidia-smi -L does; empty for all"
    )
    gpu_memory_bytes: int = Field(
        default=2 << 30,
        ge=16 * MIB,
        description="cuda: what a program keeps at most on the GPU; tensorrt: its workspace while it compiles",
    )
    tf32: bool = Field(
        default=False,
        description="cuda: products of float32 with 10 bits of fraction, faster on Ampere and newer",
    )
    fp16: bool = Field(default=False, description="tensorrt: may compute float32 models in float16")

    @model_validator(mode="after")
    def _fits_the_provider(self) -> Self:
        if self.fp16 and self.provider != "tensorrt":
            raise ValueError(
                "fp16 = true needs provider = 'tensorrt': cuda computes in the types of the model"
            )
        if self.tf32 and self.provider != "cuda":
            raise ValueError("tf32 = true needs provider = 'cuda': TensorRT decides about TF32 by itself")
        return self


class Nvidia:
    """A device for each GPU, named `cuda:INDEX PRODUCT`, whichever provider serves it."""

    name: ClassVar[str] = "nvidia"
    Options: ClassVar[type[BaseModel]] = NvidiaOptions
    needs: ClassVar[Needs] = Needs(
        read=("/proc/driver/nvidia", "/proc/devices", "/proc/modules", "/sys/bus/pci/devices"),
        devices=("/dev/nvidia*",),
        reserves_addresses=True,
    )

    def __init__(self, options: NvidiaOptions) -> None:
        self._options = options
        self._provider = PROVIDERS[options.provider]
        self._engines = ""
        self.version = ""

    def probe(self) -> Sequence[Device]:
        """Start the provider on each GPU and run a model of one node, which also opens what a worker keeps."""
        return [Device(gpu.name, ("onnx",), why=gpu.why or self._trouble(gpu)) for gpu in self._gpus()]

    def load(self, model: Model, device: str) -> CudaProgram:  # noqa: D102
        gpu = self._gpu(device)
        runtime = self._runtime()
        memory = MemoryTaken(LIBRARY, gpu.index)
        data = model_bytes(model, self.name)
        with self._unless_the_gpu_is_to_blame(gpu):
            signature = opened(
                runtime, data, self._signature_options(runtime), CUDA, self._settings(CUDA, gpu)
            )
        fit = fitted(signature, model)
        del signature  # its weights leave the GPU before they come again
        with self._unless_the_gpu_is_to_blame(gpu):
            program = self._program(runtime, data, gpu, fit, model.known)
        program.holds(memory.bytes(len(data), self._options.gpu_memory_bytes))
        return program

    def _gpus(self) -> list[Gpu]:
        """The GPUs that the options name, those too that are not there."""
        found = gpus_here(LIBRARY)
        if not found or not self._options.devices:
            return found
        by_index = {gpu.index: gpu for gpu in found}
        why = f"no such GPU: backends.options.devices may name {', '.join(map(str, by_index))}"
        return [
            by_index.get(index) or Gpu(index, f"cuda:{index}", why)
            for index in sorted({*self._options.devices})
        ]

    def _gpu(self, device: str) -> Gpu:
        gpus = self._gpus()
        for gpu in gpus:
            if gpu.name == device and not gpu.why:
                return gpu
        seen = ", ".join(f"{gpu.name!r}{f' ({gpu.why})' if gpu.why else ''}" for gpu in gpus) or "no GPU"
        raise KernelError(BACKEND_UNUSABLE, f"nvidia cannot use {device!r}; here: {seen}")

    def _runtime(self) -> Any:
        """The onnxruntime module; raises `KernelError` where it has not got the provider."""
        # GPUs are counted as NVML counts them, and backends.options.devices chooses among them
        os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)
        try:
            runtime = runtime_imported()
        except ImportError as error:
            raise KernelError(BACKEND_UNUSABLE, f"{error}; {INSTALL}") from error
        if CUDA not in runtime.get_available_providers():
            raise KernelError(BACKEND_UNUSABLE, f"onnxruntime here is the CPU build: {INSTALL}")
        if self._provider not in runtime.get_available_providers():
            raise KernelError(
                BACKEND_UNUSABLE, f"onnxruntime here has no {self._provider}: set provider = 'cuda'"
            )
        if not self.version:
            runtime.preload_dlls()  # CUDA's libraries where pip has put them; elsewhere the linker finds them
            self.version = runtime.__version__
        return runtime

    def _trouble(self, gpu: Gpu) -> str:
        """Why a GPU cannot be used, seen with a model that is known to be good; empty if it can."""
        try:
            runtime = self._runtime()
            session = self._session(runtime, TRIAL_MODEL, gpu, self._session_options(runtime))
            OnnxRuns(runtime, session).of_zeros((TRIAL_INPUT,), ("y",), rows=1)
        except KernelError as error:
            return error.text
        return ""

    @contextlib.contextmanager
    def _unless_the_gpu_is_to_blame(self, gpu: Gpu) -> Iterator[None]:
        """Turn a model's refusal into 1020 where the GPU refuses a good model, too."""
        try:
            yield
        except KernelError as error:
            if error.code in {MODEL_INVALID, MODEL_UNSUPPORTED} and (why := self._trouble(gpu)):
                raise KernelError(BACKEND_UNUSABLE, f"{gpu.name}: {why}") from error
            raise

    def _program(self, runtime: Any, data: bytes, gpu: Gpu, fit: Fitted, known: Cost | None) -> CudaProgram:
        options = self._session_options(runtime)
        fit.bind(options)
        session = self._session(runtime, data, gpu, options)
        program = CudaProgram(runtime, session, fit.inputs, fit.wanted)
        with the_model_is_to_blame():
            program.warm_up(fit.rows_are_free, known)
        return program

    def _session(self, runtime: Any, data: bytes, gpu: Gpu, options: Any) -> Any:
        """A session of which every node is on this GPU, with this provider."""
        session = opened(runtime, data, options, self._provider, self._settings(self._provider, gpu))
        first = session.get_providers()[0]
        if first != self._provider:
            raise KernelError(
                BACKEND_UNUSABLE,
                f"{self._provider} did not start and onnxruntime took {first}: its log line names the library "
                "that is missing (CUDA 13 and cuDNN 9, for tensorrt TensorRT 10)",
            )
        index = session.get_provider_options()[first].get("device_id")
        if index != str(gpu.index):
            raise KernelError(
                BACKEND_UNUSABLE, f"the session is on GPU {index}, asked for was {gpu.index} ({gpu.name})"
            )
        return session

    def _settings(self, provider: str, gpu: Gpu) -> dict[str, str]:
        """The provider's options, by onnxruntime's names."""
        if provider == CUDA:
            return {
                "device_id": str(gpu.index),
                "gpu_mem_limit": str(self._options.gpu_memory_bytes),
                "arena_extend_strategy": "kSameAsRequested",
                "cudnn_conv_algo_search": "HEURISTIC",  # an exhaustive search takes seconds for each shape
                "use_tf32": "1" if self._options.tf32 else "0",
            }
        return {
            "device_id": str(gpu.index),
            "trt_max_workspace_size": str(self._options.gpu_memory_bytes),
            "trt_fp16_enable": str(self._options.fp16),
            "trt_engine_cache_enable": "True",
            "trt_engine_cache_path": self._engine_folder(),
        }

    def _engine_folder(self) -> str:
        """Where engines are kept for as long as this backend lives: in a worker, its scratch folder."""
        if not self._engines:
            self._engines = tempfile.mkdtemp(prefix="parkwatt-engines-")
            weakref.finalize(self, shutil.rmtree, self._engines, ignore_errors=True)
        return self._engines

    @staticmethod
    def _signature_options(runtime: Any) -> Any:
        """For a session that tells what is free in a model, and never runs."""
        options = runtime.SessionOptions()
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = FATAL
        for key, value in OWN_BYTES_ONLY.items():
            options.add_session_config_entry(key, value)
        return options

    @staticmethod
    def _session_options(runtime: Any) -> Any:
        options = runtime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = FATAL
        for key, value in {
            **OWN_BYTES_ONLY,
            "session.disable_cpu_ep_fallback": "1",
            "session.intra_op.allow_spinning": "0",
        }.items():
            options.add_session_config_entry(key, value)
        return options
