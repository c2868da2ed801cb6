"""A backend that does, while it loads a model, what the code of a hostile model would try."""

import ctypes
import mmap
import os
import resource
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Final

from pydantic import BaseModel, ConfigDict

from backends.kernel import INFERENCE_FAILED, KernelError, Model
from backends.null import Null, NullOptions, NullProgram

PTRACE_ATTACH: Final = 16
TEN_GB: Final = 10 * 1000**3


class HostileOptions(BaseModel):
    model_config = ConfigDict(extra="forbid")

    attempt: str
    target: str = ""
    run_us: int = 0


def write_to(path: str) -> None:
    with Path(path).open("a"):
        pass


def fill_the_disk(_: str) -> None:
    with tempfile.TemporaryFile() as file:
        file.truncate(TEN_GB)


def open_many_files(_: str) -> None:
    files: list[int] = []
    try:
        files.extend(os.dup(0) for _ in range(5000))
    finally:
        for file in files:
            os.close(file)


def connect(address: str) -> None:
    host, port = address.split(":")
    socket.create_connection((host, int(port)))


def call_the_agent(path: str) -> None:
    socket.socket(socket.AF_UNIX).connect(path)


def shout(_: str) -> None:
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"hello", ("127.0.0.1", 9))


def breed(_: str) -> None:
    if not os.fork():
        os._exit(os.EX_OK)


def start_a_shell(_: str) -> None:
    subprocess.run(["/bin/sh", "-c", "true"], check=True)


def become_a_shell(_: str) -> None:
    os.execv("/bin/sh", ["sh", "-c", "exit 0"])  # noqa: S606 - no shell in between is the point


def signal_the_agent(_: str) -> None:
    os.kill(os.getppid(), 0)


def signal_its_group(_: str) -> None:
    os.killpg(os.getpid(), 0)


def trace_the_agent(_: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(PTRACE_ATTACH, os.getppid(), 0, 0) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def bound_the_agent(_: str) -> None:
    resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE)


def lift_a_limit(_: str) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def take_memory(_: str) -> None:
    mmap.mmap(-1, 8 * 1024**3)


def start_threads(_: str) -> None:
    enough = threading.Event()
    threads = [threading.Thread(target=enough.wait, daemon=True) for _ in range(10_000)]
    try:
        for thread in threads:
            thread.start()
    except RuntimeError as error:  # Python's word for EAGAIN and ENOMEM
        raise OSError(str(error)) from error
    finally:
        enough.set()


def use_its_scratch(_: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "a").write_text("engine")
        (Path(folder) / "a").rename(Path(folder) / "b")
        assert (Path(folder) / "b").read_text() == "engine"


ATTEMPTS: Final[dict[str, Callable[[str], object]]] = {
    "write": write_to,
    "read": lambda path: Path(path).read_bytes(),
    "list": lambda path: list(Path(path).iterdir()),
    "delete": lambda path: Path(path).unlink(),
    "change mode": lambda path: Path(path).chmod(0o777),
    "read the agent's environment": lambda _: Path(f"/proc/{os.getppid()}/environ").read_bytes(),
    "fill the disk": fill_the_disk,
    "open many files": open_many_files,
    "connect": connect,
    "call the agent": call_the_agent,
    "shout": shout,
    "breed": breed,
    "start a shell": start_a_shell,
    "become a shell": become_a_shell,
    "signal the agent": signal_the_agent,
    "signal its group": signal_its_group,
    "trace the agent": trace_the_agent,
    "bound the agent": bound_the_agent,
    "lift a limit": lift_a_limit,
    "take memory": take_memory,
    "start threads": start_threads,
    "use its scratch": use_its_scratch,
}


class Hostile(Null):
    """Loads nothing: the refusal says how the attempt went."""

    Options: ClassVar[type[BaseModel]] = HostileOptions

    def __init__(self, options: Any) -> None:
        super().__init__(NullOptions())
        self._hostile: HostileOptions = options

    def load(self, model: Model, device: str) -> NullProgram:
        del device
        try:
            ATTEMPTS[self._hostile.attempt](self._hostile.target or str(model.path))
        except (OSError, ValueError) as error:
            raise KernelError(INFERENCE_FAILED, f"refused: {error}") from error
        raise KernelError(INFERENCE_FAILED, "done")
