"""A worker lives only while its supervisor does: nobody else would end it when the owner comes back.

The supervisor counts beats in shared memory. The worker's timer (ITIMER_REAL) ends it by SIGALRM unless it is
set again, which a thread does only while the count moves. The kernel keeps the timer, so that it also ends
a worker whose native code holds the interpreter's lock.
"""

import fcntl
import mmap
import os
import signal
import time
from typing import Final

BEAT_S: Final = 0.1
LOOK_S: Final = 0.125
SLACK_S: Final = 0.25
"""What a look may come late by, on top of the longest time for which it can be kept from the interpreter."""
COUNT_BYTES: Final = 8


class Heart:
    """The supervisor's side: one for each worker."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("parkwatt-heart", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.fd, COUNT_BYTES)
        fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        self._memory = mmap.mmap(self.fd, COUNT_BYTES)
        self._count = memoryview(self._memory).cast("Q")

    def beat(self) -> None:
        """Let the worker live on."""
        self._count[0] += 1

    def close_fd(self) -> None:
        """Close the descriptor once the worker has inherited it."""
        os.close(self.fd)

    def close(self) -> None:
        """Unmap the memory; idempotent."""
        self._count.release()
        self._memory.close()


def live_by(heart: mmap.mmap, interpreter_held_s: float) -> None:
    """The worker's side, for a thread of its own: never returns.

    A supervisor that stops beating now has lost this worker `interpreter_held_s` + 0.375 s from now.
    """
    with memoryview(heart).cast("Q") as count:
        seen = None
        while True:
            if count[0] != seen:
                seen = count[0]
                signal.setitimer(signal.ITIMER_REAL, interpreter_held_s + SLACK_S)
            time.sleep(LOOK_S)
