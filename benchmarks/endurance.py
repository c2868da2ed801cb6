"""Starts, preemptions, cancels and injected faults in a row, and what is left of them: nothing should be.

Everything happens to real worker processes. What a round leaves behind is looked for where the kernel lists it.
"""

import asyncio
import contextlib
import gc
import itertools
import os
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from backends.kernel import Cancelled, KernelError, Model, Tensor
from backends.process import WorkerDied, WorkerProcess
from benchmarks.report import Figure, Tail

MODEL: Final = Model(Path("/null/reads/no/file"), "0" * 64, "onnx", (Tensor("data", "UINT8", (1024,)),))
LONG_US: Final = 60_000_000
ARENA_BYTES: Final = 1 << 24
SOON_S: Final = 0.02
STARTING_S: Final = 0.2
"""A worker is ready after about so long."""
WITHIN_S: Final = 30.0
SAMPLES: Final = 50
"""Of the resident memory, over all rounds."""
WARM_SHARE: Final = 0.3
"""Of the rounds: what grows in them is caches that fill."""
FLAT_MIB: Final = 2.0
FAULTS: Final = (
    ("hang", "run"),
    ("abort", "load"),
    ("segfault", "run"),
    ("exit", "probe"),
    ("raise", "run"),
    ("garbage", "run"),
    ("leave_child", "probe"),
    ("exit", "run"),
    ("hang", "load"),
    ("refuse", "load"),
    ("invent_code", "run"),
    ("garbage", "load"),
    ("hang_up", "run"),
    ("raise", "probe"),
)
"""Disasters of the fault backend and the method that they happen in, in turn."""


@dataclass(frozen=True, slots=True)
class Mix:
    """How many rounds in a hundred are of a kind; the rest are cancels."""

    full_lives: int = 10
    killed_at_work: int = 45
    killed_in_the_start: int = 15
    faults: int = 25


LONG: Final = Mix()
SHORT: Final = Mix(full_lives=2, killed_at_work=8, killed_in_the_start=10, faults=6)
"""Mostly cancels, which need no new process."""


@dataclass(slots=True)
class Endured:
    """What the rounds took by kind, what they left behind, and the resident memory of this process meanwhile."""

    took_ms: dict[str, list[float]] = field(default_factory=dict)
    left: Sequence[str] = ()
    resident_mib: list[float] = field(default_factory=list)

    @property
    def grown_mib(self) -> float:
        """The end against the time after warming up, as medians of a tenth of the samples each."""
        tenth = max(1, len(self.resident_mib) // 10)
        warm = int(len(self.resident_mib) * WARM_SHARE)
        begin = statistics.median(self.resident_mib[warm : warm + tenth])
        return statistics.median(self.resident_mib[-tenth:]) - begin


async def measure(rounds: int) -> list[object]:
    """Print-ready lines of `rounds` rounds."""
    endured = await endure(rounds, LONG)
    warm_mib = endured.resident_mib[int(len(endured.resident_mib) * WARM_SHARE) :]
    return [
        *(Tail(f"endurance: {kind}", "ms", took_ms) for kind, took_ms in sorted(endured.took_ms.items())),
        Figure("endurance: resident memory of the supervisor, warm", "MiB", warm_mib),
        Figure(
            "endurance: its growth from warm to the end", "MiB", [endured.grown_mib], f"<= {FLAT_MIB:g} MiB"
        ),
        f"endurance: left behind by {rounds:,} rounds: {'; '.join(endured.left) or 'nothing'}   goal nothing",
    ]


async def endure(rounds: int, mix: Mix, seed: int = 1) -> Endured:
    """Do so many rounds. Raises when one does not go as it should; what it left behind is told, not raised."""
    endured = Endured()
    every = max(1, rounds // SAMPLES)
    with _own_temporary_folder() as folder:
        before = _held(folder)
        async with _Rounds(random.Random(seed)) as kinds:  # noqa: S311 - a seed repeats the rounds
            kinds_in_turn = _sequence(rounds, mix, random.Random(seed))  # noqa: S311 - as above
            for done, kind in enumerate(kinds_in_turn, start=1):
                begun_s = time.perf_counter()
                async with asyncio.timeout(WITHIN_S):
                    await kinds.does[kind]()
                endured.took_ms.setdefault(kind, []).append((time.perf_counter() - begun_s) * 1e3)
                if done % every == 0:
                    gc.collect()  # exceptions and their frames go in their own time
                    endured.resident_mib.append(_resident_mib())
            pids = kinds.pids
        gc.collect()
        await asyncio.sleep(0)
        endured.left = [*_more(before, _held(folder)), *_processes(pids)]
    return endured


def _sequence(rounds: int, mix: Mix, dice: random.Random) -> list[str]:
    shares = {
        "full life": mix.full_lives,
        "killed at work": mix.killed_at_work,
        "killed in the start": mix.killed_in_the_start,
        "fault": mix.faults,
    }
    kinds = [kind for kind, share in shares.items() for _ in range(rounds * share // 100)]
    kinds += ["cancel"] * (rounds - len(kinds))
    dice.shuffle(kinds)
    return kinds


class _Rounds:
    """The kinds of rounds. One worker lives through all of them and has its runs cancelled."""

    def __init__(self, dice: random.Random) -> None:
        self.does: Mapping[str, Callable[[], Awaitable[None]]] = {
            "full life": self._full_life,
            "killed at work": self._killed_at_work,
            "killed in the start": self._killed_in_the_start,
            "fault": self._fault,
            "cancel": self._cancel,
        }
        self.pids: set[int] = set()
        self._dice = dice
        self._faults = itertools.cycle(FAULTS)
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._lasting = await self._stack.enter_async_context(self._worker("null", run_us=LONG_US))
        self._program = await self._lasting.load(MODEL)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @contextlib.asynccontextmanager
    async def _worker(self, use: str, **options: Any) -> AsyncIterator[WorkerProcess]:
        worker = WorkerProcess.start(use, options, arena_bytes=ARENA_BYTES)
        self.pids.add(worker.pid)
        try:
            yield worker
        finally:
            worker.kill()
            await worker.wait_reaped()

    async def _full_life(self) -> None:
        async with self._worker("null") as worker:
            program = await worker.load(MODEL)
            with worker.slot(program, 1) as slot:
                slot.inputs[0][:] = bytes([7]) * 1024
                await worker.run(slot)
                if slot.outputs[0] != slot.inputs[0]:
                    raise RuntimeError("the worker gave another row than it was given")
            await worker.unload(program)
            await worker.stop()

    async def _killed_at_work(self) -> None:
        async with self._worker("null", run_us=LONG_US) as worker:
            program = await worker.load(MODEL)
            with worker.slot(program, 1) as slot:
                run = asyncio.ensure_future(worker.run(slot))
                await asyncio.sleep(self._dice.uniform(0, SOON_S))
                worker.kill()
                await _fails_with(run, WorkerDied)

    async def _killed_in_the_start(self) -> None:
        async with self._worker("null") as worker:
            load = asyncio.ensure_future(worker.load(MODEL))
            await asyncio.wait([load], timeout=self._dice.uniform(0, STARTING_S))
            worker.kill()
            await asyncio.wait([load])
            if load.exception() is not None:
                await _fails_with(load, WorkerDied)

    async def _cancel(self) -> None:
        with self._lasting.slot(self._program, 1) as slot:
            run = asyncio.ensure_future(self._lasting.run(slot))
            await asyncio.sleep(self._dice.choice((0, 0.001)))
            self._lasting.cancel(slot)
            await _fails_with(run, Cancelled)

    async def _fault(self) -> None:
        does, at = next(self._faults)
        async with self._worker("fault", does=does, at=at, for_s=WITHIN_S) as worker:
            work = asyncio.ensure_future(_load_and_run(worker))
            if does == "hang":
                await asyncio.wait([work], timeout=STARTING_S)
                worker.kill()
            if does == "leave_child":
                await work  # what it left is found when the worker ends
                return
            await _fails_with(work, WorkerDied, KernelError)


async def _load_and_run(worker: WorkerProcess) -> None:
    program = await worker.load(MODEL)
    with worker.slot(program, 1) as slot:
        await worker.run(slot)


async def _fails_with(work: "asyncio.Future[Any]", *kinds: type[Exception]) -> None:
    try:
        await work
    except kinds:
        return
    raise RuntimeError(f"a round went well that should have ended in {', '.join(k.__name__ for k in kinds)}")


@contextlib.contextmanager
def _own_temporary_folder() -> Iterator[Path]:
    """Where the workers' scratch folders lie meanwhile: others on this machine have temporary folders too."""
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory() as folder:
        tempfile.tempdir = folder
        try:
            yield Path(folder)
        finally:
            tempfile.tempdir = before


def _held(folder: Path) -> Counter[str]:
    """What this process holds of what a worker needs."""
    held: Counter[str] = Counter()
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            held[f"descriptor of {entry.readlink().name.partition(':')[0]}"] += 1
    held["mapped shared memory"] = sum(
        "memfd:parkwatt" in line for line in Path("/proc/self/maps").read_text().splitlines()
    )
    held["folder"] = sum(1 for _ in folder.iterdir())
    held["task"] = len(asyncio.all_tasks())
    held["thread"] = sum(1 for _ in Path("/proc/self/task").iterdir())
    return held


def _more(before: Counter[str], after: Counter[str]) -> list[str]:
    return [f"{count} x {what}" for what, count in sorted((after - before).items())]


def _processes(pids: set[int]) -> Iterator[str]:
    """Processes in a worker's session, stopped ones too, and zombies that nobody but us can wait for."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            _, _, rest = (entry / "stat").read_text().rpartition(")")
        except (FileNotFoundError, ProcessLookupError):
            continue
        state, parent, _, session = rest.split()[:4]  # proc_pid_stat(5), fields 3 to 6
        if int(session) in pids and (state != "Z" or int(parent) == os.getpid()):
            yield f"process {entry.name} in state {state}"


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / (1 << 20)
