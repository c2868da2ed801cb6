"""The control socket as its clients see it: one JSON object a line each way over a Unix socket."""

import errno
import os
import socket
from collections.abc import Generator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import msgspec

ANSWER_TIMEOUT_S: Final = 5.0
LOOK_S: Final = 1.0
"""How long at most a watcher waits in one system call: Python acts on a signal that comes just before only after it."""
READ_BYTES: Final = 65_536
START: Final = (
    "start one (systemctl start parkwatt, or parkwatt run), or name its configuration with --config"
)
FIXES: Final = {
    errno.ENOENT: START,
    errno.ECONNREFUSED: START,
    errno.EACCES: "ask as the agent's user (sudo -u parkwatt parkwatt ...), as root, or as a member of control.group",
    errno.EPIPE: "it may have too many clients: end some of them",
    errno.ECONNRESET: "it may have too many clients: end some of them",
}
HANGS: Final = "see its log; where it hangs, start it again"


class NoAgentAnswersError(Exception):
    """Nothing answers on the socket, or not in time, or not in this protocol; `fix` says what to do.

    `absent`: nobody is there at all.
    """

    def __init__(self, path: Path, problem: str, fix: str, *, absent: bool = False) -> None:
        super().__init__(f"{path}: {problem}")
        self.fix = fix
        self.absent = absent


def ask(path: Path, request: Mapping[str, Any], timeout_s: float = ANSWER_TIMEOUT_S) -> dict[str, Any]:
    """The running agent's answer to one request; raises `NoAgentAnswersError`."""
    with closing(_Asked(path, request, timeout_s)) as asked:
        return asked.answer()


def watch(
    path: Path, timeout_s: float = ANSWER_TIMEOUT_S, every_s: float | None = None
) -> Generator[dict[str, Any], None, None]:
    """The running agent's status, and again at each change; raises `NoAgentAnswersError` when it ends.

    With `every_s` the last one is repeated when nothing has come for so long: its ages have grown.
    """
    with closing(_Asked(path, {"cmd": "watch"}, timeout_s)) as asked:
        yield (newest := asked.answer())
        asked.wait_for(every_s or LOOK_S)
        while True:
            try:
                newest = asked.answer()
            except _NothingYetError:
                if every_s is None:
                    continue
            yield newest


class _NothingYetError(NoAgentAnswersError):
    """The agent is there, and has not said anything in time."""


class _Asked:
    """A connection on which one request has been sent. Every method raises `NoAgentAnswersError`."""

    def __init__(self, path: Path, request: Mapping[str, Any], timeout_s: float) -> None:
        self._path = path
        self._timeout_s = timeout_s
        self._received = bytearray()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout_s)
        try:
            self._socket.connect(os.fspath(path))
            self._socket.sendall(msgspec.json.encode(request) + b"\n")
        except OSError as error:
            self.close()
            raise self._failed(error) from error

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def wait_for(self, timeout_s: float) -> None:
        """From now on wait so long for an answer."""
        self._timeout_s = timeout_s
        self._socket.settimeout(timeout_s)

    def answer(self) -> dict[str, Any]:
        """The next line. What has come of one that is not whole in time is kept for the next call."""
        while b"\n" not in self._received:
            try:
                received = self._socket.recv(READ_BYTES)
            except OSError as error:
                raise self._failed(error) from error
            if not received:
                raise NoAgentAnswersError(self._path, "the agent has hung up", HANGS)
            self._received += received
        line, _, rest = bytes(self._received).partition(b"\n")
        self._received = bytearray(rest)
        try:
            return msgspec.json.decode(line, type=dict[str, Any])
        except msgspec.DecodeError as error:
            problem = f"what answers is not an agent ({error})"
            raise NoAgentAnswersError(self._path, problem, "name the agent's own control.socket") from error

    def _failed(self, error: OSError) -> NoAgentAnswersError:
        if isinstance(error, TimeoutError):
            return _NothingYetError(self._path, f"no answer within {self._timeout_s} s", HANGS)
        absent = error.errno in {errno.ENOENT, errno.ECONNREFUSED}
        problem = error.strerror or str(error)
        return NoAgentAnswersError(self._path, problem, FIXES.get(error.errno or 0, HANGS), absent=absent)
