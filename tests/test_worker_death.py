"""Every way in which a worker ends: nothing of it stays, and whoever waits hears of it."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from workers import BYTES, LONG_US, descriptors, is_alive, maps_an_arena, readable_within, started

from backends.process import WorkerDied, WorkerProcess
from firmware_shims.clock import boottime_ns

UNRULY = "unruly_backends"


@pytest.fixture(autouse=True)
def workers_find_the_unruly_backends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


async def test_a_kill_from_the_thread_that_read_the_frame_ends_the_run_while_the_loop_is_busy() -> None:
    before = descriptors()
    worker = WorkerProcess.start("null", {"run_us": LONG_US})
    program = await worker.load(BYTES)
    slots = [worker.slot(program, 1) for _ in range(2)]
    runs = [asyncio.ensure_future(worker.run(slot)) for slot in slots]
    waiters = [asyncio.ensure_future(worker.wait_reaped()) for _ in range(3)]
    await asyncio.sleep(0)

    sent: list[int | None] = []
    pidfd = os.pidfd_open(worker.pid)
    read_ns = boottime_ns()
    reader = threading.Thread(target=lambda: sent.append(worker.kill()))
    reader.start()
    reader.join()
    assert readable_within(pidfd, 30)  # the loop has not turned since
    os.close(pidfd)

    assert sent[0] is not None
    assert read_ns <= sent[0]
    for run in runs:
        with pytest.raises(WorkerDied, match=r"was ended by signal 9 \(Killed\)") as caught:
            await run
        assert caught.value.returncode == -signal.SIGKILL
    for reaped in await asyncio.gather(*waiters):
        assert reaped.returncode == -signal.SIGKILL
        assert sent[0] <= reaped.at_ns
    assert maps_an_arena()  # what was done can still be read
    for slot in slots:
        slot.release()
    assert not maps_an_arena()
    assert descriptors() == before


async def test_a_kill_after_the_end_hits_nobody() -> None:
    async with started("null") as worker:
        assert worker.kill() is not None
        await worker.wait_reaped()
        assert worker.kill() is None
        assert worker.kill() is None


async def test_kills_from_many_threads_at_once_are_one_death() -> None:
    async with started("null") as worker:
        await worker.probe()
        threads = [threading.Thread(target=worker.kill) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (await worker.wait_reaped()).returncode == -signal.SIGKILL


async def test_a_run_that_was_finished_before_the_kill_still_counts() -> None:
    async with started("null") as worker:
        program = await worker.load(BYTES)
        with worker.slot(program, 1) as slot:
            slot.inputs[0][:] = b"q" * 1024
            run = asyncio.ensure_future(worker.run(slot))
            await asyncio.sleep(0)
            assert readable_within(worker._requests.fileno(), 30)  # the reply is there, not yet read
            pidfd = os.pidfd_open(worker.pid)
            worker.kill()
            assert readable_within(pidfd, 30)
            os.close(pidfd)
            assert (await run).spent.end_ns > 0
            assert slot.outputs[0] == b"q" * 1024


@pytest.mark.parametrize(
    ("backend", "returncode", "last_words"),
    [
        ("CrashesInNativeCode", -signal.SIGSEGV, "Segmentation fault"),
        ("HasABug", 1, "ZeroDivisionError: a mistake in the backend"),
        ("TalksNonsense", -signal.SIGKILL, "breach of protocol"),
        ("ClosesItsSocket", -signal.SIGKILL, "Killed"),
    ],
)
async def test_a_crash_is_told_with_its_last_words(backend: str, returncode: int, last_words: str) -> None:
    before = descriptors()
    async with started(f"{UNRULY}:{backend}") as worker:
        with pytest.raises(WorkerDied, match=last_words) as caught:
            await asyncio.gather(worker.probe(), worker.load(BYTES))
        assert caught.value.returncode == returncode
    assert descriptors() == before
    assert not maps_an_arena()


async def test_what_a_killed_worker_had_started_is_gone_with_it() -> None:
    async with started(f"{UNRULY}:LeavesAChild") as worker:
        child = int((await worker.probe())[0].name)
        assert is_alive(child)
        worker.kill()
        await worker.wait_reaped()
        assert not is_alive(child)


async def test_what_a_worker_leaves_behind_by_itself_is_gone_too() -> None:
    async with started(f"{UNRULY}:LeavesAChildAndEnds") as worker:
        child = int((await worker.probe())[0].name)
        with pytest.raises(WorkerDied, match="ends in the middle of loading"):
            await worker.load(BYTES)
        await worker.wait_reaped()
        assert not is_alive(child)


async def test_a_worker_that_lost_its_supervisors_end_leaves_whatever_it_does() -> None:
    async with started("null", run_us=LONG_US) as worker:
        program = await worker.load(BYTES)
        slot = worker.slot(program, 1)
        run = asyncio.ensure_future(worker.run(slot))
        await asyncio.sleep(0)
        worker._cancels.shutdown(socket.SHUT_RDWR)
        with pytest.raises(WorkerDied):
            await run
        slot.release()


SUPERVISOR = """
import asyncio, sys
from backends.process import WorkerProcess
from workers import BYTES, LONG_US

async def main():
    worker = WorkerProcess.start("null", {"run_us": LONG_US})
    program = await worker.load(BYTES)
    run = asyncio.ensure_future(worker.run(worker.slot(program, 1)))
    await asyncio.sleep(0)
    print(worker.pid, flush=True)
    await run

asyncio.run(main())
"""


def test_a_worker_dies_with_its_supervisor() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR], stdout=subprocess.PIPE, text=True
    ) as supervisor:
        assert supervisor.stdout is not None
        worker = int(supervisor.stdout.readline())
        pidfd = os.pidfd_open(worker)
        supervisor.kill()
        try:
            assert readable_within(pidfd, 30)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
            os.close(pidfd)


async def test_worker_after_worker_leaves_nothing() -> None:
    before = descriptors()
    for round_ in range(20):
        worker = WorkerProcess.start("null", {})
        if round_ % 2:
            await worker.probe()
        worker.kill()
        await worker.wait_reaped()
    assert descriptors() == before
    assert not maps_an_arena()
