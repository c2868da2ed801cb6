"""A durable queue of tasks over the vehicles of a fleet: each goes to the vehicle that fits it best, until it is answered.

    client = FleetClient(LinkOptions(host="127.0.0.1", port=1883, client_id="fleet-1"))
    async with Dispatcher(client, Path("queue.db")) as dispatcher:
        await dispatcher.add(model, [Input("x", Datatype.FP32, [8, 3], data)], id="night-1", residency=["BR"])
        async for finished in dispatcher.answers():
            save(finished.id, finished.answer().outputs)  # `answer` raises TaskFailed for a task that has failed
            await dispatcher.taken(finished.id)
            if not dispatcher.pending:
                break

What holds, also when this process is killed at any moment and started again on the same queue:
- a task is on disk when `add` returns, and an attempt before it is sent: none is forgotten, and no number is used twice;
- a result is on disk before it is confirmed to its vehicle, which keeps it until then: no row is lost, none taken twice;
- an attempt that was under way is taken up again, not repeated: the vehicle is told the same bytes, and runs them once;
- an ended task is handed out after every start until it is `taken`, so the application that saves it under its id and
  then says so has each row exactly once.
Give the client the same client id at each start, so that the broker keeps what vehicles say meanwhile.

A task whose lease has run out, that was given back (codes from 1000) or whose vehicle is away for longer than its lease
goes on at another vehicle, with a higher attempt and for the rows that are missing. Rows that the old vehicle still
delivers count; when the task has ended, whoever may still be at it is told to stop. Codes below 1000 end a task, as does its
deadline. The vehicle is chosen by `fleet.placement`; of the tasks that fit, the largest priority and then the oldest goes first.
"""

import asyncio
import datetime as dt
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self, Unpack

from agent.protocol.messages import ModelRef, Task
from agent.protocol.reasons import Reason, Refused
from fleet.answer import Rows, TaskFailed
from fleet.assigner import Assigner
from fleet.client import FleetClient
from fleet.queue_ledger import Ledger
from fleet.queue_records import Added, Assignment, Finished, Kept, OpenTask
from fleet.task_queue import TaskQueue
from fleet.vehicle import FleetClosed, Vehicle
from fleet.work import Input, Terms, Work

ANY_VEHICLE: Final = "any"
NO_TIME: Final = dt.datetime.fromtimestamp(0, dt.UTC)


class Dispatcher:
    """For `async with`, which enters `client` too; see the module's docstring. One process at a time on a queue.

    Entering raises QueueUnusable. After a failure of the disk everything raises QueueFailed: start again.
    """

    def __init__(self, client: FleetClient, queue: Path) -> None:
        self._client = client
        self._path = queue
        self._queue: TaskQueue
        self._assigner: Assigner
        self._running: asyncio.Task[None]
        self._untaken: set[str] = set()
        self._finished: deque[str] = deque()
        self._news = asyncio.Event()

    @property
    def pending(self) -> int:
        """Tasks that have not ended, and those that have and were not `taken`."""
        return len(self._assigner.errands) + len(self._untaken)

    @property
    def waiting(self) -> int:
        """Tasks that no vehicle has now."""
        return self._assigner.waiting

    # What the application says

    async def add(
        self,
        model: ModelRef,
        inputs: Sequence[Input],
        *,
        id: str | None = None,  # noqa: A002 - the wire contract's name
        attempt: int = 1,
        **terms: Unpack[Terms],
    ) -> str:
        """Put a task into the queue and give its id; it is on disk then.

        The same work under a known id is the same task, so a call whose outcome was lost can be repeated;
        ValueError for other work under it. TaskFailed (100, 101, 102) for what no vehicle would take. `terms`
        are those of `Work`, but that `expires_s` counts from now; `attempt` is the number of the first one.
        """
        task_id = id or self._client.desk.new_id()
        work = Work(model, inputs, **terms)
        try:
            rows = work.rows_wanted()
            task = self._checked(work, task_id, attempt)
            tail = b"".join(work.tails())
        except Refused as refused:
            raise TaskFailed(refused.reason, refused.text) from None
        expires_at = self._now_s() + work.expires_s

        def add(ledger: Ledger) -> tuple[Added, OpenTask | None]:
            return ledger.add(task, tail, rows, expires_at), ledger.open_task(task_id)

        added, open_task = await self._queue.run(add)
        if added is Added.CONFLICT:
            raise ValueError(f"task {task_id}: other work has been queued under this id: choose another")
        if added is Added.NEW and open_task is not None:
            self._assigner.admit(open_task)
        return task_id

    async def cancel(self, task_id: str) -> None:
        """End a task as failed (152), and tell the vehicle that has it; does nothing to one that has ended."""
        await self._fail(task_id, Reason.CANCELLED, "cancelled by the fleet")

    async def answers(self) -> AsyncGenerator[Finished, None]:
        """Every task that has ended, for ever; what was not `taken` before the last start comes first.

        Raises what ends the dispatcher: QueueFailed, or FleetClosed when it is left.
        """
        while True:
            self._news.clear()
            while self._finished:
                finished = await self._queue.run(partial(Ledger.finished, task_id=self._finished.popleft()))
                if finished is not None:
                    yield finished
            if self._running.cancelled():
                raise FleetClosed("the dispatcher was left")
            if self._running.done():
                self._running.result()
            await self._news.wait()

    async def taken(self, *task_ids: str) -> None:
        """Let go of ended tasks: the application has them safe. On disk when this returns; repeats do nothing."""
        now_s = self._now_s()
        await self._queue.run(lambda ledger: [ledger.taken(task_id, now_s) for task_id in task_ids])
        self._untaken.difference_update(task_ids)

    # What the client says (`Bookkeeper`)

    def keep(self, vehicle: Vehicle, task_id: str, rows: Rows) -> asyncio.Future[Kept]:
        """Put rows on disk before they are confirmed."""
        now_s = self._now_s()
        kept = self._queue.run(lambda ledger: ledger.keep(task_id, vehicle.id, rows, now_s))
        kept.add_done_callback(partial(self._kept, task_id, rows))
        return kept

    def look(self) -> None:
        """Place tasks anew."""
        self._assigner.look()

    # Life

    async def __aenter__(self) -> Self:
        self._queue = TaskQueue.open(self._path)
        try:
            self._client.keep_with(self)
            self._assigner = Assigner(self._client, self._queue, self._fail)
            left, untaken = await self._queue.run(lambda ledger: (ledger.left(), ledger.untaken()))
        except BaseException:
            await self._queue.close()
            raise
        self._finished.extend(untaken)
        self._untaken.update(untaken)
        self._running = asyncio.create_task(self._run(left), name="dispatcher")
        self._running.add_done_callback(self._stopped)
        await self._client.__aenter__()  # runs behind the dispatcher, which knows its tasks by then
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave everything as it is: vehicles go on, and the next start takes it up. Raises what broke it."""
        broken = self._running.done()
        try:
            self._running.cancel()
            await asyncio.wait([self._running])
            await asyncio.wait([self._queue.run(lambda _: None)])  # what has come is confirmed
            await self._client.__aexit__(kind, error, trace)
        finally:
            await self._queue.close()
        if broken and error is None:
            self._running.result()

    async def _run(self, left: Sequence[tuple[OpenTask, Assignment | None]]) -> None:
        try:
            await self._assigner.run(left)
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None

    # Inside

    def _stopped(self, running: asyncio.Task[None]) -> None:
        if not running.cancelled():
            running.exception()  # whoever waits for answers gets it
        self._news.set()

    def _kept(self, task_id: str, rows: Rows, done: asyncio.Future[Kept]) -> None:
        if done.cancelled():
            return
        if (error := done.exception()) is not None:
            self._assigner.fail(error)
        elif done.result() is not Kept.UNWANTED:
            self._assigner.learn(task_id, rows)
            if done.result() is Kept.ENDED:
                self._hand_out(task_id)

    async def _fail(self, task_id: str, code: Reason, text: str) -> None:
        now_s = self._now_s()
        if await self._queue.run(lambda ledger: ledger.end(task_id, code, text, now_s)):
            self._hand_out(task_id)

    def _hand_out(self, task_id: str) -> None:
        self._assigner.ended(task_id)
        self._untaken.add(task_id)
        self._finished.append(task_id)
        self._news.set()

    def _checked(self, work: Work, task_id: str, attempt: int) -> Task:
        """The task without a vehicle and times; raises `Refused` for what no vehicle would take."""
        task = work.task(task_id, attempt, ANY_VEHICLE, issued_at=NO_TIME, expires_at=NO_TIME)
        size, limit = len(work.body(task)), self._client.desk.max_payload_bytes
        if size > limit:
            text = f"the task has {size} bytes, a message holds {limit}: send fewer rows at a time"
            raise Refused(Reason.TOO_LARGE, text)
        return task

    def _now_s(self) -> float:
        return self._client.desk.utc_now().timestamp()
