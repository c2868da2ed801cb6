"""What can happen to a process in the middle of a backend's method: it stops, dies, or says something wild."""

import contextlib
import ctypes
import fcntl
import os
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from backends.kernel import OUT_OF_MEMORY, KernelError

Disaster = Literal[
    "hang",
    "hold_interpreter",
    "abort",
    "segfault",
    "exit",
    "raise",
    "refuse",
    "invent_code",
    "allocate",
    "leave_child",
    "garbage",
    "hang_up",
]
NOT_MESSAGE_PACK: Final = b"\xc1 no message begins with this byte"


@dataclass(frozen=True, slots=True)
class Extent:
    """How long a disaster lasts and how much it takes."""

    seconds: float
    size_bytes: int


def befall(disaster: str, extent: Extent) -> None:
    """Let it happen; returns only from those that pass."""
    DISASTERS[disaster](extent)


def _hold_interpreter(extent: Extent) -> None:
    """As native code does that never lets other Python threads run."""
    ctypes.PyDLL(None).sleep(max(1, round(extent.seconds)))


def _segfault(extent: Extent) -> None:
    del extent
    ctypes.string_at(0)


def _raise(extent: Extent) -> None:
    raise ZeroDivisionError(f"a mistake in the backend, {extent}")


def _refuse(extent: Extent) -> None:
    raise KernelError(OUT_OF_MEMORY, f"needs {extent.size_bytes} bytes, the device has 8 GiB")


def _invent_code(extent: Extent) -> None:
    raise KernelError(999, f"a code that is in no contract, {extent}")


def _allocate(extent: Extent) -> None:
    """Take memory and write to all of it, as a decompression bomb would."""
    bytearray(b"\1") * extent.size_bytes


def _leave_child(extent: Extent) -> None:
    subprocess.Popen(["sleep", str(extent.seconds)])


def _garbage(extent: Extent) -> None:
    for number in _packet_sockets():
        with contextlib.suppress(OSError):
            os.write(number, NOT_MESSAGE_PACK)
    time.sleep(extent.seconds)


def _hang_up(extent: Extent) -> None:
    for number in _packet_sockets():
        os.close(number)
    time.sleep(extent.seconds)


def _packet_sockets() -> Iterator[int]:
    """The descriptors that a worker talks to its supervisor by."""
    for number in [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]:
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(os.fstat(number).st_mode) and _socket_type(number) == socket.SOCK_SEQPACKET:
                yield number


def _socket_type(number: int) -> int:
    copy = socket.socket(fileno=fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 0))
    with copy:
        return copy.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)


DISASTERS: Final[Mapping[str, Callable[[Extent], None]]] = {
    "hang": lambda extent: time.sleep(extent.seconds),
    "hold_interpreter": _hold_interpreter,
    "abort": lambda _: os.abort(),
    "segfault": _segfault,
    "exit": lambda _: os._exit(0),
    "raise": _raise,
    "refuse": _refuse,
    "invent_code": _invent_code,
    "allocate": _allocate,
    "leave_child": _leave_child,
    "garbage": _garbage,
    "hang_up": _hang_up,
}
