"""Python buffers for the tensors of a program: checked, and held at their address until they are let go.

By CPython's buffer protocol itself: ctypes' own `from_buffer` takes no memory that is read-only, as inputs are.
"""

import ctypes
from collections.abc import Sequence
from typing import Any, ClassVar, Final

from firmware_shims.fsd.interface import Binding, Code, FsdError

_SIMPLE: Final = 0  # PyBUF_SIMPLE: C-contiguous bytes
_WRITABLE: Final = 1  # PyBUF_WRITABLE

_python = ctypes.PyDLL(None)  # a handle of our own: argument types set here are nobody else's
_python.PyObject_GetBuffer.argtypes = (ctypes.py_object, ctypes.c_void_p, ctypes.c_int)
_python.PyBuffer_Release.argtypes = (ctypes.c_void_p,)
_python.PyBuffer_Release.restype = None


class _PyBuffer(ctypes.Structure):
    """Py_buffer, part of CPython's stable ABI since 3.11."""

    _fields_: ClassVar = [
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.c_void_p),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    ]


class Pinned:
    """A buffer that can be neither freed nor resized until `release`.

    One that is never released is leaked: memory that a device may still write is not given to anybody else.
    """

    def __init__(self, buffer: Any, *, writable: bool) -> None:
        """Raise BufferError, TypeError or ValueError for what has no C-contiguous, or no writable, memory."""
        self._view = _PyBuffer()
        flags = _WRITABLE if writable else _SIMPLE
        _python.PyObject_GetBuffer(buffer, ctypes.byref(self._view), flags)
        self.size_bytes = int(self._view.len)
        self.address = int(self._view.buf or 0)  # empty memory may have none

    def release(self) -> None:
        """Give the buffer back to Python; a second time it does nothing."""
        _python.PyBuffer_Release(ctypes.byref(self._view))


def release_all(pinned: Sequence[Pinned]) -> None:
    """Give them all back to Python."""
    for buffer in pinned:
        buffer.release()


def pin(buffer: Any, binding: Binding, *, writable: bool) -> Pinned:
    """The buffer for `binding`, held where it is; FsdError BAD_ARGUMENT where its memory cannot be used."""
    try:
        return Pinned(buffer, writable=writable)
    except (BufferError, TypeError, ValueError) as error:
        needed = "C-contiguous, writable" if writable else "C-contiguous"
        text = f"{binding.name!r} needs {needed} memory: {error}"
        raise FsdError(Code.BAD_ARGUMENT, "bind", text) from error


def check_count(buffers: Sequence[Any], bindings: Sequence[Binding]) -> None:
    """Raise FsdError BAD_ARGUMENT unless there is a buffer for each tensor."""
    if len(buffers) != len(bindings):
        names = ", ".join(binding.name for binding in bindings)
        text = f"{len(buffers)} buffers for {len(bindings)} tensors ({names})"
        raise FsdError(Code.BAD_ARGUMENT, "bind", text)


def check_room(function: str, binding: Binding, pinned: Pinned, rows: int) -> None:
    """Raise FsdError BAD_ARGUMENT where the buffer holds fewer rows."""
    if pinned.size_bytes < rows * binding.row_bytes:
        text = (
            f"{rows} rows of {binding.name!r} are {rows * binding.row_bytes} bytes, "
            f"and its buffer has {pinned.size_bytes}"
        )
        raise FsdError(Code.BAD_ARGUMENT, function, text)
