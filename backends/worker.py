"""The worker process: `python -m backends.worker USE REQUESTS_FD CANCELS_FD ARENA_FD HEART_FD PARENT_PID`.

It probes its backend, which imports the runtime, gives up what running models does not need, and then serves.
The main thread reads a request, answers it, and reads the next: one token each way for a run. A second
thread reads cancels, and ends the process when the supervisor's end is gone; a third keeps it alive while the
supervisor is (backends.heartbeat). An exception that no backend is meant to raise ends the process, with its
traceback as last words.
"""

import faulthandler
import gc
import os
import signal
import sys

from backends.libc import PR_SET_NAME, PR_SET_PDEATHSIG, prctl


def main(use: str, *numbers: int) -> None:
    """Serve one supervisor; the numbers are those of the command line."""
    *fds, parent_pid = numbers
    die_with(parent_pid)
    take_name(use)
    faulthandler.enable()
    gc.disable()  # until the runtime is there: nothing of it is garbage, and the looks for some take a tenth of the time
    from backends.serving import serve  # noqa: PLC0415 - what takes long comes after what ends this process

    serve(use, *fds)


def die_with(parent_pid: int) -> None:
    """Have the kernel kill this process when the supervisor's thread ends, or leave if it has already."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os._exit(os.EX_OK)


def take_name(use: str) -> None:
    """Show the backend's name in `ps` and `top` (15 bytes, prctl(2))."""
    prctl(PR_SET_NAME, f"parkwatt {use}"[:15].encode())


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
