"""A seccomp filter: the system calls that computing never needs fail from now on (seccomp(2)).

Refused are calls that reach other processes, start one, open a socket, or change the machine; everything
else stays as it is, because runtimes and drivers use what they like of it. Written by hand for the kernel's
BPF: pyseccomp needs libseccomp and takes 35 ms to import, a quarter of a worker's start.
"""

import ctypes
import errno
import os
import struct
from typing import ClassVar, Final

from backends.libc import syscall

AUDIT_ARCH: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # linux/audit.h
SECCOMP: Final = {"x86_64": 317, "aarch64": 277}
SET_MODE_FILTER: Final = 1
ALL_THREADS: Final = 1  # SECCOMP_FILTER_FLAG_TSYNC
X32_CALLS: Final = 0x40000000
CLONE_THREAD: Final = 0x00010000

Numbers = tuple[int | None, int | None]
"""Of one call on x86_64 and on aarch64, from asm/unistd_64.h and asm-generic/unistd.h."""

REFUSED: Final[dict[str, Numbers]] = {
    # new processes and programs; clone is judged by its flags
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "execveat": (322, 281),
    # other processes; kill and tgkill are judged by their target
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    # the network, and the sockets of other services of this machine, our own among them
    "socket": (41, 198),
    "connect": (42, 203),
    "bind": (49, 200),
    "listen": (50, 201),
    "accept": (43, 202),
    "accept4": (288, 242),
    # memory and messages that outlive the process
    "shmget": (29, 194),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
    # owner and mode of files, which Landlock leaves alone
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    # large parts of the kernel that computing does not need
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    # the machine itself: refused to an ordinary user anyway
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "kexec_load": (246, 104),
    "reboot": (169, 142),
    "clock_settime": (227, 112),
    "settimeofday": (164, 170),
}
ABSENT: Final = {"clone3": (435, 435), "io_uring_setup": (425, 425)}
"""Answered as by an older kernel, so that callers take the older way: clone, whose flags can be seen, and read."""
CLONE: Final = (56, 220)
OWN_TARGET_ONLY: Final = {"kill": (62, 129), "tgkill": (234, 131), "prlimit64": (302, 261)}
"""Calls with a process as their first argument: this one, or for prlimit64 also 0."""

LOAD_WORD: Final = 0x20  # linux/bpf_common.h: BPF_LD | BPF_W | BPF_ABS
IF_EQUAL: Final = 0x15
IF_ABOVE: Final = 0x35  # or equal
IF_ANY_BIT: Final = 0x45
RETURN: Final = 0x06
CALL_NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16  # struct seccomp_data, little-endian
ALLOW: Final = 0x7FFF0000
KILL: Final = 0x80000000
ERRNO: Final = 0x00050000

INSTRUCTION_BYTES: Final = 8

Instruction = tuple[int, int, int, int]
"""Code, how many instructions to skip if true and if false, operand."""


class _Program(ctypes.Structure):
    """struct sock_fprog (linux/filter.h)."""

    _fields_: ClassVar = [("instructions", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def install() -> None:
    """Filter this process's calls, of all its threads; raises OSError. Needs no_new_privs."""
    machine = os.uname().machine
    if machine not in AUDIT_ARCH:
        raise OSError(errno.ENOSYS, f"no list of system calls for {machine}")
    program = b"".join(struct.pack("=HBBI", *each) for each in instructions(machine, os.getpid()))
    buffer = ctypes.create_string_buffer(program, len(program))
    whole = _Program(len(program) // INSTRUCTION_BYTES, ctypes.addressof(buffer))
    syscall(SECCOMP[machine], SET_MODE_FILTER, ALL_THREADS, ctypes.byref(whole))


def instructions(machine: str, pid: int) -> list[Instruction]:
    """The filter for process `pid`."""
    column = list(AUDIT_ARCH).index(machine)
    program: list[Instruction] = [
        (LOAD_WORD, 0, 0, ARCHITECTURE),
        (IF_EQUAL, 1, 0, AUDIT_ARCH[machine]),
        (RETURN, 0, 0, KILL),  # calls by another architecture's numbers
        (LOAD_WORD, 0, 0, CALL_NUMBER),
    ]
    if machine == "x86_64":
        program += [(IF_ABOVE, 0, 1, X32_CALLS), (RETURN, 0, 0, ERRNO | errno.ENOSYS)]
    for numbers, number_of_error in (
        *((numbers, errno.EPERM) for numbers in REFUSED.values()),
        *((numbers, errno.ENOSYS) for numbers in ABSENT.values()),
    ):
        if (number := numbers[column]) is not None:
            program += [(IF_EQUAL, 0, 1, number), (RETURN, 0, 0, ERRNO | number_of_error)]
    program += _only(CLONE[column], [(IF_ANY_BIT, CLONE_THREAD)])
    for name, own in OWN_TARGET_ONLY.items():
        also = [(IF_EQUAL, 0)] if name == "prlimit64" else []
        program += _only(own[column], [*also, (IF_EQUAL, pid)])
    return [*program, (RETURN, 0, 0, ALLOW)]


def _only(number: int, tests: list[tuple[int, int]]) -> list[Instruction]:
    """Allow call `number` only if one of `tests` holds for its first argument."""
    left = range(len(tests), 0, -1)
    judged = [(code, skip, 0, operand) for skip, (code, operand) in zip(left, tests, strict=True)]
    return [
        (IF_EQUAL, 0, len(tests) + 3, number),
        (LOAD_WORD, 0, 0, FIRST_ARGUMENT),
        *judged,
        (RETURN, 0, 0, ERRNO | errno.EPERM),
        (RETURN, 0, 0, ALLOW),
    ]
