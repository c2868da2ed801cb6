"""Why a worker ended: crashed (1021), hung (1022) or out of memory (1023). The fleet hears one of the three."""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from workers import BYTES, started

from backends import calls, process
from backends.calls import expected_s
from backends.deaths import judged, oom_kills
from backends.kernel import Cost
from backends.process import WorkerDied

UNRULY = "unruly_backends"
GROUPS = Path("/sys/fs/cgroup/memory")
GROUP_BYTES = 64 * 1024**2


@pytest.fixture(autouse=True)
def workers_find_the_unruly_backends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


@pytest.fixture
def patience_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (calls, process):
        monkeypatch.setattr(module, "HUNG_FLOOR_S", 0.2)


@pytest.mark.usefixtures("patience_is_short")
async def test_a_run_far_beyond_its_measured_cost_is_a_hang() -> None:
    async with started(f"{UNRULY}:HangsInItsRuns") as worker:
        program = await worker.load(BYTES)
        with worker.slot(program, 1) as slot, pytest.raises(WorkerDied, match="it hung: no Ran") as caught:
            await worker.run(slot)
        assert caught.value.code == 1022


@pytest.mark.usefixtures("patience_is_short")
async def test_a_run_that_does_not_hear_its_cancel_is_a_hang_too() -> None:
    async with started(f"{UNRULY}:HangsInItsRuns") as worker:
        program = await worker.load(BYTES)
        with worker.slot(program, 1) as slot:
            run = asyncio.ensure_future(worker.run(slot))
            await asyncio.sleep(0)
            os.kill(worker.pid, signal.SIGSTOP)
            run.cancel()
            assert (await worker.wait_reaped()).returncode == -signal.SIGKILL


@pytest.mark.usefixtures("patience_is_short")
async def test_a_driver_that_never_answers_is_a_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "START_S", 0.5)
    async with started(f"{UNRULY}:NeverFindsItsDevice") as worker:
        with pytest.raises(WorkerDied, match=r"it hung: no Probed for 0\.7 s") as caught:
            await worker.probe()
        assert caught.value.code == 1022


@pytest.mark.usefixtures("patience_is_short")
async def test_runs_that_wait_for_others_do_not_hang() -> None:
    async with started("null", run_us=50_000) as worker:
        program = await worker.load(BYTES)
        slots = [
            worker.slot(program, 1) for _ in range(40)
        ]  # the last one waits for 2 s, the patience is 0.7 s
        await asyncio.gather(*map(worker.run, slots))
        for slot in slots:
            slot.release()


async def test_a_worker_that_somebody_else_killed_has_crashed() -> None:
    async with started("null") as worker:
        program = await worker.load(BYTES)
        os.kill(worker.pid, signal.SIGKILL)
        with worker.slot(program, 1) as slot, pytest.raises(WorkerDied, match="Killed") as caught:
            await worker.run(slot)
        assert caught.value.code == 1021


@pytest.fixture
def small_group() -> Iterator[Path]:
    """A memory control group (version 1) of 64 MiB."""
    group = GROUPS / f"parkwatt-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(GROUP_BYTES))
    except OSError as error:
        pytest.skip(f"no memory control group can be made here: {error}")
    yield group
    group.rmdir()


async def test_a_worker_that_the_kernel_killed_for_want_of_memory_says_so(small_group: Path) -> None:
    async with started(f"{UNRULY}:TakesMuchMemory") as worker:
        await worker.probe()
        (small_group / "cgroup.procs").write_text(str(worker.pid))
        with pytest.raises(WorkerDied, match="the kernel had no memory left") as caught:
            await worker.load(BYTES)
        assert caught.value.code == 1023


@pytest.mark.parametrize(
    ("returncode", "killed_by_us", "oom_kills_since", "code"),
    [
        (-signal.SIGSEGV, False, 0, 1021),
        (-signal.SIGABRT, False, 0, 1021),
        (1, False, 0, 1021),
        (-signal.SIGKILL, False, 0, 1021),
        (-signal.SIGKILL, False, 1, 1023),
        (-signal.SIGKILL, True, 1, 1021),
        (-signal.SIGSEGV, False, 1, 1021),
        (-signal.SIGXCPU, False, 0, 1022),
        (-signal.SIGALRM, False, 0, 1021),
    ],
)
def test_the_cause_follows_from_how_it_ended(
    returncode: int, killed_by_us: bool, oom_kills_since: int, code: int
) -> None:
    assert judged(returncode, killed_by_us, oom_kills() - oom_kills_since)[0] == code


@pytest.mark.parametrize(("rows", "seconds"), [(1, 0.1), (2, 0.2), (4, 0.3), (6, 0.45), (8, 0.6)])
def test_a_batch_is_expected_to_take_what_the_nearest_smaller_one_took(rows: int, seconds: float) -> None:
    assert expected_s(Cost(run_s={1: 0.1, 4: 0.3}), rows) == pytest.approx(seconds)


def test_a_batch_below_the_smallest_that_was_measured_takes_as_long_as_that() -> None:
    assert expected_s(Cost(run_s={8: 0.4}), 2) == pytest.approx(0.4)
