"""The real command line as child processes, and waiting for what they say."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

WITHIN_S = 30.0
PARKWATT = (sys.executable, "-m", "agent")


def parkwatt(*arguments: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """One command from beginning to end."""
    return subprocess.run(
        [*PARKWATT, *map(str, arguments)],
        env=os.environ | environ,
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )


@contextlib.contextmanager
def service(
    folder: Path, config: Path, under: Sequence[str | Path] = ()
) -> Iterator["subprocess.Popen[str]"]:
    """`parkwatt run`, from READY=1 on; killed at the end if the test has not stopped it. `under`: a program around it."""
    address = folder / "notify.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
        notices.bind(str(address))
        notices.settimeout(WITHIN_S)
        process = subprocess.Popen(
            [*map(str, under), *PARKWATT, "run", "--config", str(config)],
            env=os.environ | {"NOTIFY_SOCKET": str(address)},
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert notices.recv(100) == b"READY=1"
            yield process
        finally:
            process.kill()
            process.communicate()


def stopped(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Exit code and stderr after SIGTERM."""
    process.send_signal(signal.SIGTERM)
    _, written = process.communicate(timeout=WITHIN_S)
    return process.returncode, written
