"""The load generator's process as we hold it: its queries come, our answers go, and it can be killed at any time."""

import asyncio
import contextlib
import socket
import sys
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import IO, NamedTuple

import msgspec

from benchmarks.throughput import loadgen_process
from benchmarks.throughput.loadgen_process import ANSWERED, ISSUED, LoadgenTest


class LoadgenEndedError(Exception):
    """The load generator's process has failed, with its last words."""


class Query(NamedTuple):
    """A sample that loadgen wants: what it calls it, and which one it is."""

    id: int
    sample: int


class _Queries(asyncio.Protocol):
    """What has come through the socket and was not taken yet, in the order in which it came."""

    def __init__(self) -> None:
        self._waiting: deque[Query] = deque()
        self._came = asyncio.Event()
        self._ended = False
        self._rest = b""
        self._transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        whole = len(data) - len(data) % ISSUED.size
        self._waiting.extend(Query(*each) for each in ISSUED.iter_unpack(data[:whole]))
        self._rest = data[whole:]
        self._came.set()

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - the process tells how it ended
        self._ended = True
        self._came.set()

    async def next(self, most: int) -> Sequence[Query]:
        """Up to `most` that wait now, or the next one that comes; none once loadgen has ended."""
        while not self._waiting and not self._ended:
            self._came.clear()
            await self._came.wait()
        return [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]

    def answer(self, queries: Sequence[Query]) -> None:
        """Tell loadgen that these have been answered."""
        if isinstance(self._transport, asyncio.WriteTransport):
            self._transport.write(b"".join(ANSWERED.pack(query.id) for query in queries))


class LoadgenAtWork:
    """One test under way."""

    def __init__(self, process: asyncio.subprocess.Process, queries: _Queries, said: IO[bytes]) -> None:
        self._process = process
        self._said = said
        self.next = queries.next
        self.answer = queries.answer

    async def ended(self) -> None:
        """Wait for its logs to be written; raises `LoadgenEndedError` with its last words where it failed."""
        if not await self._process.wait():
            return
        self._said.seek(0)
        lines = [line for line in self._said.read().decode(errors="replace").splitlines() if line.strip()]
        raise LoadgenEndedError(
            f"mlcommons-loadgen ended with exit code {self._process.returncode}: "
            f"{lines[-1] if lines else 'it said nothing'}"
        )


@contextlib.asynccontextmanager
async def loadgen_at_work(test: LoadgenTest) -> AsyncIterator[LoadgenAtWork]:
    """Start the test; its process ends with the block."""
    near, far = socket.socketpair()
    transport, queries = await asyncio.get_running_loop().create_connection(_Queries, sock=near)
    with far, contextlib.closing(transport), tempfile.TemporaryFile() as said:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", loadgen_process.__name__, str(far.fileno())),
            stdin=asyncio.subprocess.PIPE,
            stdout=said,
            stderr=said,
            pass_fds=[far.fileno()],
            start_new_session=True,  # Ctrl-C is for us: what we have measured is still to be written
        )
        far.close()  # so that the end of the process is the end of the connection
        try:
            if process.stdin is None:
                raise RuntimeError("a process that was asked for a pipe has none")
            process.stdin.write(msgspec.json.encode(test) + b"\n")
            yield LoadgenAtWork(process, queries, said)
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
