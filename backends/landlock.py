"""Landlock (landlock(7)): from now on this process sees the files that it is given, and no others.

Holds for the calling thread and every thread that it starts; it cannot be lifted. Python has no name for
it, and no package for it is kept up: three system calls, the same numbers on every architecture.
"""

import contextlib
import ctypes
import os
import stat
import struct
from collections.abc import Iterable
from typing import Final

from backends.libc import syscall

CREATE_RULESET: Final = 444
ADD_RULE: Final = 445
RESTRICT_SELF: Final = 446
ASK_VERSION: Final = 1
PATH_BENEATH: Final = 1

EXECUTE: Final = 1 << 0  # linux/landlock.h, LANDLOCK_ACCESS_FS_*
WRITE_FILE: Final = 1 << 1
READ_FILE: Final = 1 << 2
READ_DIR: Final = 1 << 3
REMOVE_DIR: Final = 1 << 4
REMOVE_FILE: Final = 1 << 5
MAKE_DIR: Final = 1 << 7
MAKE_REG: Final = 1 << 8
REFER: Final = 1 << 13
TRUNCATE: Final = 1 << 14
IOCTL_DEV: Final = 1 << 15
ALL_BY_ABI: Final = {1: REFER - 1, 2: TRUNCATE - 1, 3: IOCTL_DEV - 1, 5: 2 * IOCTL_DEV - 1}
"""From this version of the interface on: every right that can be taken away."""
TCP_SINCE_ABI: Final = 4
SCOPES_SINCE_ABI: Final = 6
BIND_AND_CONNECT_TCP: Final = 0b11
SIGNALS_AND_ABSTRACT_SOCKETS: Final = 0b11

READ: Final = EXECUTE | READ_FILE | READ_DIR
SCRATCH: Final = READ | WRITE_FILE | TRUNCATE | MAKE_REG | MAKE_DIR | REMOVE_FILE | REMOVE_DIR | REFER
DEVICE: Final = READ | WRITE_FILE | IOCTL_DEV
OF_A_FILE: Final = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
"""Rights that a rule for something else than a folder can give."""


def abi() -> int:
    """The version of the kernel's interface; raises OSError where it has none, or has it switched off."""
    return syscall(CREATE_RULESET, 0, 0, ASK_VERSION)


def restrict(read: Iterable[str], scratch: str, devices: Iterable[str]) -> int:
    """Leave this process files below `read`, all of `scratch`, and `devices` to use; no TCP, no foreign signals.

    Paths that do not exist are passed over. Returns the version of the interface, which says how much of this holds
    (truncation from 3, TCP from 4, device controls from 5, signals from 6). Raises OSError. Needs no_new_privs.
    """
    version = abi()
    files = ALL_BY_ABI[max(since for since in ALL_BY_ABI if since <= version)]
    tcp = BIND_AND_CONNECT_TCP if version >= TCP_SINCE_ABI else 0
    scopes = SIGNALS_AND_ABSTRACT_SOCKETS if version >= SCOPES_SINCE_ABI else 0
    attributes = struct.pack("=QQQ", files, tcp, scopes)  # an older kernel takes the longer struct with zeros
    ruleset = syscall(CREATE_RULESET, attributes, len(attributes), 0)
    try:
        for rights, paths in ((READ, read), (SCRATCH, (scratch,)), (DEVICE, devices)):
            for path in paths:
                with contextlib.suppress(FileNotFoundError):
                    _allow(ruleset, path, rights & files)
        syscall(RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
    return version


def _allow(ruleset: int, path: str, rights: int) -> None:
    place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not stat.S_ISDIR(os.fstat(place).st_mode):
            rights &= OF_A_FILE
        rule = ctypes.create_string_buffer(struct.pack("=Qi", rights, place))
        syscall(ADD_RULE, ruleset, PATH_BENEATH, rule, 0)
    finally:
        os.close(place)
