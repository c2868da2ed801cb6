"""What `parkwatt fleet dispatch` does: tasks from files into a queue, their answers into a folder, until none is left."""

import asyncio
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from agent.link import LinkOptions
from agent.protocol.keys import load_private_key
from fleet.answer import TaskFailed
from fleet.answer_file import write_answer, write_failure
from fleet.client import BrokerUnreachableError, FleetClient, utc_now
from fleet.dispatcher import Dispatcher
from fleet.queue_records import Finished
from fleet.submission import SubmissionError, check_ids, new_id
from fleet.task_file import SubmittedTask, read_task
from fleet.task_queue import TaskQueue
from fleet.waiting import explaining, why_they_wait


@dataclass(slots=True, kw_only=True)
class Dispatching:
    """Tasks for whichever vehicle fits. `options` need no client id: a queue has its own."""

    options: LinkOptions
    root: str
    vehicles: Sequence[tuple[str, str]] | None
    key_path: Path | None
    queue: Path
    out: Path
    wait_s: float
    say: Callable[[str], None]
    complain: Callable[[str], None]
    done: int = 0
    rows: int = 0
    failed: int = 0

    async def run(self, paths: Sequence[Path]) -> bool:
        """Queue every file, and answer what is in the queue; whether all of it is done.

        Raises what a wrong file, option or queue is. SIGINT and SIGTERM end it between two answers.
        """
        begun_s = time.monotonic()
        key = load_private_key(self.key_path) if self.key_path else None
        tasks = [read_task(path, None, new_id(), utc_now()) for path in paths]
        check_ids(tasks)
        self.out.mkdir(parents=True, exist_ok=True)
        client = FleetClient(
            replace(self.options, client_id=await _client_id(self.queue)),
            root=self.root,
            vehicles=self.vehicles,
            key=key,
            kid=self.key_path.stem if self.key_path else "",
        )
        async with Dispatcher(client, self.queue) as dispatcher:
            for task in tasks:
                await self._add(dispatcher, task)
            taking = asyncio.create_task(self._take_all(client, dispatcher))
            with _cancelled_by_signals(taking):
                await asyncio.wait([taking])
            if not taking.cancelled():
                taking.result()
            left = dispatcher.pending
        self.say(f"{self.done} tasks done, {self.rows} rows, {time.monotonic() - begun_s:.1f} s")
        if left:
            self.complain(
                f"{left} tasks are left in {self.queue}: to go on, give the same command without the files"
            )
        return not left and not self.failed

    async def _add(self, dispatcher: Dispatcher, submitted: SubmittedTask) -> None:
        task = submitted.task
        try:
            await dispatcher.add(
                task.model, submitted.inputs, id=task.id, attempt=task.attempt, **submitted.terms(utc_now())
            )
        except (TaskFailed, ValueError) as error:
            raise SubmissionError(f"{submitted.path}: {error}") from None

    async def _take_all(self, client: FleetClient, dispatcher: Dispatcher) -> None:
        try:
            await client.until_up(self.wait_s)
        except BrokerUnreachableError as error:
            raise SubmissionError(f"{error}; the tasks are in {self.queue}") from None
        reports = explaining(
            lambda: self.done + self.failed,
            lambda: why_they_wait(client.vehicles.values(), dispatcher.waiting, self.root),
            self.complain,
        )
        async with reports, aclosing(dispatcher.answers()) as answers:
            while dispatcher.pending:
                await self._take(dispatcher, await anext(answers))

    async def _take(self, dispatcher: Dispatcher, finished: Finished) -> None:
        """Put an answer on disk, and only then let go of it."""
        if finished.failure is None:
            answer = finished.answer()
            write_answer(self.out, finished.id, finished.model, answer)
            self.done += 1
            self.rows += answer.rows
            await dispatcher.taken(finished.id)
            self.say(f"{finished.id} done, {answer.rows} rows, attempts: {answer.attempts}")
        else:
            write_failure(self.out, finished.id, finished.failure)
            self.failed += 1
            await dispatcher.taken(finished.id)
            self.complain(f"task {finished.id}: {finished.failure} ({finished.failure.rows_done} rows done)")


async def _client_id(queue: Path) -> str:
    """The queue's own for ever: the broker keeps under it what vehicles say while no dispatcher runs."""
    async with TaskQueue.open(queue) as opened:
        return await opened.run(lambda ledger: ledger.fact("client_id", f"dispatch-{new_id()}"))


@contextmanager
def _cancelled_by_signals(task: asyncio.Task[None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
