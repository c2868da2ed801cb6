"""The control socket: one JSON object a line each way over a Unix socket that only its owner can open."""

import asyncio
import errno
import inspect
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import msgspec

LINE_MAX_BYTES: Final = 65_536
"""Longest request; an answer may be longer."""
ANSWER_TIMEOUT_S: Final = 5.0

Command = Callable[[dict[str, Any]], dict[str, Any] | Awaitable[dict[str, Any]]]
"""Takes the whole request and returns the members of the answer beside `ok`."""


class ControlSocketTakenError(Exception):
    """Another agent answers on the socket."""


class NoAgentAnswersError(Exception):
    """Nothing answers on the socket, or not in time, or not in this protocol."""


class ControlServer:
    """Serves `commands` at `path` inside `async with`: `{"cmd": name, ...}` in, `{"ok": true, ...}` out."""

    def __init__(self, path: Path, commands: Mapping[str, Command]) -> None:
        self._path = path
        self._commands = commands
        self._clients = asyncio.TaskGroup()
        self._open: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        """Listen. Raises `ControlSocketTakenError`, or OSError where the folder cannot be written."""
        listening = _bind(self._path)
        self._inode = self._path.stat().st_ino
        await self._clients.__aenter__()
        self._server = await asyncio.start_unix_server(self._connected, sock=listening, limit=LINE_MAX_BYTES)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening, end every conversation and remove the socket file if it is still ours."""
        self._server.close()
        for client in self._open:
            client.cancel()
        try:
            await self._clients.__aexit__(kind, error, trace)
        finally:
            if self._path.exists() and self._path.stat().st_ino == self._inode:
                self._path.unlink()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = self._clients.create_task(self._converse(reader, writer), name="control client")
        self._open.add(client)
        client.add_done_callback(self._open.discard)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer line by line until the client goes."""
        try:
            while line := await _line(reader):
                writer.write(msgspec.json.encode(await self._answer(line)) + b"\n")
                await writer.drain()
        except ConnectionError:
            pass  # the client has gone, and nothing is owed to it
        except asyncio.CancelledError:
            writer.transport.abort()  # a client that does not read must not hold up the end of the agent
            raise
        except _LineTooLongError:
            refusal = _refusal(f"the line is longer than {LINE_MAX_BYTES} bytes", "send a shorter request")
            writer.write(msgspec.json.encode(refusal) + b"\n")
        finally:
            writer.close()

    async def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            request = msgspec.json.decode(line, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return _refusal(
                f"not a JSON object: {error}", 'send one object a line, for example {"cmd": "status"}'
            )
        name = request.get("cmd")
        command = self._commands.get(name) if isinstance(name, str) else None
        if command is None:
            return _refusal(f"unknown cmd {name!r}", f"use one of: {', '.join(sorted(self._commands))}")
        answer = command(request)
        return {"ok": True} | (await answer if inspect.isawaitable(answer) else answer)


def ask(path: Path, request: Mapping[str, Any], timeout_s: float = ANSWER_TIMEOUT_S) -> dict[str, Any]:
    """The running agent's answer to one request; raises `NoAgentAnswersError`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(timeout_s)
        try:
            client.connect(os.fspath(path))
            client.sendall(msgspec.json.encode(request) + b"\n")
            with client.makefile("rb") as lines:
                answer = lines.readline()
        except TimeoutError as error:
            raise NoAgentAnswersError(f"{path}: no answer within {timeout_s} s") from error
        except OSError as error:
            raise NoAgentAnswersError(f"{path}: {error.strerror}") from error
    try:
        return msgspec.json.decode(answer, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise NoAgentAnswersError(f"{path}: what answers is not an agent ({error})") from error


class _LineTooLongError(Exception):
    pass


async def _line(reader: asyncio.StreamReader) -> bytes:
    """The next line; empty at the end."""
    try:
        return await reader.readline()
    except ValueError as error:  # how StreamReader.readline says that its limit is passed
        raise _LineTooLongError from error


def _refusal(error: str, fix: str) -> dict[str, Any]:
    return {"ok": False, "error": error, "fix": fix}


def _bind(path: Path) -> socket.socket:
    """A bound socket of mode 0600; what a dead agent left at `path` is replaced."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    if path.is_socket():
        if _somebody_answers(path):
            raise ControlSocketTakenError(
                f"{path}: another agent answers here; stop it or set control.socket"
            )
        path.unlink()
    elif path.exists():
        raise FileExistsError(
            errno.EEXIST, "exists and is no socket; remove it or set control.socket", str(path)
        )
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Linux creates the file with the mode of the unbound socket (unix_bind in net/unix/af_unix.c): there is
    # no moment at which others could connect.
    os.fchmod(bound.fileno(), 0o600)
    try:
        bound.bind(os.fspath(path))
    except OSError:
        bound.close()
        raise
    return bound


def _somebody_answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(ANSWER_TIMEOUT_S)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            return False
        except BlockingIOError:  # somebody listens, and is too busy to accept
            return True
    return True
