"""Calls on one device of a driver: codes become exceptions, and a struct's size is not taken on trust."""

import ctypes
from typing import Any, Final, Generic, TypeVar

from firmware_shims.fsd.c_abi.layout import MAJOR, MINOR, Filled, OpenParams
from firmware_shims.fsd.c_abi.library import Library
from firmware_shims.fsd.interface import Code, FsdError

TEXT_BYTES: Final = 512
GUARD: Final = b"\xa5" * 64  # behind every struct that a driver fills

Raw = TypeVar("Raw", bound=Filled)


class Session:
    """An opened device. After DEVICE_LOST the driver is not called any more, but to unload and to close."""

    def __init__(self, library: Library, device_index: int) -> None:
        self._library = library
        self._lost_in = ""
        text = ctypes.create_string_buffer(TEXT_BYTES)
        params = OpenParams(
            ctypes.sizeof(OpenParams), MAJOR << 16 | MINOR, device_index, TEXT_BYTES, ctypes.addressof(text)
        )
        handle = ctypes.c_void_p()
        code = library["open"](ctypes.byref(params), ctypes.byref(handle))
        if code:
            raise failure("open", code, text.raw)
        self._handle: int | None = existing("open", handle)

    def on_device(self, function: str, *arguments: Any) -> None:
        """Call a function of the device; FsdError where it fails."""
        if self._handle is None:
            raise FsdError(Code.NO_DEVICE, function, "the device is closed: open it again")
        self.on_program(function, self._handle, *arguments)

    def on_program(self, function: str, handle: int, *arguments: Any) -> None:
        """Call a function of a program that is loaded; FsdError where it fails."""
        if self._lost_in:
            raise FsdError(Code.DEVICE_LOST, function, f"it was lost in {self._lost_in}: close it")
        code = self._library[function](handle, *arguments)
        if code:
            if code == Code.DEVICE_LOST:
                self._lost_in = function
            raise failure(function, code, self._error_text(function))

    def abort(self, handle: int) -> None:
        """`fsd_npu_abort`, from any thread. On a lost device nothing is under way: nothing to do."""
        if not self._lost_in:
            self.on_program("abort", handle)

    def ask_device(self, kind: type[Raw], function: str) -> Raw:
        """The struct that a function of the device fills."""
        space = _Space(kind)
        self.on_device(function, space.address)
        return space.filled(function)

    def ask_program(self, kind: type[Raw], function: str, handle: int, *arguments: Any) -> Raw:
        """The struct that a function of a program fills."""
        space = _Space(kind)
        self.on_program(function, handle, *arguments, space.address)
        return space.filled(function)

    def unload(self, handle: int) -> None:
        """End a program, also of a lost device."""
        self._library["unload"](handle)

    def close(self) -> None:
        """End the session; a second time it does nothing."""
        handle, self._handle = self._handle, None
        if handle is not None:
            self._library["close"](handle)

    def _error_text(self, function: str) -> bytes:
        if function == "abort":  # has none, and another thread may be in the middle of a call that has one
            return b""
        text = ctypes.create_string_buffer(TEXT_BYTES)
        self._library["error_text"](self._handle, text, TEXT_BYTES)
        return text.raw


class _Space(Generic[Raw]):
    """Room for a struct that a driver fills, with a guard behind it."""

    def __init__(self, kind: type[Raw]) -> None:
        self._size_bytes = ctypes.sizeof(kind)
        self._memory = bytearray(self._size_bytes) + GUARD
        self._struct = kind.from_buffer(self._memory)
        self._struct.struct_bytes = self._size_bytes
        self.address = ctypes.addressof(self._struct)

    def filled(self, function: str) -> Raw:
        """The struct; FsdError INTERNAL where the driver wrote beyond it, or says an impossible size."""
        least, most, said = self._struct.bytes_in_1_0(), self._size_bytes, self._struct.struct_bytes
        if self._memory[most:] != GUARD:
            problem = f"wrote beyond the {most} bytes that it was given"
        elif not least <= said <= most:
            problem = f"says that it filled {said} bytes; {least} to {most} are possible"
        else:
            return self._struct
        text = f"the driver lies about sizes: it {problem}; take a corrected driver"
        raise FsdError(Code.INTERNAL, function, text)


def failure(function: str, code: int, text: bytes) -> FsdError:
    """The exception for a code that is not OK; a number without a name is INTERNAL."""
    words = text.split(b"\0", 1)[0].decode(errors="replace")
    words = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in words)
    try:
        return FsdError(Code(code), function, words)
    except ValueError:
        return FsdError(
            Code.INTERNAL, function, f"the driver's code {code} has no meaning; its words: {words!r}"
        )


def existing(function: str, handle: ctypes.c_void_p) -> int:
    """The handle; FsdError INTERNAL where the driver said OK and gave none."""
    if handle.value is None:
        raise FsdError(
            Code.INTERNAL, function, "the driver says ok and gives nothing; take a corrected driver"
        )
    return handle.value
