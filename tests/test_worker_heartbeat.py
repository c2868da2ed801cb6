"""A worker lives only while its supervisor does: one that hangs cannot end it when the owner comes back."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from workers import BYTES, LONG_US, SUPERVISOR, readable_within, started, wait_for_a_run_in

from backends.process import WorkerDied, WorkerProcess

UNRULY = "unruly_backends"
NOT_WITHIN_S = 20.0
"""Two seconds are promised; a test machine may be busy."""


@pytest.fixture(autouse=True)
def workers_find_the_unruly_backends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


@contextlib.contextmanager
def a_run_under_a_supervisor_of_its_own(backend: str) -> Iterator[tuple["subprocess.Popen[str]", int]]:
    """The supervisor, and a pidfd of its worker, which is in the middle of a run of 60 s."""
    command = [sys.executable, "-c", SUPERVISOR, f"{UNRULY}:{backend}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout is not None
        worker = int(supervisor.stdout.readline())
        pidfd = os.pidfd_open(worker)
        try:
            wait_for_a_run_in(worker)
            yield supervisor, pidfd
        finally:
            supervisor.kill()
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.close(pidfd)


@pytest.mark.parametrize("backend", ["AnnouncesItsRuns", "HoldsTheInterpreterAWhile"])
def test_a_worker_does_not_outlive_a_supervisor_that_hangs(backend: str) -> None:
    with a_run_under_a_supervisor_of_its_own(backend) as (supervisor, pidfd):
        assert not readable_within(pidfd, 0)
        supervisor.send_signal(signal.SIGSTOP)
        assert readable_within(pidfd, NOT_WITHIN_S)


async def test_a_loop_that_stands_still_for_good_loses_its_worker_and_hears_why() -> None:
    async with started("null", run_us=LONG_US) as worker:
        program = await worker.load(BYTES)
        with worker.slot(program, 1) as slot:
            run = asyncio.ensure_future(worker.run(slot))
            await asyncio.sleep(0)
            pidfd = os.pidfd_open(worker.pid)
            assert readable_within(pidfd, NOT_WITHIN_S)  # the loop has not turned since
            os.close(pidfd)
            with pytest.raises(WorkerDied, match="its supervisor gave no sign of life") as caught:
                await run
            assert caught.value.returncode == -signal.SIGALRM
            assert caught.value.code == 1021


async def test_a_hiccup_of_the_loop_costs_no_worker() -> None:
    async with started("null") as worker:
        program = await worker.load(BYTES)
        for _ in range(4):
            time.sleep(0.5)  # noqa: ASYNC251 - the hiccup
            await asyncio.sleep(0.2)
        with worker.slot(program, 1) as slot:
            await worker.run(slot)


async def test_a_worker_ends_when_the_agent_says_that_it_is_not_well() -> None:
    well = True
    worker = WorkerProcess.start("null", {}, well=lambda: well)
    await worker.probe()
    well = False
    assert (await worker.wait_reaped()).returncode == -signal.SIGALRM


async def test_native_code_that_keeps_the_interpreter_for_longer_than_it_said_is_ended() -> None:
    async with started(f"{UNRULY}:HoldsTheInterpreterAWhile") as worker:
        program = await worker.load(BYTES)
        with worker.slot(program, 1) as slot, pytest.raises(WorkerDied) as caught:
            await worker.run(slot)
        assert caught.value.returncode == -signal.SIGALRM


@pytest.mark.parametrize("how", ["ignored", "blocked"])
async def test_the_agents_own_treatment_of_the_signal_is_not_inherited(how: str) -> None:
    before = signal.getsignal(signal.SIGALRM)
    if how == "ignored":
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
    else:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    try:
        worker = WorkerProcess.start("null", {}, well=lambda: False)
        async with asyncio.timeout(NOT_WITHIN_S):
            assert (await worker.wait_reaped()).returncode == -signal.SIGALRM
    finally:
        await worker.stop()
        signal.signal(signal.SIGALRM, before)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
