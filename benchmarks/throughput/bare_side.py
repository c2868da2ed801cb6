"""The model in a process of its own without a worker around it, as the caller holds it."""

import asyncio
import contextlib
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from typing import IO, Final

import msgspec

from backends.process import ONE_BLAS_THREAD
from benchmarks.bare_runtime import Subject
from benchmarks.throughput.play import Played, Script

LINE_BYTES: Final = 256 << 20
"""The latencies of a long turn of a small model are a long line."""


class BareEndedError(Exception):
    """The bare runtime's process has ended: one line with its last words."""


class BareSide:
    """`runtime` says what runs the model."""

    def __init__(self, process: asyncio.subprocess.Process, said: IO[bytes], what: str) -> None:
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("a process that was asked for pipes has none")
        self.pid = process.pid
        self.runtime = ""
        self._stdin, self._stdout = process.stdin, process.stdout
        self._said = said
        self._what = what

    async def begin(self, subject: Subject) -> None:
        """Load the model."""
        self.runtime = msgspec.json.decode(await self._ask(msgspec.json.encode(subject)), type=str)

    async def play(self, script: Script) -> Played:
        """Let it play; raises `BareEndedError`."""
        return msgspec.json.decode(await self._ask(msgspec.json.encode(script)), type=Played)

    def close(self) -> None:
        """Let it end."""
        self._stdin.close()

    async def _ask(self, line: bytes) -> bytes:
        try:
            self._stdin.write(line + b"\n")
            await self._stdin.drain()
            answer = await self._stdout.readline()
        except ConnectionError:
            answer = b""
        if not answer:
            self._said.seek(0)
            words = self._said.read().decode(errors="replace").strip().splitlines()
            raise BareEndedError(
                f"the bare runtime ended over {self._what}: {words[-1] if words else 'it said nothing'}"
            )
        return answer


@contextlib.asynccontextmanager
async def bare_side(subject: Subject) -> AsyncIterator[BareSide]:
    """The model, loaded; the process ends with the block. Raises `BareEndedError`."""
    with tempfile.TemporaryFile() as said:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "benchmarks.bare_runtime"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=said,
            limit=LINE_BYTES,
            env={**ONE_BLAS_THREAD, **os.environ},  # as a worker has it, or the comparison is one of threads
            start_new_session=True,  # Ctrl-C is for the caller, who ends it
        )
        side = BareSide(process, said, subject.path)
        try:
            await side.begin(subject)
            yield side
        finally:
            side.close()
            with contextlib.suppress(ProcessLookupError):
                process.kill()  # nothing of it is wanted any more
            await process.wait()
