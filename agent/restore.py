"""The open tasks of an earlier start of the agent, as jobs again."""

import datetime as dt

from agent.inputs import carried
from agent.job import NS, Job, unpacked
from agent.protocol import framing, tensors
from agent.protocol.messages import TaskState
from agent.store import Ledger, TaskRow


def open_jobs(ledger: Ledger, now: dt.datetime, now_ns: int) -> list[Job]:
    """Rebuild every open job from the store, in the order in which they are due."""
    return [_job(ledger, row, now, now_ns, arrival) for arrival, row in enumerate(ledger.open_tasks())]


def _job(ledger: Ledger, row: TaskRow, now: dt.datetime, now_ns: int, arrival: int) -> Job:
    """The lease is counted from the newest sign of life on disk: it may end early, never late."""
    task, tail = framing.decode_task(ledger.body(row.id, row.attempt))
    kept = [
        unpacked(rows.row_from, rows.row_to, rows.outputs, rows.usage)
        for rows in ledger.pending_rows(row.id, row.attempt)
    ]
    left_s = max(row.received_at, row.state_at) + row.lease_s - now.timestamp()
    return Job(
        task=task,
        inputs=carried(task, tail),
        rows=(row.rows_from, row.rows_to),
        total_rows=tensors.rows_of(task)[2],
        missing=ledger.missing(row.id, row.attempt),
        lease_end_ns=now_ns + int(min(left_s, row.lease_s) * NS),
        arrival=arrival - 1_000_000,  # before everything that comes now
        state=TaskState.ACCEPTED if row.state is TaskState.ACCEPTED and not kept else TaskState.PREEMPTED,
        pending=[chunk for chunk, _ in kept],
        origin=kept[-1][1] if kept else None,
    )
