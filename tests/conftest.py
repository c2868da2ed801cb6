"""Every test cleans up after itself: a task or a child process left behind fails it."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import settings

if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # as in the background of a shell, and so in every child
    signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ["broker_fixtures", "fsd_fixtures"]

# a busy machine is no defect of an example; pytest-timeout finds what hangs
settings.register_profile("parkwatt", parent=settings(), deadline=None)
settings.load_profile("parkwatt")


def children() -> set[int]:
    pids: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        try:
            pids.update(int(pid) for pid in (task / "children").read_text().split())
        except FileNotFoundError:  # the thread has just ended
            continue
    return pids


@pytest.fixture(autouse=True)
def no_child_left_behind() -> Iterator[None]:
    before = children()
    yield
    left = {
        pid: Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        for pid in children() - before
    }
    assert not left, f"child processes left behind: {left}"


@pytest_asyncio.fixture(autouse=True)
async def no_task_left_behind() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    left = [
        task
        for task in asyncio.all_tasks() - before
        if task is not asyncio.current_task() and not task.done()
    ]
    assert not left, f"tasks left behind: {left}"
