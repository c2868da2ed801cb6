"""What the agent asks of the C library, so that threads that do little hold little."""

import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, sys, threading
from agent.heap import one_for_all_threads

libc = ctypes.CDLL(None)
libc.malloc.restype = libc.fopen.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.malloc_info.argtypes = [ctypes.c_int, ctypes.c_void_p]
libc.fclose.argtypes = [ctypes.c_void_p]
if sys.argv[1] == "one":
    one_for_all_threads()
threads = [threading.Thread(target=libc.malloc, args=(100,)) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
out = libc.fopen(b"/dev/stdout", b"w")
libc.malloc_info(0, out)
libc.fclose(out)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
@pytest.mark.parametrize(("asked", "one"), [("one", True), ("as it is", False)])
def test_all_threads_have_one_heap(asked: str, one: bool) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, asked], capture_output=True, text=True, check=True)
    if "<malloc" not in done.stdout:
        pytest.skip("no malloc_info here: another C library")
    assert (done.stdout.count("<heap nr=") == 1) is one
