"""Every way in which a worker ends: nothing of it stays, and whoever waits hears of it."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from workers import (
    BYTES,
    LONG_US,
    SUPERVISOR,
    descriptors,
    is_alive,
    maps_an_arena,
    readable_within,
    started,
    wait_for_a_run_in,
)

from backends.process import WorkerDied, WorkerProcess
from firmware_shims.clock import boottime_ns

UNRULY = "unruly_backends"


@pytest.fixture(autouse=True)
def workers_find_the_unruly_backends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


async def one_run(worker: WorkerProcess) -> None:
    await worker.probe()
    program = await worker.load(BYTES)
    with worker.slot(program, 1) as slot:
        await worker.run(slot)


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


async def test_what_it_answered_counts_though_it_left_requests_unread() -> None:
    """The kernel says ECONNRESET before it gives out what had come before."""
    async with started("fault", does="abort", after_runs=1) as worker:
        program = await worker.load(BYTES)
        slots = [worker.slot(program, 1) for _ in range(3)]
        done, deadly, behind = (asyncio.ensure_future(worker.run(slot)) for slot in slots)
        pidfd = os.pidfd_open(worker.pid)
        await asyncio.sleep(0)
        assert readable_within(pidfd, 30)  # the loop has not turned since
        os.close(pidfd)
        await done
        for run in (deadly, behind):
            with pytest.raises(WorkerDied, match="was ended by signal 6"):
                await run
        for slot in slots:
            slot.release()


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


async def test_rows_that_were_finished_before_the_kill_still_count() -> None:
    async with started("null") as worker:
        program = await worker.load(BYTES)
        slots = [worker.slot(program, 1) for _ in range(100)]
        for slot in slots:
            slot.inputs[0][:] = b"q" * 1024
            slot.outputs[0][0] = 0
        runs = [asyncio.ensure_future(worker.run(slot)) for slot in slots]
        await asyncio.sleep(0)
        deadline_ns = boottime_ns() + 30 * 10**9
        while slots[-1].outputs[0][0] == 0:  # the loop does not turn: every answer waits in the socket
            assert boottime_ns() < deadline_ns
        pidfd = os.pidfd_open(worker.pid)
        worker.kill()
        assert readable_within(pidfd, 30)
        os.close(pidfd)
        for slot, run in list(zip(slots, runs, strict=True))[:-1]:
            assert (await run).spent.end_ns > 0
            assert slot.outputs[0] == b"q" * 1024
        await asyncio.gather(runs[-1], return_exceptions=True)  # its answer may have come too late
        for slot in slots:
            slot.release()


async def test_whoever_stops_waiting_for_the_end_takes_nothing_from_the_others() -> None:
    async with started("null") as worker:
        impatient, patient = (asyncio.ensure_future(worker.wait_reaped()) for _ in range(2))
        await asyncio.sleep(0)
        impatient.cancel()
        await asyncio.sleep(0)
        worker.kill()
        assert (await patient).returncode == -signal.SIGKILL


async def test_last_words_are_heard_though_the_loop_was_busy_when_they_were_said() -> None:
    async with started("fault", does="raise", at="load") as worker:
        asyncio.get_running_loop().remove_reader(worker._group._output)
        with pytest.raises(WorkerDied, match="ZeroDivisionError"):
            await worker.load(BYTES)


@pytest.mark.parametrize(
    ("does", "at", "returncode", "last_words"),
    [
        ("segfault", "load", -signal.SIGSEGV, "Segmentation fault"),
        ("abort", "run", -signal.SIGABRT, "Aborted"),
        ("exit", "load", 0, "ended with exit code 0"),
        ("raise", "load", 1, "ZeroDivisionError: a mistake in the backend"),
        ("write_inputs", "run", 1, "read-only"),
        ("invent_code", "load", -signal.SIGKILL, "breach of protocol: code 999 is none of"),
        ("wrong_shape", "run", -signal.SIGKILL, "breach of protocol: tensor 'data': shape .* below 1"),
        ("garbage", "probe", -signal.SIGKILL, "breach of protocol"),
        ("hang_up", "probe", -signal.SIGKILL, "Killed"),
    ],
)
async def test_a_crash_is_told_with_its_last_words(
    does: str, at: str, returncode: int, last_words: str
) -> None:
    before = descriptors()
    async with started("fault", does=does, at=at) as worker:
        with pytest.raises(WorkerDied, match=last_words) as caught:
            await one_run(worker)
        assert caught.value.returncode == returncode
        assert caught.value.code == 1021
    assert descriptors() == before
    assert not maps_an_arena()


async def test_what_a_killed_worker_had_started_is_gone_with_it() -> None:
    async with started(f"{UNRULY}:LeavesAChild") as worker:
        child = int((await worker.probe())[0].name)
        pidfd = os.pidfd_open(child)
        worker.kill()
        assert readable_within(pidfd, 30)  # before the loop has turned
        os.close(pidfd)
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


@pytest.mark.parametrize("backend", ["AnnouncesItsRuns", "HoldsTheInterpreter"])
def test_a_worker_dies_with_its_supervisor_whatever_it_does(backend: str) -> None:
    command = [sys.executable, "-c", SUPERVISOR, f"{UNRULY}:{backend}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout is not None
        worker = int(supervisor.stdout.readline())
        pidfd = os.pidfd_open(worker)
        try:
            wait_for_a_run_in(worker)
            supervisor.kill()
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


async def test_a_killed_worker_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    async with started("null") as worker:
        await worker.probe()
        environment = Path(f"/proc/{worker.pid}/environ").read_bytes().split(b"\0")
        (scratch,) = [Path(entry[7:].decode()) for entry in environment if entry.startswith(b"TMPDIR=")]
        assert scratch.parent == tmp_path
        (scratch / "half-written").write_text("in the middle of a load")
        worker.kill()
        await worker.wait_reaped()
    assert list(tmp_path.iterdir()) == []
