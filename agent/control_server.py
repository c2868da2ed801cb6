"""The control socket as the agent serves it: commands by name, one JSON object a line each way."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from agent.control_lines import LINE_MAX_BYTES, Client, Lines, Owed
from agent.control_socket import listening
from agent.protocol import strict_json
from agent.protocol.reasons import Refused
from firmware_shims.clock import Clock, boottime_ns
from firmware_shims.pushed import shown

Request = dict[str, Any]
Answer = dict[str, Any]
"""The members of the answer beside `ok`."""
_REQUEST = msgspec.json.Decoder(Request)


class CommandRefused(Exception):  # noqa: N818 - an answer to the client, not a fault of ours
    """A request that cannot be followed: what is wrong with it, and what to do."""

    def __init__(self, error: str, fix: str) -> None:
        super().__init__(error)
        self.error = error
        self.fix = fix


@dataclass(frozen=True, slots=True)
class CommandTable:
    """What can be asked for. Each takes the whole request and may raise `CommandRefused`.

    `prompt` are done in the thread that read the line, before anything else: they must not wait. `asked` and
    `streams` (a line for each item, until the client goes) belong to the event loop.
    `on_caught_up` is told up to when (boot-time nanoseconds) everything that was sent has been read.
    """

    prompt: Mapping[str, Callable[[Request], Answer]] = field(default_factory=dict)
    asked: Mapping[str, Callable[[Request], Awaitable[Answer]]] = field(default_factory=dict)
    streams: Mapping[str, Callable[[Request], AsyncGenerator[Answer, None]]] = field(default_factory=dict)
    on_caught_up: Callable[[int], None] | None = None

    @property
    def names(self) -> list[str]:
        """Every command, in alphabetical order."""
        return sorted({*self.prompt, *self.asked, *self.streams})


class ControlServer:
    """Serves a table at `path` inside `async with`: `{"cmd": name, ...}` in, `{"ok": true, ...}` out.

    `failed` is done with the error of a fault of our own; a client's fault is only its own answer.
    """

    def __init__(
        self, path: Path, table: CommandTable, *, group: str | None = None, clock: Clock = boottime_ns
    ) -> None:
        self._path = path
        self._group = group
        self._table = table
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self.failed: asyncio.Future[None] = self._loop.create_future()
        self._tasks: set[asyncio.Future[None]] = set()
        self._streams: dict[Client, asyncio.Task[None]] = {}

    async def __aenter__(self) -> Self:
        """Listen. Raises `ControlSocketTakenError`, or OSError where the folder cannot be written."""
        bound = listening(self._path, self._group)
        self._inode = self._path.stat().st_ino
        self._lines = Lines(bound, self, self._clock, self._table.on_caught_up)
        thread = ThreadPoolExecutor(1, thread_name_prefix="control")
        self._serving = self._loop.run_in_executor(thread, self._lines.serve)
        self._serving.add_done_callback(self._ended)
        thread.shutdown(wait=False)  # it ends with its only job
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening, end every conversation and remove the socket file if it is still ours."""
        self._lines.stop()
        await asyncio.wait([self._serving])
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)  # what they raised is in `failed`
        self._lines.close()
        if self.failed.done():
            self.failed.exception()  # has been seen, or the agent ends for another reason
        if self._path.exists() and self._path.stat().st_ino == self._inode:
            self._path.unlink()

    # In the thread that reads

    def on_line(self, client: Client, owed: Owed, line: bytes) -> None:
        """Listener: do what is prompt, hand over the rest."""
        try:
            name, request = _request(line, self._table.names)
            if name in self._table.prompt:
                owed.line = _accepted(self._table.prompt[name](request))
            else:
                self._loop.call_soon_threadsafe(self._begin, name, request, client, owed)
        except CommandRefused as refused:
            owed.line = _refused(refused)

    def on_too_long(self, owed: Owed) -> None:
        """Listener: refuse a line."""
        error = f"the line is longer than {LINE_MAX_BYTES} bytes"
        owed.line = _refused(CommandRefused(error, "send a shorter request"))

    def on_gone(self, client: Client) -> None:
        """Listener: nobody listens to this client's stream any more."""
        self._loop.call_soon_threadsafe(self._end_stream, client)

    # On the event loop

    def _begin(self, name: str, request: Request, client: Client, owed: Owed) -> None:
        if name in self._table.asked:
            self._start(self._ask(self._table.asked[name](request), owed))
        elif client in self._streams:
            owed.line = _refused(CommandRefused("this connection has a stream already", "open another one"))
            self._lines.wake()
        elif not client.gone:
            stream = self._table.streams[name](request)
            self._streams[client] = self._start(self._stream(stream, client, owed))

    def _start(self, conversation: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(conversation, name="control")
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def _ask(self, answer: Awaitable[Answer], owed: Owed) -> None:
        try:
            owed.line = _accepted(await answer)
        except CommandRefused as refused:
            owed.line = _refused(refused)
        self._lines.wake()

    async def _stream(self, stream: AsyncGenerator[Answer, None], client: Client, owed: Owed) -> None:
        """The first line in its place among the answers; of the later ones only the newest waits."""
        async with aclosing(stream):
            owed.line = _accepted(await anext(stream))
            self._lines.wake()
            async for answer in stream:
                client.newest.append(_accepted(answer))
                self._lines.wake()

    def _end_stream(self, client: Client) -> None:
        if task := self._streams.pop(client, None):
            task.cancel()

    def _ended(self, job: asyncio.Future[None]) -> None:
        self._tasks.discard(job)
        if not job.cancelled() and (error := job.exception()) is not None and not self.failed.done():
            self.failed.set_exception(error)


def _request(line: bytes, known: Sequence[str]) -> tuple[str, Request]:
    try:
        request = strict_json.decode(_REQUEST, line)
    except Refused as refused:
        fix = 'send one object a line, for example {"cmd": "status"}'
        raise CommandRefused(f"not a JSON object: {refused.text}", fix) from refused
    name = request.get("cmd")
    if not isinstance(name, str) or name not in known:
        raise CommandRefused(f"unknown cmd {shown(name)}", f"use one of: {', '.join(known)}")
    return name, request


def _accepted(answer: Answer) -> bytes:
    return msgspec.json.encode({"ok": True} | answer) + b"\n"


def _refused(refused: CommandRefused) -> bytes:
    return msgspec.json.encode({"ok": False, "error": refused.error, "fix": refused.fix}) + b"\n"
