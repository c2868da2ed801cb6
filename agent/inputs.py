"""The inputs of tasks: those that came with the message, and those that stand at a URL.

Nothing at a URL is used before all of it is here and its hash is checked: one hash stands over the whole body, so
the first rows cannot be computed while the last ones are still on their way.
"""

import asyncio
import mmap
import os
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast
from weakref import WeakSet

from agent.fetch.errors import FetchError, Interrupted, NotFetched, Unwritable
from agent.fetch.fetch import fetch
from agent.fetch.landing import Landing
from agent.fetch.network import LIVE, Network
from agent.fetch.place import Rules
from agent.fetch.thread import in_thread
from agent.job import Job
from agent.protocol import tensors
from agent.protocol.messages import Task
from agent.protocol.reasons import Reason, Refused

AT_ONCE: Final = 4
"""Bodies under way at a time; the others wait for their turn."""


def carried(task: Task, tail: bytes | memoryview) -> list[memoryview]:
    """Return the inputs that came with a task, none where they stand at its URL; raises `Refused` (102)."""
    if task.inputs_url is None:
        return tensors.unpack(task.inputs, tail)
    tensors.tail_nbytes(task.inputs)
    if any(tensor.parameters.binary_data_size is None for tensor in task.inputs):
        raise Refused(
            Reason.BAD_TENSOR, "with inputs_url every input has its bytes there: give each binary_data_size"
        )
    if tail:
        raise Refused(
            Reason.BAD_TENSOR, f"{len(tail)} bytes follow the JSON, and the inputs stand at inputs_url"
        )
    return []


class _Body(Landing):
    """The inputs of a task on their way: how many bytes they have is known before."""

    def __init__(self, descriptor: int, nbytes: int) -> None:
        super().__init__(descriptor)
        self._due_bytes = nbytes

    def expect(self, size: int | None) -> int:
        """Take no other size than the inputs' own."""
        if size is not None and size != self._due_bytes:
            raise NotFetched(f"the body has {size} bytes where the inputs have {self._due_bytes}")
        return self._due_bytes


@dataclass(slots=True)
class _Delivery:
    """What has arrived for a job so far, and the thread that brings it, or did last."""

    body: _Body | None = None
    bringing: asyncio.Future[list[memoryview]] | None = None


class Inputs:
    """Brings inputs into files without a name below `folder`: whatever happens to the agent, none is left behind."""

    def __init__(self, rules: Rules, folder: Path, network: Network = LIVE) -> None:
        self._rules = rules
        self._folder = folder
        self._network = network
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._deliveries: dict[Job, _Delivery] = {}
        self._mapped: WeakSet[mmap.mmap] = WeakSet()

    async def fetch(self, job: Job) -> list[memoryview]:
        """Bring the inputs of a job, each as a view of the mapped file. A fetch that was cancelled is gone on with.

        Raises `Refused` with 140 (not allowed, not there, or something else), 141 (other bytes), 102 (no BOOL), 1031
        (the disk here does not take them) or 1032 (no way to them now).
        """
        delivery = self._deliveries.setdefault(job, _Delivery())
        if delivery.bringing is not None:  # it was called off, and writes to the same file until it ends
            await asyncio.wait([delivery.bringing])
        off = threading.Event()
        async with self._turns:
            try:
                delivery.bringing = in_thread("inputs", lambda: self._bring(job, delivery, off))
                inputs = await asyncio.shield(delivery.bringing)
            finally:
                off.set()
        self.forget(job)
        self._mapped.add(cast("mmap.mmap", inputs[0].obj))
        return inputs

    def shed(self) -> None:
        """Let the pages that were read of all these files be the car's again; they are read anew when they are needed."""
        for mapped in self._mapped:
            mapped.madvise(mmap.MADV_DONTNEED)

    def forget(self, job: Job) -> None:
        """Throw away what has arrived for a job, in full or not."""
        self._deliveries.pop(job, None)

    def _bring(self, job: Job, delivery: _Delivery, off: threading.Event) -> list[memoryview]:
        task = job.task
        try:
            body = delivery.body = delivery.body or self._empty(job.remote_bytes)
            fetch(str(task.inputs_url), self._rules, body, off, self._network)
        except (NotFetched, Unwritable, Interrupted) as error:
            raise self._refused(error) from error
        if (found := body.sha256()) != task.inputs_sha256:
            raise Refused(
                Reason.INPUT_HASH, f"the bytes at inputs_url have SHA-256 {found}, not {task.inputs_sha256}"
            )
        return tensors.unpack(task.inputs, memoryview(mmap.mmap(body.descriptor, 0, prot=mmap.PROT_READ)))

    def _empty(self, nbytes: int) -> _Body:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self._folder) as file:  # O_TMPFILE where the file system has it
                return _Body(os.dup(file.fileno()), nbytes)
        except OSError as error:
            raise Unwritable(error.strerror or str(error)) from error

    def _refused(self, error: FetchError) -> Refused:
        """What may pass, and what this vehicle lacks, is not held against the task."""
        if isinstance(error, Unwritable):
            text = f"inputs cannot be written to {self._folder} ({error.text}): see models.cache_dir"
            return Refused(Reason.STORE_FULL, text)
        reason = Reason.LINK_LOST if isinstance(error, Interrupted) else Reason.INPUT_FETCH
        return Refused(reason, f"inputs_url: {error.text}")
