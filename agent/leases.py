"""Ends what has run out, and renews what runs long. The agent's count of a lease always ends before the fleet's."""

import asyncio

from agent.executor import Executor
from agent.job import NS, Ending, Job
from agent.protocol.messages import TaskState
from agent.protocol.reasons import Reason
from agent.reports import utc_now

WATCH_S = 0.25


async def watch(executor: Executor) -> None:
    """Look after every open job until cancelled; sleeps while there is none."""
    while True:
        if not executor.jobs:
            executor.has_jobs.clear()
        await executor.has_jobs.wait()
        await asyncio.sleep(WATCH_S)
        now_ns, now = executor.clock(), utc_now()
        for job in list(executor.jobs.values()):
            if now > job.task.expires_at:
                text = f"expires_at was {job.task.expires_at:%Y-%m-%dT%H:%M:%SZ}"
                executor.end(job, Ending(TaskState.EXPIRED, Reason.EXPIRED, text))
            elif now_ns > job.lease_end_ns:
                text = f"the lease of {job.task.lease_s:g} s was not renewed"
                executor.end(job, Ending(TaskState.EXPIRED, Reason.EXPIRED, text))
            elif (since_ns := executor.busy_since_ns(job)) is not None and now_ns >= _due_ns(job, since_ns):
                executor.journal.running(job)


def _due_ns(job: Job, since_ns: int) -> int:
    """`running` is said of what lasts longer than a second, and each third of the lease from then on."""
    third_ns = int(job.task.lease_s * NS / 3)
    if job.state is TaskState.RUNNING:
        return job.said_ns + third_ns
    return since_ns + min(NS, third_ns)
