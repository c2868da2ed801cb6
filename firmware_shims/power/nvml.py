"""NVIDIA's management library: the energy counters that GPUs from Volta on keep in millijoules.

Called by ctypes: a handful of functions is needed, and the Python package for them (`nvidia-ml-py`) takes 17 MiB of resident
memory and 80 ms in a process that lives as long as the car is parked, and knows one name of the library only.

Source: NVML API reference, "Device Queries". The counter starts at the driver's load, and moves each 20 to 100 ms
depending on the GPU.
"""

import ctypes
from collections.abc import Sequence
from typing import Any, ClassVar, Final

from firmware_shims.clock import Clock
from firmware_shims.power.counting import RawCounter
from firmware_shims.power.meter import JouleSource, MeterFailed, MeterReading, Scope

LIBRARY: Final = "libnvidia-ml.so.1"
MILLIJOULE: Final = 1e-3
COUNTER_BITS: Final = 64
NAME_BYTES: Final = 96  # NVML_DEVICE_NAME_V2_BUFFER_SIZE
MAX_W: Final = 5000.0
NO_DRIVER: Final = "install NVIDIA's driver and see that nvidia-smi works for the agent's user"
FIXES: Final = {
    2: "correct meter.options.gpus: nvidia-smi -L lists the UUIDs",
    3: "take another meter: this GPU counts no energy (Volta and newer do)",
    4: "let the agent's user open /dev/nvidia*",
    6: "correct meter.options.gpus: nvidia-smi -L lists the UUIDs",
    9: "load the nvidia kernel module",
    15: "restart the computer: the GPU has fallen off its bus",
    18: "restart after the driver's update: library and kernel module are of different versions",
}
"""By nvmlReturn_t: invalid argument, not supported, no permission, not found, driver not loaded, GPU lost, mismatch."""


class LibraryAbsent(MeterFailed):
    """NVIDIA's driver is not installed here."""


class _Memory(ctypes.Structure):
    """nvmlMemory_t: bytes."""

    _fields_: ClassVar = [
        ("total", ctypes.c_ulonglong),
        ("free", ctypes.c_ulonglong),
        ("used", ctypes.c_ulonglong),
    ]


class Nvml:
    """A session with the library; MeterFailed from every call that fails."""

    def __init__(self, library: str = LIBRARY) -> None:
        try:
            self._library = ctypes.CDLL(library)
        except OSError as error:
            raise LibraryAbsent(f"{library} cannot be loaded: {error}", NO_DRIVER) from error
        self._call("nvmlInit_v2")

    def gpus(self) -> list["Gpu"]:
        """Every GPU that this user may see."""
        return [self.gpu_at(index) for index in range(self.count())]

    def count(self) -> int:
        """How many GPUs this user may see."""
        count = ctypes.c_uint()
        self._call("nvmlDeviceGetCount_v2", ctypes.byref(count))
        return count.value

    def gpu_at(self, index: int) -> "Gpu":
        """The GPU at this place in the order of the PCI bus."""
        return self._gpu(str(index), "nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index))

    def gpu(self, uuid: str) -> "Gpu":
        """The GPU of this UUID; its index may be another one after the next start."""
        return self._gpu(uuid, "nvmlDeviceGetHandleByUUID", ctypes.c_char_p(uuid.encode()))

    def close(self) -> None:
        """End the session; whatever is wrong with it by now does not matter any more."""
        shutdown = getattr(self._library, "nvmlShutdown", None)
        if shutdown is not None:
            shutdown()

    def number(self, function: str, kind: type[ctypes.c_uint] | type[ctypes.c_ulonglong], handle: Any) -> int:
        """The figure that `function` has for a GPU."""
        value = kind()
        self._call(function, handle, ctypes.byref(value))
        return value.value

    def fill(self, function: str, handle: Any, *arguments: Any) -> None:
        """Have `function` fill what `arguments` point at for a GPU."""
        self._call(function, handle, *arguments)

    def _gpu(self, name: str, function: str, key: Any) -> "Gpu":
        handle = ctypes.c_void_p()
        self._call(function, key, ctypes.byref(handle))
        return Gpu(self, name, handle)

    def _call(self, function: str, *arguments: Any) -> None:
        try:
            code = self._library[function](*arguments)
        except AttributeError as error:
            fix = "install a newer NVIDIA driver, or take another meter"
            raise MeterFailed(f"the driver's NVML has no {function}", fix) from error
        if code:
            raise MeterFailed(f"{function}: {self._meaning(code)}", FIXES.get(code, NO_DRIVER))

    def _meaning(self, code: int) -> str:
        try:
            text = self._library["nvmlErrorString"]
        except AttributeError:
            return f"NVML error {code}"
        text.restype = ctypes.c_char_p
        return f"{(text(code) or b'unknown').decode(errors='replace')} (NVML error {code})"


class Gpu:
    """One GPU of a session."""

    def __init__(self, nvml: Nvml, name: str, handle: ctypes.c_void_p) -> None:
        self.name = name
        self._nvml = nvml
        self._handle = handle

    def energy_mj(self) -> int:
        """Millijoules since the driver was loaded, of the whole GPU."""
        return self._nvml.number("nvmlDeviceGetTotalEnergyConsumption", ctypes.c_ulonglong, self._handle)

    def power_w(self) -> float:
        """The power that the GPU shows, for a gauge: many average it over a second, so it is never integrated."""
        return self._nvml.number("nvmlDeviceGetPowerUsage", ctypes.c_uint, self._handle) / 1000

    def product(self) -> str:
        """The product's name, as nvidia-smi -L shows it."""
        name = ctypes.create_string_buffer(NAME_BYTES)
        self._nvml.fill("nvmlDeviceGetName", self._handle, name, ctypes.c_uint(NAME_BYTES))
        return name.value.decode(errors="replace")

    def used_bytes(self) -> int:
        """Memory of the GPU that is in use, by all processes and the driver."""
        memory = _Memory()
        self._nvml.fill("nvmlDeviceGetMemoryInfo", self._handle, ctypes.byref(memory))
        return int(memory.used)


class NvmlMeter:
    """The sum of GPUs by UUID, of all of them when none is named. `library`: another file than the driver's."""

    source: ClassVar[JouleSource] = JouleSource.COUNTER
    scope: ClassVar[Scope] = Scope.GPU
    resolution_j: ClassVar[float] = MILLIJOULE
    resolution_s: ClassVar[float] = 0.1

    def __init__(self, clock: Clock, gpus: Sequence[str] = (), library: str = LIBRARY) -> None:
        self.name = "nvml"
        self._clock = clock
        self._uuids = gpus
        self._path = library
        self._session: Nvml | None = None
        self._gpus: list[Gpu] = []
        self._counters: dict[str, RawCounter] = {}

    def read(self) -> MeterReading:
        """Add up the GPUs; raises MeterFailed while one of them does not answer."""
        try:
            if self._session is None:
                self._open()
            raws = {gpu.name: gpu.energy_mj() for gpu in self._gpus}
        except MeterFailed:
            self.close()
            raise
        at_ns = self._clock()
        readings = [self._counters[name].advance(raw, at_ns) for name, raw in raws.items()]
        since_ns = max(reading.since_ns for reading in readings)
        return MeterReading(sum(reading.joules for reading in readings), at_ns, since_ns)

    def close(self) -> None:
        """End the session; the next `read` begins another, which finds a driver that was loaded again."""
        if self._session is not None:
            self._session.close()
        self._session, self._gpus = None, []

    def _open(self) -> None:
        self._session = session = Nvml(self._path)
        self._gpus = [session.gpu(uuid) for uuid in self._uuids] or session.gpus()
        if not self._gpus:
            raise MeterFailed("NVML knows no GPU here", NO_DRIVER)
        self.name = f"nvml {', '.join(gpu.name for gpu in self._gpus)}"
        for gpu in self._gpus:
            counter = RawCounter(MILLIJOULE, wraps_at=2**COUNTER_BITS, max_w=MAX_W)
            self._counters.setdefault(gpu.name, counter)
