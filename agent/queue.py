"""The jobs that wait for one backend, and the lanes that wait for a job."""

import asyncio
import heapq
from collections import deque

from agent.job import Job


class Queue:
    """In the order of the jobs (`Job.order`); one that has ended is none any more."""

    def __init__(self) -> None:
        self._jobs: list[Job] = []
        self._idle: deque[asyncio.Future[None]] = deque()

    @property
    def first(self) -> Job | None:
        """The job whose turn it is; it stays."""
        while self._jobs and self._jobs[0].ended is not None:
            heapq.heappop(self._jobs)
        return self._jobs[0] if self._jobs else None

    def push(self, job: Job) -> None:
        """Let a job wait, and wake a lane for it."""
        heapq.heappush(self._jobs, job)
        self.wake()

    def pop(self) -> Job | None:
        """Take the first job."""
        return heapq.heappop(self._jobs) if self.first is not None else None

    def wake(self) -> None:
        """Let one idle lane look again."""
        while self._idle:
            lane = self._idle.popleft()
            if not lane.done():
                lane.set_result(None)
                return

    async def news(self, within_s: float) -> None:
        """Wait until there is something to look at, for at most so many seconds; 0 for as long as it takes."""
        loop = asyncio.get_running_loop()
        woken: asyncio.Future[None] = loop.create_future()
        self._idle.append(woken)
        if within_s:
            loop.call_later(within_s, self.wake)
        await woken
