"""A process in a group of its own that can be killed from any thread and says when all of it is gone."""

import asyncio
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from firmware_shims.clock import Clock

OUTPUT_TAIL_BYTES: Final = 4096
READ_BYTES: Final = 64 * 1024  # a pipe's default capacity


@dataclass(frozen=True, slots=True)
class Reaped:
    """When the last process of the group was gone, and how the first one ended (negative: by that signal)."""

    at_ns: int
    returncode: int


class ProcessGroup:
    """Spawns `arguments` as the leader of a new session; everything but `kill` belongs to one asyncio loop.

    Watches with pidfds: no thread, no polling, no SIGCHLD handler. Processes that the leader leaves
    behind are killed and waited for too; one that made a session of its own has left the group.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        pass_fds: Sequence[int],
        clock: Clock,
        when_gone: Callable[[Reaped], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._clock = clock
        self._when_gone = when_gone
        self._output, write_end = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._output, False)
        try:
            self._leader = subprocess.Popen(
                arguments,
                env=environment,
                pass_fds=pass_fds,
                stdin=subprocess.DEVNULL,
                stdout=write_end,
                stderr=write_end,
                start_new_session=True,
            )
        except OSError:
            os.close(self._output)
            raise
        finally:
            os.close(write_end)
        self.pid = self._leader.pid
        self.output_tail = b""
        self._lock = threading.Lock()  # the pid is ours to signal until the leader has been waited for
        self._waited_for = False
        self.was_killed = False
        self._gone: asyncio.Future[Reaped] = self._loop.create_future()
        self._left_behind: set[int] = set()
        self._loop.add_reader(self._output, self._read_output)
        leader_fd = os.pidfd_open(self.pid)
        self._loop.add_reader(leader_fd, self._leader_ended, leader_fd)

    def kill(self) -> int | None:
        """SIGKILL the whole group now, from any thread; the stamp of the signal, None if it is gone already."""
        with self._lock:
            if self._waited_for:
                return None
            os.killpg(self.pid, signal.SIGKILL)
            self.was_killed = True
            return self._clock()

    async def wait(self) -> Reaped:
        """Return once every process of the group is gone; any number of callers."""
        return await asyncio.shield(self._gone)

    def _leader_ended(self, leader_fd: int) -> None:
        self._loop.remove_reader(leader_fd)
        os.close(leader_fd)
        with self._lock:
            os.killpg(self.pid, signal.SIGKILL)  # what it left behind; the zombie still holds the number
            self._leader.wait()
            self._waited_for = True
        for member_fd in _members(self.pid):
            self._left_behind.add(member_fd)
            self._loop.add_reader(member_fd, self._member_ended, member_fd)
        self._finish_when_alone()

    def _member_ended(self, member_fd: int) -> None:
        self._loop.remove_reader(member_fd)
        os.close(member_fd)
        self._left_behind.remove(member_fd)
        self._finish_when_alone()

    def _finish_when_alone(self) -> None:
        if self._left_behind:
            return
        reaped = Reaped(self._clock(), self._leader.returncode)
        self._read_output()
        if self._output >= 0:
            self._close_output()
        self._when_gone(reaped)
        self._gone.set_result(reaped)

    def _read_output(self) -> None:
        """Keep the end of what the group prints, so that its last words can be told; drop the rest."""
        if self._output < 0:
            return
        try:
            data = os.read(self._output, READ_BYTES)
        except BlockingIOError:
            return
        self.output_tail = (self.output_tail + data)[-OUTPUT_TAIL_BYTES:]
        if not data:
            self._close_output()

    def _close_output(self) -> None:
        self._loop.remove_reader(self._output)
        os.close(self._output)
        self._output = -1


def _members(group: int) -> list[int]:
    """A pidfd for each process of `group`, whose leader has been waited for; most often there is none."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return []
    fds: list[int] = []
    for entry in Path("/proc").glob("[0-9]*"):
        if _group_of(entry) != group:
            continue
        try:
            member_fd = os.pidfd_open(int(entry.name))
        except ProcessLookupError:
            continue
        if _group_of(entry) == group:  # still the same process: the number was not used again in between
            fds.append(member_fd)
        else:
            os.close(member_fd)
    return fds


def _group_of(entry: Path) -> int | None:
    """Process group of /proc/PID (proc_pid_stat(5), field 5); None when the process is gone."""
    try:
        stat = (entry / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(stat.rpartition(")")[2].split()[2])
