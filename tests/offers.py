"""Tasks as a fleet offers them to the store."""

import hashlib

from agent.store import NewTask

NOW = 1_795_310_400.0
BODY = b'{"id": "any"}\n'


def offer(
    task_id: str = "night-1",
    attempt: int = 1,
    *,
    body: bytes = BODY,
    rows: tuple[int, int] = (0, 8),
    priority: int = 0,
    expires_at: float = NOW + 300,
) -> NewTask:
    return NewTask(
        id=task_id,
        attempt=attempt,
        digest=hashlib.sha256(body).digest(),
        body=body,
        rows_from=rows[0],
        rows_to=rows[1],
        received_ns=1_000,
        received_at=NOW,
        priority=priority,
        expires_at=expires_at,
        lease_s=60.0,
    )
