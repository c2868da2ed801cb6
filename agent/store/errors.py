"""What can go wrong with the store, by who can answer it."""

from pathlib import Path

from agent.protocol.messages import TaskState


class StoreUnusable(Exception):  # noqa: N818 - says what is so; a person answers it before the agent can start
    """The store cannot be opened. One line: what, where, value, limit, what to do."""

    def __init__(self, path: Path, problem: str, advice: str) -> None:
        super().__init__(f"store.path {path}: {problem}; {advice}")


class StoreFailed(Exception):  # noqa: N818 - reads as the outcome of a job
    """Nothing of this job is on disk: the disk, the file or the writer failed."""


class StoreFull(StoreFailed):
    """Nothing of this job is on disk: `store.max_bytes` or the disk's end is reached (reason 1031)."""


class UnknownTask(LookupError):  # noqa: N818 - reads as the outcome of a job
    """No such task and attempt: never accepted, or forgotten since."""

    def __init__(self, task_id: str, attempt: int) -> None:
        super().__init__(f"task {task_id} attempt {attempt} is not known")


class TaskEnded(Exception):  # noqa: N818 - an outcome that whoever works on the task must expect
    """The task has reached a final state, perhaps just now by a newer attempt: nothing more is added to it."""

    def __init__(self, task_id: str, attempt: int, state: TaskState) -> None:
        super().__init__(f"task {task_id} attempt {attempt} has ended: {state.value}")
        self.state = state


class RowsRefused(ValueError):  # noqa: N818 - reads as the outcome of a job
    """Rows outside their task, answered twice, or missing behind a final result: a bug in the caller."""
