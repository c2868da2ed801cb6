"""System calls that Python's standard library has no name for."""

import ctypes
import errno
import os
from typing import Final

PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
PR_SET_NAME: Final = 15
PR_SET_NO_NEW_PRIVS: Final = 38
IOPRIO_SET: Final = {"x86_64": 251, "aarch64": 30}  # asm/unistd_64.h, asm-generic/unistd.h
IOPRIO_WHO_PROCESS: Final = 1  # linux/ioprio.h
LAST_OF_BEST_EFFORT: Final = 2 << 13 | 7

_libc = ctypes.CDLL(None, use_errno=True)


def syscall(number: int, *arguments: object) -> int:
    """The result of system call `number`; raises OSError. Arguments are ints, bytes or ctypes objects."""
    words = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    result: int = _libc.syscall(ctypes.c_long(number), *words)
    return _checked(result, f"system call {number}")


def prctl(option: int, *arguments: object) -> int:
    """Change something of this process or thread (linux/prctl.h), unused arguments 0; raises OSError."""
    words = [ctypes.c_ulong(each) if isinstance(each, int) else each for each in arguments]
    words += [ctypes.c_ulong(0)] * (4 - len(words))
    return _checked(_libc.prctl(option, *words), f"prctl({option})")


def yield_disks() -> None:
    """Let everybody else read and write first, of this thread and those it starts (ioprio_set(2)); raises OSError."""
    machine = os.uname().machine
    if machine not in IOPRIO_SET:
        raise OSError(errno.ENOSYS, f"the number of ioprio_set on {machine} is not known")
    syscall(IOPRIO_SET[machine], IOPRIO_WHO_PROCESS, 0, LAST_OF_BEST_EFFORT)


def drop_capabilities() -> None:
    """Give up what root may do beyond an ordinary user, in this thread and those it starts (capset(2))."""
    version_3 = (ctypes.c_uint32 * 2)(0x20080522, 0)
    none = (ctypes.c_uint32 * 6)()
    _checked(_libc.capset(version_3, none), "capset")


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result
