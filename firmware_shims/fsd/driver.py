"""NPUs behind a shared library that implements fsd_npu.h.

What the library is told is checked before, and what it says is checked after: a mistake of either side is an
FsdError and not a corrupted process. Waiting lets other threads of the interpreter run.
"""

import contextlib
import ctypes
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from firmware_shims.fsd.c_abi.claims import (
    believed_binding,
    believed_capabilities,
    check_description,
    check_names,
)
from firmware_shims.fsd.c_abi.layout import (
    FOREVER,
    UNKNOWN,
    RawBuffer,
    RawCapabilities,
    RawCompletion,
    RawDescription,
    RawTensor,
)
from firmware_shims.fsd.c_abi.library import Library
from firmware_shims.fsd.c_abi.pinned import Pinned, check_count, check_room, pin, release_all
from firmware_shims.fsd.c_abi.session import Session, existing
from firmware_shims.fsd.interface import Binding, Code, Completion, FsdError, NpuDevice, NpuProgram

HEADER: Final = Path(__file__).with_name("fsd_npu.h")
"""What a driver's author implements; docs/fsd-driver.md leads through it."""
TEMPERATURE_C: Final = (-60.0, 200.0)
"""Outside of it is a sensor that is broken, not a chip."""


def open_device(library: Path, device_index: int = 0) -> NpuDevice:
    """Open a device of the driver at `library`, which is trusted: its code runs in this process.

    FsdError: NO_DEVICE where there is no library or no such device, UNSUPPORTED where it speaks another version or lacks
    a function, INTERNAL where it contradicts its header, and whatever the driver answers.
    """
    session = Session(Library(library), device_index)
    try:
        return _Device(session)
    except FsdError:
        session.close()
        raise


class _Device:
    """NpuDevice."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._programs: list[_Program] = []
        self.capabilities = believed_capabilities(session.ask_device(RawCapabilities, "query"))

    def load(self, program: bytes, npu: int) -> NpuProgram:
        self._check_npu("load", npu)
        handle = ctypes.c_void_p()
        self._session.on_device("load", npu, program, len(program), ctypes.byref(handle))
        at = existing("load", handle)
        try:
            loaded = _Program(self._session, at, npu)
        except FsdError:
            self._session.unload(at)
            raise
        self._programs = [*(each for each in self._programs if each.is_loaded), loaded]
        return loaded

    def energy_nj(self, npu: int) -> int | None:
        value = ctypes.c_uint64()
        return value.value if self._told("read_energy", npu, value) else None

    def temperature_c(self, npu: int) -> float | None:
        value = ctypes.c_int32()
        if not self._told("read_temperature", npu, value):
            return None
        coldest, hottest = TEMPERATURE_C
        celsius = value.value / 1000
        return celsius if coldest <= celsius <= hottest else None

    def close(self) -> None:
        for program in self._programs:
            program.unload()
        self._session.close()

    def _told(self, function: str, npu: int, value: ctypes.c_uint64 | ctypes.c_int32) -> bool:
        """Whether there is such a figure; it stands in `value`."""
        self._check_npu(function, npu)
        try:
            self._session.on_device(function, npu, ctypes.byref(value))
        except FsdError as error:
            if error.code is Code.UNSUPPORTED:
                return False
            raise
        return True

    def _check_npu(self, function: str, npu: int) -> None:
        if not 0 <= npu < self.capabilities.npus:
            text = f"there is no NPU {npu}: the device has {self.capabilities.npus}, from 0"
            raise FsdError(Code.BAD_ARGUMENT, function, text)


class _Program:
    """NpuProgram."""

    def __init__(self, session: Session, handle: int, npu: int) -> None:
        self._session = session
        self._handle: int | None = handle
        self._handle_lock = threading.RLock()  # no abort while it goes away; signal handlers may abort too
        self._pinned: list[Pinned] = []
        self.npu = npu
        description = session.ask_program(RawDescription, "describe", handle)
        check_description(description, npu)
        tensors = [
            believed_binding(session.ask_program(RawTensor, "describe_tensor", handle, index))
            for index in range(description.inputs + description.outputs)
        ]
        self.inputs: Sequence[Binding] = tensors[: description.inputs]
        self.outputs: Sequence[Binding] = tensors[description.inputs :]
        check_names(self.inputs)
        check_names(self.outputs)

    @property
    def is_loaded(self) -> bool:
        """Whether `unload` is still to come."""
        return self._handle is not None

    def bind(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        handle = self._loaded("bind")
        fresh = self._pins(inputs, outputs)
        buffers = [
            RawBuffer(ctypes.sizeof(RawBuffer), 0, pinned.address, pinned.size_bytes) for pinned in fresh
        ]
        pointers = (ctypes.c_void_p * len(buffers))(*map(ctypes.addressof, buffers))
        try:
            self._session.on_program("bind", handle, pointers, len(buffers))
        except FsdError:
            release_all(fresh)
            raise
        release_all(self._pinned)
        self._pinned = fresh

    def submit(self, rows: int = 1) -> None:
        handle = self._loaded("submit")
        if not self._pinned:
            raise FsdError(Code.BAD_ARGUMENT, "submit", "no buffers are bound: bind them first")
        if rows < 1:
            raise FsdError(Code.BAD_ARGUMENT, "submit", f"{rows} rows; 1 is the least")
        for binding, pinned in zip((*self.inputs, *self.outputs), self._pinned, strict=True):
            check_room("submit", binding, pinned, rows)
        self._session.on_program("submit", handle, rows)

    def wait(self, timeout_s: float) -> Completion:
        handle = self._loaded("wait")
        if not timeout_s >= 0:
            raise FsdError(Code.BAD_ARGUMENT, "wait", f"a time-out of {timeout_s} s; 0 is the least")
        wanted_ns = timeout_s * 1e9
        timeout_ns = FOREVER if wanted_ns >= FOREVER else int(wanted_ns)
        raw = self._session.ask_program(RawCompletion, "wait", handle, timeout_ns)
        known = raw.holds("energy_nj") and raw.energy_nj != UNKNOWN
        return Completion(raw.device_ns, raw.cycles, raw.energy_nj if known else None)

    def abort(self) -> None:
        with self._handle_lock:
            if self._handle is not None:
                self._session.abort(self._handle)

    def unload(self) -> None:
        with self._handle_lock:
            handle, self._handle = self._handle, None
        if handle is not None:
            self._session.unload(handle)
            release_all(self._pinned)
            self._pinned = []

    def _loaded(self, function: str) -> int:
        if self._handle is None:
            raise FsdError(Code.BAD_ARGUMENT, function, "the program is unloaded: load it again")
        return self._handle

    def _pins(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> list[Pinned]:
        """All buffers, held where they are and large enough for a row; or none of them."""
        check_count(inputs, self.inputs)
        check_count(outputs, self.outputs)
        pinned: list[Pinned] = []
        with contextlib.ExitStack() as undo:
            for buffer, binding in zip((*inputs, *outputs), (*self.inputs, *self.outputs), strict=True):
                pinned.append(pin(buffer, binding, writable=len(pinned) >= len(self.inputs)))
                undo.callback(pinned[-1].release)
                check_room("bind", binding, pinned[-1], rows=1)
            undo.pop_all()
        return pinned
