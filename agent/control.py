"""The control socket as its clients see it: one JSON object a line each way over a Unix socket."""

import os
import socket
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import msgspec

ANSWER_TIMEOUT_S: Final = 5.0


class NoAgentAnswersError(Exception):
    """Nothing answers on the socket, or not in time, or not in this protocol."""


def ask(path: Path, request: Mapping[str, Any], timeout_s: float = ANSWER_TIMEOUT_S) -> dict[str, Any]:
    """The running agent's answer to one request; raises `NoAgentAnswersError`."""
    with closing(_answers(path, request, timeout_s)) as answers:
        return next(answers)


def watch(path: Path, timeout_s: float = ANSWER_TIMEOUT_S) -> Iterator[dict[str, Any]]:
    """The running agent's status, and again at each change; raises `NoAgentAnswersError` when it ends."""
    return _answers(path, {"cmd": "watch"}, timeout_s)


def _answers(
    path: Path, request: Mapping[str, Any], timeout_s: float
) -> Generator[dict[str, Any], None, None]:
    """Every line that comes; only for the first there is a time-out."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(timeout_s)
        try:
            client.connect(os.fspath(path))
            client.sendall(msgspec.json.encode(request) + b"\n")
            with client.makefile("rb") as lines:
                while True:
                    yield _answer(path, lines.readline())
                    client.settimeout(None)
        except TimeoutError as error:
            raise NoAgentAnswersError(f"{path}: no answer within {timeout_s} s") from error
        except OSError as error:
            raise NoAgentAnswersError(f"{path}: {error.strerror}") from error


def _answer(path: Path, line: bytes) -> dict[str, Any]:
    if not line:
        raise NoAgentAnswersError(f"{path}: the agent has hung up")
    try:
        return msgspec.json.decode(line, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise NoAgentAnswersError(f"{path}: what answers is not an agent ({error})") from error
