"""fsd_npu.h in ctypes. The header says what everything means; tests compare every number here with it."""

import ctypes
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

MAJOR: Final = 1
MINOR: Final = 1
MAX_NPUS: Final = 64
MAX_TENSORS: Final = 256
MAX_DIMS: Final = 8
FOREVER: Final = 2**64 - 1
UNKNOWN: Final = 2**64 - 1

DATATYPES: Final = {
    1: ("BOOL", 1),
    2: ("UINT8", 1),
    3: ("UINT16", 2),
    4: ("UINT32", 4),
    5: ("UINT64", 8),
    6: ("INT8", 1),
    7: ("INT16", 2),
    8: ("INT32", 4),
    9: ("INT64", 8),
    10: ("FP16", 2),
    11: ("FP32", 4),
    12: ("FP64", 8),
}
"""enum fsd_npu_datatype: the Open Inference Protocol's name and the bytes of an element."""

ENERGY_SOURCES: Final[dict[int, Literal["none", "counter", "model"]]] = {0: "none", 1: "counter", 2: "model"}
"""enum fsd_npu_energy_source."""


class OpenParams(ctypes.Structure):
    """struct fsd_npu_open_params."""

    _fields_: ClassVar = [
        ("struct_bytes", ctypes.c_uint32),
        ("abi_version", ctypes.c_uint32),
        ("device_index", ctypes.c_uint32),
        ("error_text_bytes", ctypes.c_uint32),
        ("error_text", ctypes.c_void_p),
    ]


class Filled(ctypes.Structure):
    """A struct that the library fills, at least up to the field `NEWER`, which came after version 1.0."""

    NEWER: ClassVar[str] = ""

    @classmethod
    def bytes_in_1_0(cls) -> int:
        """What every library fills."""
        return int(getattr(cls, cls.NEWER).offset) if cls.NEWER else ctypes.sizeof(cls)

    def holds(self, field: str) -> bool:
        """Whether the library has filled this field."""
        place = getattr(type(self), field)
        return bool(self.struct_bytes >= place.offset + place.size)


class RawCapabilities(Filled):
    """struct fsd_npu_capabilities."""

    NEWER: ClassVar[str] = "energy_source"
    _fields_: ClassVar = [
        ("struct_bytes", ctypes.c_uint32),
        ("npus", ctypes.c_uint32),
        ("sram_bytes", ctypes.c_uint64),
        ("clock_hz", ctypes.c_uint64),
        ("macs_per_cycle", ctypes.c_uint64),
        ("name", ctypes.c_uint8 * 64),
        ("version", ctypes.c_uint8 * 64),
        ("program_format", ctypes.c_uint8 * 64),
        ("operators", ctypes.c_uint8 * 2048),
        ("energy_source", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
    ]


class RawDescription(Filled):
    """struct fsd_npu_description."""

    _fields_: ClassVar = [
        ("struct_bytes", ctypes.c_uint32),
        ("npu", ctypes.c_uint32),
        ("inputs", ctypes.c_uint32),
        ("outputs", ctypes.c_uint32),
    ]


class RawTensor(Filled):
    """struct fsd_npu_tensor."""

    _fields_: ClassVar = [
        ("struct_bytes", ctypes.c_uint32),
        ("datatype", ctypes.c_uint32),
        ("dims", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
        ("row_shape", ctypes.c_uint64 * MAX_DIMS),
        ("row_bytes", ctypes.c_uint64),
        ("name", ctypes.c_uint8 * 256),
    ]


class RawBuffer(ctypes.Structure):
    """struct fsd_npu_buffer."""

    _fields_: ClassVar = [
        ("struct_bytes", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
        ("data", ctypes.c_void_p),
        ("bytes", ctypes.c_uint64),
    ]


class RawCompletion(Filled):
    """struct fsd_npu_completion."""

    NEWER: ClassVar[str] = "energy_nj"
    _fields_: ClassVar = [
        ("struct_bytes", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
        ("device_ns", ctypes.c_uint64),
        ("cycles", ctypes.c_uint64),
        ("energy_nj", ctypes.c_uint64),
    ]


@dataclass(frozen=True, slots=True)
class Function:
    """A function of the library: argument types, result type (None: void), and the minor that brought it."""

    arguments: tuple[Any, ...]
    result: Any = ctypes.c_int32
    since: int = 0


_HANDLE: Final = ctypes.c_void_p
_OUT: Final = ctypes.c_void_p

FUNCTIONS: Final = {
    "abi_version": Function((), ctypes.c_uint32),
    "open": Function((_OUT, _OUT)),
    "query": Function((_HANDLE, _OUT)),
    "load": Function((_HANDLE, ctypes.c_uint32, ctypes.c_char_p, ctypes.c_uint64, _OUT)),
    "describe": Function((_HANDLE, _OUT)),
    "describe_tensor": Function((_HANDLE, ctypes.c_uint32, _OUT)),
    "bind": Function((_HANDLE, _OUT, ctypes.c_uint32)),
    "submit": Function((_HANDLE, ctypes.c_uint64)),
    "wait": Function((_HANDLE, ctypes.c_uint64, _OUT)),
    "abort": Function((_HANDLE,)),
    "read_energy": Function((_HANDLE, ctypes.c_uint32, _OUT), since=1),
    "read_temperature": Function((_HANDLE, ctypes.c_uint32, _OUT), since=1),
    "error_text": Function((_HANDLE, ctypes.c_char_p, ctypes.c_uint32), None),
    "unload": Function((_HANDLE,), None),
    "close": Function((_HANDLE,), None),
}
"""By name, without the prefix `fsd_npu_`."""
