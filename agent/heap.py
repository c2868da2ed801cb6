"""The C library's heap of this process: it lives for weeks beside a driver's software, and most of the time does nothing."""

import ctypes
from typing import Final

M_ARENA_MAX: Final = -8  # malloc.h of glibc; mallopt(3)


def one_for_all_threads() -> None:
    """Let all threads allocate from one heap: each other one holds 100 KiB and gives nothing back.

    Call it before there are threads. Only glibc has mallopt(3).
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(M_ARENA_MAX, 1)
