"""Whose fault it was that a worker died: a model that does it twice without a run in between is not tried again."""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from agent.job import Ending, Job
from agent.kept_notes import KeptNotes
from agent.protocol.messages import TaskState
from agent.protocol.reasons import Reason
from agent.store import Store
from backends.group import Reaped
from backends.process import WorkerDied

log = logging.getLogger(__name__)
NOTE: Final = "killers"
DEATHS: Final = 2


class Killers:
    """Deaths by the SHA-256 of the model that was in the worker alone; kept over a restart."""

    def __init__(self, store: Store, on_error: Callable[[BaseException], None]) -> None:
        self._notes = KeptNotes(store, on_error)
        self._deaths: Counter[str] = Counter()

    async def restore(self) -> None:
        """Take up what an earlier start of the agent has seen."""
        deaths = await self._notes.read(NOTE, msgspec.json.Decoder(dict[str, int]).decode)
        self._deaths = Counter(deaths)

    def refused(self, sha256: str) -> bool:
        """Whether this model is not to be run any more."""
        return self._deaths[sha256] >= DEATHS

    def blame(self, suspects: Sequence[Job], backend: str, reaped: Reaped) -> None:
        """These jobs were first in the hands of a worker that died by itself; of several each is tried alone."""
        names = ", ".join(f"{job.task.id}/{job.task.attempt}" for job in suspects)
        log.warning("tasks %s were in the worker of %s when it died: %s", names, backend, reaped)
        if len(suspects) == 1:
            suspects[0].crashes += 1
            self._deaths[suspects[0].task.model.sha256] += 1
            self._write()
        for job in suspects:
            job.alone = True

    def ending(self, job: Job, backend_deaths: int, death: WorkerDied) -> Ending | None:
        """The end of a job whose worker died, if its model or its backend is at fault by now; None: it is tried again."""
        if job.crashes >= DEATHS or self.refused(job.task.model.sha256):
            text = f"this model ended its worker {DEATHS} times: {death.text}"
            return Ending(TaskState.FAILED, Reason.MODEL_INVALID, text)
        if backend_deaths > DEATHS:
            return Ending(TaskState.RELEASED, Reason(death.code), death.text)
        return None

    def worked(self, sha256: str) -> None:
        """A run has succeeded: what happened before was not the model's fault."""
        if self._deaths.pop(sha256, 0):
            self._write()

    def _write(self) -> None:
        self._notes.write({NOTE: msgspec.json.encode(self._deaths)})
