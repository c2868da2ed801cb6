import asyncio
import contextlib
import datetime as dt
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from agent.link import PublishRefused
from agent.protocol.messages import State
from agent.protocol.reasons import Reason
from fleet.answer import GivenBack, Rows, TaskFailed
from fleet.client import FleetClient
from fleet.errands import Errand, Line
from fleet.offer import NS
from fleet.placement import Car, Needs, choose, has_room
from fleet.queue_ledger import CRASHES, Ledger
from fleet.queue_records import Assignment, OpenTask, Sent
from fleet.task_queue import TaskQueue
from fleet.vehicle import Vehicle
from fleet.work import Input, Work

CRASHES_MOST: Final = 3
"""A task at which so many attempts crashed, hung or ran out of memory is the cause of it: a judgement."""
OF_THE_TASK: Final = frozenset({Reason.DEPARTURE_SOON, Reason.BACKEND_UNUSABLE, *CRASHES})
"""Vehicle-side reasons that need not hold for another task: the task waits then, not the vehicle."""
FOLLOW: Final = 0.3
"""How far the known time of a model's row follows the newest result."""
HELD_MOST_S: Final = 3600.0
"""A vehicle that names a later time to come back is asked again before: it may have a wrong clock."""
PLACED_AT_ONCE: Final = 16
"""Tasks that are placed before the loop has its turn again."""

Fail = Callable[[str, Reason, str], Awaitable[None]]
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Berth:
    """A vehicle as the assigner deals with it: the tasks that it has, and until when it gets no more."""

    vehicle: Vehicle
    given: int = 0
    held_until_ns: int = 0
    refusals: int = 0


class Assigner:
    """Has each open task of a queue done by one vehicle after another, until the queue says that it has ended.

    `fail` ends a task without all of its rows.
    """

    def __init__(self, client: FleetClient, queue: TaskQueue, fail: Fail) -> None:
        self.errands: dict[str, Errand] = {}
        """Tasks that have not ended, by id."""
        self._client = client
        self._desk = client.desk
        self._queue = queue
        self._fail = fail
        self._line = Line()
        self._berths: dict[str, Berth] = {}
        self._row_s: dict[str, float] = {}
        """Seconds of one row by model, over the whole fleet."""
        self._ended: list[str] = []
        """Tasks that nobody follows any more, and that vehicles may still be at work on."""
        self._look = asyncio.Event()
        self._fault: BaseException | None = None
        self._group = asyncio.TaskGroup()

    @property
    def waiting(self) -> int:
        """Tasks that no vehicle has."""
        return len(self._line)

    def admit(self, task: OpenTask) -> None:
        """Take a new task up: find a vehicle for it."""
        errand = self.errands[task.task.id] = Errand.of(task)
        self._line.add(errand)
        self.look()

    def ended(self, task_id: str) -> None:
        """Do no more for a task: the queue has its end."""
        errand = self.errands.pop(task_id)
        self._line.remove(errand)
        if errand.offer is not None:
            errand.offer.cancel()
        if not errand.placed:
            self._ended.append(task_id)
            self.look()

    def learn(self, task_id: str, rows: Rows) -> None:
        """Rows have come: the task is no trouble, and a row of its model takes so long.

        A vehicle's word is believed as far as the time since it was given the task allows: else one that says
        nonsense would keep a model from all the others.
        """
        errand = self.errands.get(task_id)
        if errand is None:
            return
        errand.refusals = 0
        if errand.offer is not None and errand.offer.attempt.number == rows.attempt:
            passed_s = (self._desk.clock() - errand.offered_ns) / NS
            row_s = min(max(rows.usage.wall_s, 0.0), passed_s) / (rows.end - rows.begin)
            model = errand.needs.model_sha256
            before_s = self._row_s.get(model, row_s)
            self._row_s[model] = before_s + FOLLOW * (row_s - before_s)

    def look(self) -> None:
        """Place tasks anew: something has changed."""
        self._look.set()

    def fail(self, fault: BaseException) -> None:
        """End `run` with this."""
        self._fault = fault
        self._look.set()

    async def run(self, left: Sequence[tuple[OpenTask, Assignment | None]]) -> None:
        """Work for ever, from what an earlier start has left: tasks, with the attempt that is out.

        Those attempts are followed from the first moment on: what was said meanwhile comes with the connection.
        """
        async with self._group:
            for task, out in left:
                if out is None:
                    self.admit(task)
                else:
                    errand = self.errands[task.task.id] = Errand.of(task)
                    self._place(errand, self._client.vehicle(out.sent.vehicle, out.sent.region).base, out)
            self._ended += await self._queue.run(Ledger.left_over)
            while self._fault is None:
                self._look.clear()
                if self._client.status.up:
                    await self._call_off()
                    await self._expire()
                    self._place_all()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._next_look_s()):
                        await self._look.wait()
            raise self._fault

    # Which vehicle

    def _place_all(self) -> None:
        """Give errands to vehicles for as long as one fits, but let the loop go on meanwhile."""
        now_ns = self._desk.clock()
        cars = {base: self._car(base) for base in self._client.vehicles}
        cars = {
            base: car for base, car in cars.items() if isinstance(car.state, State) and has_room(car, now_ns)
        }
        nobody_has: set[Needs] = set()
        placed = 0
        while cars and (errand := self._line.first(now_ns, nobody_has)):
            if placed == PLACED_AT_ONCE:
                self.look()
                return
            row_s = self._row_s.get(errand.needs.model_sha256)
            base = choose(
                errand.needs,
                cars.values(),
                now_ns,
                rows=errand.rows,
                row_s=row_s,
                given_back_by=errand.given_back_by,
            )
            if base is None:
                nobody_has.add(errand.needs)
                continue
            self._line.remove(errand)
            self._place(errand, base)
            placed += 1
            cars[base] = self._car(base)
            if not has_room(cars[base], now_ns):
                del cars[base]

    def _car(self, base: str) -> Car:
        berth = self._berth(base)
        return Car(base, berth.vehicle.state, berth.given, self._desk.outstanding, berth.held_until_ns)

    def _berth(self, base: str) -> Berth:
        berth = self._berths.get(base)
        if berth is None:
            berth = self._berths[base] = Berth(self._client.vehicles[base])
        return berth

    def _place(self, errand: Errand, base: str, out: Assignment | None = None) -> None:
        self._berth(base).given += 1
        errand.placed = True
        self._group.create_task(self._pursue(errand, base, out), name=f"task-{errand.id}")

    # One attempt

    async def _pursue(self, errand: Errand, base: str, assignment: Assignment | None) -> None:
        """See one attempt to its end, a new one unless it is given; what is missing then waits for the next."""
        berth = self._berths[base]
        not_before_ns = 0
        if assignment is None:
            assignment = await self._begin(errand, berth.vehicle)
        if assignment is not None:
            try:
                await self._done(errand, berth.vehicle, assignment)
                berth.refusals = 0
            except GivenBack as given:
                not_before_ns = await self._given_back(errand, base, assignment.sent, given)
            except TaskFailed as failed:
                await self._over(assignment.sent, failed.code)
                if errand.id in self.errands:  # else it is the end that the queue knows
                    await self._fail(errand.id, failed.code, failed.text)
            except PublishRefused as refused:
                _log.error("%s: let this client publish there", refused)
                forbidden = GivenBack(Reason.LINK_LOST, str(refused))
                not_before_ns = await self._given_back(errand, base, assignment.sent, forbidden)
        berth.given -= 1
        errand.placed, errand.offer = False, None
        if errand.id in self.errands:
            self._line.add(errand, not_before_ns)
        else:
            self._ended.append(errand.id)
        self.look()

    async def _begin(self, errand: Errand, vehicle: Vehicle) -> Assignment | None:
        """A new attempt, on disk before it is sent; None when the task has ended."""
        issued_at = self._desk.utc_now().timestamp()
        return await self._queue.run(
            lambda ledger: ledger.begin(errand.id, vehicle.id, vehicle.region, issued_at=issued_at)
        )

    async def _done(self, errand: Errand, vehicle: Vehicle, assignment: Assignment) -> None:
        """Every row of an attempt; raises as `Offer.answer` does."""
        if errand.id not in self.errands:  # ended while the attempt was on its way to the disk
            await self._over(assignment.sent, None)
            return
        now = self._desk.utc_now()
        work = _work(assignment, (assignment.task.expires_at - now).total_seconds())
        errand.offered_ns = self._desk.clock()
        errand.offer = vehicle.assign(assignment.task, work, assignment.body)
        await errand.offer.answer()
        await self._over(assignment.sent, None)  # behind its rows: by now the queue knows of the task's end

    async def _given_back(self, errand: Errand, base: str, sent: Sent, given: GivenBack) -> int:
        """Learn from an attempt that came to nothing; gives the time before which the task waits."""
        berth = self._berths[base]
        errand.given_back_by.add(base)
        errand.last_word = f"vehicle {sent.vehicle} gave it back: {given}"
        if given.code is not Reason.LINK_LOST:  # from a silent vehicle rows may still come, or it is at work
            await self._over(sent, given.code)
        if given.code in CRASHES:
            errand.crashes += 1
            if errand.crashes >= CRASHES_MOST:
                text = f"{errand.crashes} attempts crashed, hung or ran out of memory; the last: {given}"
                await self._fail(errand.id, Reason.INFERENCE_FAILED, text)
        if given.code in OF_THE_TASK:
            errand.refusals += 1
            return self._pause_end_ns(given, errand.refusals)
        if self._desk.clock() >= berth.held_until_ns:  # else one of many that come back at the same time
            berth.refusals += 1
        berth.held_until_ns = max(berth.held_until_ns, self._pause_end_ns(given, berth.refusals))
        return 0

    def _pause_end_ns(self, given: GivenBack, refusals: int) -> int:
        pause_s = self._desk.jitter() * self._desk.patience.retry_ceiling_s(refusals - 1)
        if given.resume_at is not None:
            away_s = (given.resume_at - self._desk.utc_now()).total_seconds()
            pause_s += min(max(0.0, away_s), HELD_MOST_S)
        return self._desk.clock() + int(pause_s * NS)

    async def _over(self, sent: Sent, code: Reason | None) -> None:
        await self._queue.run(lambda ledger: ledger.over(sent.task_id, sent.number, code))

    # Ends

    async def _expire(self) -> None:
        """End what waits beyond its deadline, once what was said before has had the time to come."""
        if self._desk.clock() < self._concluding_ns:
            return
        over_at = self._desk.utc_now() - self._margin
        for errand in self._line.expired(over_at):
            text = f"not answered by {errand.expires_at:%Y-%m-%dT%H:%M:%SZ}, {errand.last_word}"
            await self._fail(errand.id, Reason.EXPIRED, f"{text}: give it more time (expires_s)")

    async def _call_off(self) -> None:
        """Tell whoever may still be at work on a task that has ended."""
        ended, self._ended = self._ended, []
        for task_id in ended:
            for sent in await self._queue.run(partial(Ledger.left_over_of, task_id=task_id)):
                self._client.vehicle(sent.vehicle, sent.region).call_off(task_id, sent.number)
                await self._over(sent, None)

    # When to look again

    @property
    def _margin(self) -> dt.timedelta:
        return dt.timedelta(seconds=self._desk.patience.lease_margin_s)

    @property
    def _concluding_ns(self) -> int:
        """From when on silence means something: not before what waited at the broker for us can have come."""
        return self._client.status.since_ns + int(self._desk.patience.lease_margin_s * NS)

    def _next_look_s(self) -> float | None:
        """Seconds to the next time at which something can change by itself."""
        if self._fault is not None:
            return 0
        if not self._client.status.up:
            return None
        now_ns = self._desk.clock()
        changes_ns = [berth.held_until_ns for berth in self._berths.values()]
        if self._line.next_ns is not None:
            changes_ns.append(self._line.next_ns)
        changes_s = [(change_ns - now_ns) / NS for change_ns in changes_ns if change_ns > now_ns]
        if self._line.next_expiry is not None:
            left_s = (self._line.next_expiry + self._margin - self._desk.utc_now()).total_seconds()
            changes_s.append(max(left_s, (self._concluding_ns - now_ns) / NS, 0))
        return min(changes_s, default=None)


def _work(assignment: Assignment, expires_s: float) -> Work:
    """What an attempt asks for, as far as an offer looks at it."""
    task = assignment.task
    inputs = [
        Input(tensor.name, tensor.datatype, tensor.shape, shared=tensor.parameters.shared)
        for tensor in task.inputs
    ]
    return Work(task.model, inputs, lease_s=task.lease_s, expires_s=expires_s, rows=task.rows)
