"""Tasks over several vehicles: who gets what, what becomes of them on the way, and that every row comes once."""

import asyncio
import datetime as dt
import random
import struct
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fake_vehicle import MODEL, Assigned, FakeVehicle, accept, now, numbers, read_numbers, say_nothing, until
from unruly_vehicle import Careful, Unruly, attempts

from agent.link import LinkOptions, Retry
from agent.protocol.messages import (
    BackendState,
    Datatype,
    EnergySource,
    Mode,
    Offline,
    OpenTask,
    Result,
    State,
    TaskState,
    Tensor,
    TensorParameters,
    Usage,
)
from agent.protocol.reasons import Reason
from fleet.broker import Broker, MosquittoBroker
from fleet.client import FleetClient, FleetClosed, OfferState, Patience, TaskFailed
from fleet.dispatcher import Dispatcher
from fleet.queue_file import QueueUnusable
from fleet.queue_records import Finished
from fleet.task_queue import QueueFailed, TaskQueue

PATIENCE = Patience(
    lease_margin_s=0.1, first_word_s=0.5, reboot_grace_s=0.1, retry_first_s=0.02, retry_cap_s=0.2
)
CPU = BackendState("cpu", "cpu0", ["onnx"], 60, None, usable=True)
ROWS = 4


@dataclass
class Clock:
    """The machine's, and what a test adds to it."""

    ahead_s: float = 0

    def __call__(self) -> int:
        return time.monotonic_ns() + int(self.ahead_s * 1e9)

    def utc_now(self) -> dt.datetime:
        return now() + dt.timedelta(seconds=self.ahead_s)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def port(iotcore: Broker) -> int:
    return iotcore.port


@pytest.fixture
async def cars(port: int) -> AsyncIterator[list[FakeVehicle]]:
    """veh-a, which is the first choice, and veh-b; both have said that they are ready."""
    async with AsyncExitStack() as stack:
        found = [await stack.enter_async_context(FakeVehicle(port, name)) for name in ("veh-a", "veh-b")]
        for car, budget_w in zip(found, (60, 50), strict=True):
            ready(car, budget_w=budget_w)
        yield found


def ready(car: FakeVehicle, **portrait: Any) -> None:
    car.portrait |= {"backends": [CPU], **portrait}
    car.publish_state()


def is_state(seq: int, state: State | Offline) -> bool:
    return isinstance(state, State) and state.seq == seq


@dataclass
class Application:
    """Has tasks done, and notes what it is given; it takes each answer at once unless told not to."""

    client: FleetClient
    dispatcher: Dispatcher
    clock: Clock
    takes: bool = True
    finished: list[Finished] = field(default_factory=list)

    async def add(self, task_id: str, rows: int = ROWS, **terms: Any) -> str:
        return await self.dispatcher.add(MODEL, [numbers(range(rows))], id=task_id, **terms)

    async def knows(self, *cars: FakeVehicle) -> None:
        """Wait until it has heard the state that each has published last."""
        for car in cars:
            seq = car.state_seq
            await self.client.vehicle(car.id, "BR").wait_for(partial(is_state, seq), within_s=20)

    async def accepted(self, car: FakeVehicle) -> None:
        """Wait until it has heard that this vehicle has a task."""
        vehicle = self.client.vehicle(car.id, "BR")
        await until(lambda: [one for one in vehicle.offers if one.state is OfferState.ACCEPTED], "it has one")

    def later(self, seconds: float) -> None:
        self.clock.ahead_s += seconds
        self.dispatcher.look()

    async def listen(self) -> None:
        async with aclosing(self.dispatcher.answers()) as answers:
            async for finished in answers:
                if self.takes:
                    await self.dispatcher.taken(finished.id)
                self.finished.append(finished)

    async def outcome(self, task_id: str) -> Finished:
        await until(lambda: any(one.id == task_id for one in self.finished), f"{task_id} ends")
        (finished,) = [one for one in self.finished if one.id == task_id]
        return finished

    async def values(self, task_id: str) -> list[int]:
        return read_numbers((await self.outcome(task_id)).answer().outputs["y"].data)

    async def failure(self, task_id: str) -> TaskFailed:
        failure = (await self.outcome(task_id)).failure
        assert failure is not None
        return failure


def client(port: int, clock: Clock, outstanding: int = 64, patience: Patience = PATIENCE) -> FleetClient:
    return FleetClient(
        LinkOptions(host="127.0.0.1", port=port, client_id="fleet-1"),
        patience=patience,
        retry=Retry(cap_s=0.1),
        clock=clock,
        utc_now=clock.utc_now,
        outstanding=outstanding,
        rng=random.Random(1),  # noqa: S311 - the same each time
    )


@asynccontextmanager
async def dispatching(
    port: int,
    queue: Path,
    clock: Clock,
    *,
    takes: bool = True,
    outstanding: int = 64,
    patience: Patience = PATIENCE,
) -> AsyncIterator[Application]:
    fleet = client(port, clock, outstanding, patience)
    async with Dispatcher(fleet, queue) as dispatcher:
        application = Application(fleet, dispatcher, clock, takes)
        listening = asyncio.create_task(application.listen())
        try:
            yield application
        finally:
            listening.cancel()
            await asyncio.wait([listening])


@pytest.fixture
def queue(tmp_path: Path) -> Path:
    return tmp_path / "queue.db"


@pytest.fixture
async def app(port: int, cars: list[FakeVehicle], queue: Path, clock: Clock) -> AsyncIterator[Application]:
    async with dispatching(port, queue, clock) as application:
        await application.knows(*cars)
        yield application


def refuse(
    code: Reason, state: TaskState = TaskState.REJECTED, resume_at: dt.datetime | None = None
) -> Callable[[FakeVehicle, Assigned], None]:
    return lambda car, got: car.say(got, state, code, "as told", resume_at)


# Who gets it


async def test_tasks_are_spread_and_every_row_is_answered(app: Application, cars: list[FakeVehicle]) -> None:
    await asyncio.gather(*(app.add(f"task-{n}") for n in range(60)))
    for n in range(60):
        assert await app.values(f"task-{n}") == [1, 2, 3, 4]
    assert all(len(attempts(car)) >= 10 for car in cars), "neither does nearly all of it"
    await until(lambda: sum(len(car.settled) for car in cars) >= 60, "all are confirmed")
    assert [car.cancelled for car in cars] == [[], []]
    assert app.dispatcher.pending == 0


async def test_the_vehicle_that_has_the_model_is_preferred(app: Application, cars: list[FakeVehicle]) -> None:
    ready(cars[1], models=[MODEL.sha256])
    await app.knows(*cars)
    await app.add("night-1")
    await app.values("night-1")
    assert [attempts(car) for car in cars] == [[], [("night-1", 1)]]


async def test_a_vehicle_gets_only_so_many_and_the_larger_priority_goes_first(
    port: int, cars: list[FakeVehicle], queue: Path, clock: Clock
) -> None:
    ready(cars[1], mode=Mode.BLOCKED)
    cars[0].on_task = accept
    async with dispatching(port, queue, clock, outstanding=2) as app:
        await app.knows(*cars)
        await app.add("first")
        await app.add("second")
        await cars[0].nth(2)
        await app.add("late")
        await app.add("urgent", priority=9)
        assert app.dispatcher.waiting == 2
        cars[0].give(cars[0].tasks[0], 0, ROWS, final=True)
        third = await cars[0].nth(3)
        assert third.task.id == "urgent"
        cars[0].give(third, 0, ROWS, final=True)
        assert (await cars[0].nth(4)).task.id == "late"


async def test_what_nobody_can_do_waits_for_a_vehicle_that_can_and_holds_up_nobody(
    app: Application, cars: list[FakeVehicle]
) -> None:
    await app.add("for-argentina", residency=["AR"], priority=100)
    await app.add("for-the-npu", backend="npu", priority=100)
    await app.add("plain")
    assert await app.values("plain") == [1, 2, 3, 4]
    assert app.dispatcher.waiting == 2
    ready(cars[0], region="AR")
    assert await app.values("for-argentina") == [1, 2, 3, 4]
    ready(cars[1], backends=[CPU, BackendState("npu", "npu0", ["onnx"], 9, None, usable=True)])
    assert await app.values("for-the-npu") == [1, 2, 3, 4]
    assert ("for-argentina", 1) in attempts(cars[0])
    assert ("for-the-npu", 1) in attempts(cars[1])


async def test_work_is_not_given_to_a_car_that_leaves_before_a_row_is_done(
    app: Application, cars: list[FakeVehicle]
) -> None:
    def slow(car: FakeVehicle, got: Assigned) -> None:
        app.clock.ahead_s += 100 * ROWS
        car.give_raw(*answer_of(got, wall_s=100 * ROWS))

    cars[0].on_task = cars[1].on_task = slow
    await app.add("measured", lease_s=6000, expires_s=60_000)
    await app.values("measured")
    for car in cars:
        ready(car, expected_s=99)
    await app.knows(*cars)
    await app.add("long", lease_s=6000, expires_s=60_000)
    assert app.dispatcher.waiting == 1
    ready(cars[1], expected_s=101)
    await app.values("long")
    assert ("long", 1) in attempts(cars[1])


async def test_a_vehicle_that_says_nonsense_keeps_no_model_from_the_others(
    app: Application, cars: list[FakeVehicle]
) -> None:
    cars[0].on_task = lambda car, got: car.give_raw(*answer_of(got, wall_s=1e12))
    cars[1].on_task = lambda car, got: car.give_raw(*answer_of(got, wall_s=-1e12))
    for car in cars:
        ready(car, expected_s=600)
    await app.knows(*cars)
    for n in range(8):
        await app.add(f"task-{n}")
        await app.values(f"task-{n}")


def answer_of(got: Assigned, *, wall_s: float) -> tuple[Result, bytes]:
    usage = Usage(wall_s, 0.1, None, EnergySource.NONE, None, "fake", "fake0")
    output = Tensor("y", Datatype.INT32, [ROWS, 1], TensorParameters(4 * ROWS))
    result = Result(got.task.id, got.task.attempt, "m", "1", (0, ROWS), True, [output], usage)
    return result, struct.pack("<4i", 1, 2, 3, 4)


async def test_while_nothing_changes_nothing_is_looked_at(
    app: Application, cars: list[FakeVehicle], iotcore: Broker
) -> None:
    for car in cars:
        ready(car, mode=Mode.BLOCKED)
    await app.knows(*cars)
    await app.add("night-1", expires_s=1000)
    assigner = app.dispatcher._assigner
    await until(lambda: not assigner._look.is_set(), "it has looked")
    assert 900 < (assigner._next_look_s() or 0) <= 1001, "until its deadline"
    iotcore.kill()
    await until(lambda: not app.client.status.up, "the broker is gone")
    assert assigner._next_look_s() is None
    iotcore.start()


# When a vehicle does not do it


async def test_when_a_lease_runs_out_the_missing_rows_go_elsewhere_and_late_ones_count_once(
    app: Application, cars: list[FakeVehicle]
) -> None:
    silent, other = cars
    silent.on_task = other.on_task = accept
    await app.add("night-1", rows=6, lease_s=60)
    first = await silent.nth(1)
    await app.accepted(silent)
    silent.give(first, 0, 2)
    await until(lambda: len(silent.settled) == 1, "two rows are safe")
    app.later(61)
    second = await other.nth(1)
    assert (second.task.attempt, second.task.rows) == (2, (2, 6))
    silent.give(first, 2, 4)  # late, and wanted
    await until(lambda: ("night-1", 1, 2, 4) in silent.settled, "they are confirmed")
    other.give(second, 2, 6, final=True)
    finished = await app.outcome("night-1")
    assert [(rows.begin, rows.end, rows.attempt) for rows in finished.rows] == [
        (0, 2, 1),
        (2, 4, 1),
        (4, 6, 2),
    ]
    assert await app.values("night-1") == [1, 2, 3, 4, 5, 6]
    await until(lambda: silent.cancelled == [("night-1", 1)], "the old vehicle is told to stop")
    silent.give(first, 4, 6, final=True)  # too late
    await until(lambda: ("night-1", 1, 4, 6) in silent.settled, "it is confirmed all the same")
    assert len(app.finished) == 1
    assert other.cancelled == []


async def test_late_rows_of_the_old_vehicle_can_end_it_and_the_new_one_is_called_off(
    app: Application, cars: list[FakeVehicle]
) -> None:
    silent, other = cars
    silent.on_task = other.on_task = accept
    await app.add("night-1", lease_s=60)
    first = await silent.nth(1)
    await app.accepted(silent)
    app.later(61)
    await other.nth(1)
    silent.give(first, 0, ROWS, final=True)
    assert await app.values("night-1") == [1, 2, 3, 4]
    await until(lambda: other.cancelled == [("night-1", 2)], "the new vehicle is told to stop")


@pytest.mark.parametrize(
    ("state", "code"),
    [
        (TaskState.RELEASED, Reason.OWNER_PRESENT),
        (TaskState.REJECTED, Reason.QUEUE_FULL),
        (TaskState.FAILED, Reason.BACKEND_CRASHED),
        (TaskState.EXPIRED, Reason.EXPIRED),
    ],
)
async def test_what_one_vehicle_gives_back_another_one_does(
    app: Application, cars: list[FakeVehicle], state: TaskState, code: Reason
) -> None:
    cars[0].on_task = refuse(code, state)
    await app.add("night-1")
    finished = await app.outcome("night-1")
    assert await app.values("night-1") == [1, 2, 3, 4]
    assert finished.attempts == 2
    assert [attempts(car) for car in cars] == [[("night-1", 1)], [("night-1", 2)]]
    assert cars[0].cancelled == [], "it has said itself that it does not do it"


async def test_a_full_vehicle_is_left_alone_until_the_time_that_it_names(
    app: Application, cars: list[FakeVehicle]
) -> None:
    full, other = cars
    full.on_task = refuse(Reason.QUEUE_FULL, resume_at=now() + dt.timedelta(seconds=60))
    for n in range(4):
        await app.add(f"task-{n}")
        await app.values(f"task-{n}")
    assert attempts(full) == [("task-0", 1)]
    assert len(attempts(other)) == 4
    full.on_task = FakeVehicle.answer
    app.later(61)
    await app.add("task-4")
    await app.values("task-4")
    assert attempts(full) == [("task-0", 1), ("task-4", 1)]


async def test_a_fleet_that_is_full_is_asked_again_when_it_said(
    app: Application, cars: list[FakeVehicle]
) -> None:
    resume_at = now() + dt.timedelta(seconds=3)
    for car in cars:
        car.on_task = refuse(Reason.QUEUE_FULL, resume_at=resume_at)
    await app.add("night-1")
    await until(lambda: all(car.tasks for car in cars), "both refuse")
    for car in cars:
        car.on_task = FakeVehicle.answer
    await app.values("night-1")
    assert now() >= resume_at
    assert sum(len(car.tasks) for car in cars) == 3


async def test_a_vehicle_that_names_a_day_in_the_far_future_is_asked_again_in_an_hour(
    app: Application, cars: list[FakeVehicle]
) -> None:
    for car in cars:
        car.on_task = refuse(Reason.OWNER_SCHEDULE, resume_at=now() + dt.timedelta(days=3650))
    await app.add("night-1", expires_s=10_000)
    await until(lambda: all(car.tasks for car in cars), "both refuse")
    await until(lambda: app.dispatcher.waiting == 1, "it waits")
    for car in cars:
        car.on_task = FakeVehicle.answer
    app.later(3601)
    assert await app.values("night-1") == [1, 2, 3, 4]


async def test_a_vehicle_that_is_away_for_longer_than_the_lease_loses_its_tasks(
    app: Application, cars: list[FakeVehicle]
) -> None:
    away, other = cars
    away.on_task = accept
    await app.add("night-1", lease_s=60)
    first = await away.nth(1)
    await app.accepted(away)
    away.publish_death(away.boot)
    await app.client.vehicle(away.id, "BR").wait_for(lambda state: not state.online, within_s=20)
    app.later(30)
    await app.add("night-2")
    await app.values("night-2")
    assert attempts(other) == [("night-2", 1)], "the lease of the first stands"
    app.later(40)
    assert await app.values("night-1") == [1, 2, 3, 4]
    assert attempts(other)[1:] == [("night-1", 2)]
    away.publish_state(OpenTask("night-1", 1, TaskState.RUNNING, 0))
    away.give(first, 0, ROWS, final=True)
    await until(lambda: away.settled == [("night-1", 1, 0, ROWS)], "what it did meanwhile is confirmed")
    await until(lambda: away.cancelled == [("night-1", 1)], "it has been told to stop")


async def test_a_vehicle_that_forgot_its_tasks_in_a_reboot_is_given_them_anew(
    app: Application, cars: list[FakeVehicle]
) -> None:
    ready(cars[1], mode=Mode.BLOCKED)
    await app.knows(*cars)
    cars[0].on_task = accept
    await app.add("night-1", lease_s=600)
    await cars[0].nth(1)
    cars[0].on_task = FakeVehicle.answer
    cars[0].reboot()
    assert await app.values("night-1") == [1, 2, 3, 4]
    assert attempts(cars[0]) == [("night-1", 1), ("night-1", 2)]


# Ends


async def test_a_failure_of_the_tasks_side_is_its_end_and_nobody_elses(
    app: Application, cars: list[FakeVehicle]
) -> None:
    def fail_half_way(car: FakeVehicle, got: Assigned) -> None:
        if got.task.id == "bad":
            car.give(got, 0, 2)
            car.say(got, TaskState.FAILED, Reason.LIMIT_RUNTIME, "ran 3 s")
        else:
            car.answer(got)

    for car in cars:
        car.on_task = fail_half_way
    await app.add("bad")
    await app.add("good")
    failure = await app.failure("bad")
    assert (failure.code, failure.text, failure.rows_done) == (150, "ran 3 s", 2)
    assert await app.values("good") == [1, 2, 3, 4]
    with pytest.raises(TaskFailed, match="150 limit_runtime: ran 3 s"):
        (await app.outcome("bad")).answer()
    assert sum(len(attempts(car)) for car in cars) == 2


async def test_a_task_that_crashes_every_car_is_stopped_and_the_others_go_on(
    app: Application, cars: list[FakeVehicle]
) -> None:
    def crash(car: FakeVehicle, got: Assigned) -> None:
        if got.task.id == "bomb":
            car.say(got, TaskState.FAILED, Reason.BACKEND_CRASHED, "signal 9")
        else:
            car.answer(got)

    for car in cars:
        car.on_task = crash
    await app.add("bomb", priority=100)
    for n in range(20):
        await app.add(f"task-{n}")
    for n in range(20):
        await app.values(f"task-{n}")
    failure = await app.failure("bomb")
    assert failure.code is Reason.INFERENCE_FAILED
    assert failure.text == (
        "3 attempts crashed, hung or ran out of memory; the last: 1021 backend_crashed: signal 9"
    )


async def test_what_may_be_the_tasks_own_fault_is_not_held_against_the_vehicle(
    port: int, cars: list[FakeVehicle], queue: Path, clock: Clock
) -> None:
    def crash(car: FakeVehicle, got: Assigned) -> None:
        if got.task.id == "bomb":
            car.say(got, TaskState.FAILED, Reason.BACKEND_HUNG)
        else:
            car.answer(got)

    for car in cars:
        car.on_task = crash
    slow = replace(PATIENCE, retry_first_s=10_000, retry_cap_s=10_000)
    async with dispatching(port, queue, clock, patience=slow) as app:
        await app.knows(*cars)
        await app.add("bomb", expires_s=100_000)
        await until(lambda: app.dispatcher.waiting == 1 and cars[0].tasks, "it has crashed the first")
        for n in range(8):
            await app.add(f"task-{n}")
            await app.values(f"task-{n}")
        assert len(attempts(cars[0])) > 1, "it is given others"
        assert app.dispatcher.pending == 1


async def test_a_deadline_ends_what_waits_and_what_is_under_way(
    app: Application, cars: list[FakeVehicle]
) -> None:
    for car in cars:
        car.on_task = say_nothing
    await app.add("nowhere", residency=["AR"], expires_s=100)
    await app.add("silent", expires_s=100, lease_s=600)
    await until(lambda: any(car.tasks for car in cars), "it is given to one")
    app.later(101)
    waiting, silent = await app.failure("nowhere"), await app.failure("silent")
    assert waiting.code is silent.code is Reason.EXPIRED
    assert "no vehicle has had it: give it more time (expires_s)" in waiting.text
    assert "no word from the vehicle" in silent.text
    await until(lambda: any(car.cancelled == [("silent", 1)] for car in cars), "the vehicle is told")


async def test_a_deadline_tells_who_gave_it_back_last(app: Application, cars: list[FakeVehicle]) -> None:
    later = now() + dt.timedelta(seconds=600)
    for car in cars:
        car.on_task = refuse(Reason.QUEUE_FULL, resume_at=later)
    await app.add("night-1", expires_s=100)
    await until(lambda: all(car.tasks for car in cars), "both refuse")
    await until(lambda: app.dispatcher.waiting == 1, "it waits")
    app.later(101)
    failure = await app.failure("night-1")
    assert "vehicle veh-b gave it back: 1030 queue_full: as told" in failure.text


async def test_the_application_can_call_a_task_off(app: Application, cars: list[FakeVehicle]) -> None:
    cars[0].on_task = accept
    await app.add("given")
    await app.add("waiting", residency=["AR"])
    await cars[0].nth(1)
    await app.dispatcher.cancel("given")
    await app.dispatcher.cancel("waiting")
    await app.dispatcher.cancel("never-heard-of")
    assert (await app.failure("given")).code is (await app.failure("waiting")).code is Reason.CANCELLED
    await until(lambda: cars[0].cancelled == [("given", 1)], "the vehicle is told")
    assert app.dispatcher.pending == 0


async def test_answers_that_do_not_belong_together_end_the_task(
    app: Application, cars: list[FakeVehicle]
) -> None:
    half = Tensor("y", Datatype.FP32, [2, 1], data=[1, 2])
    usage = Usage(0.1, 0.1, None, EnergySource.NONE, None, "fake", "fake0")

    def first_half(car: FakeVehicle, got: Assigned) -> None:
        car.give(got, 0, 2)
        car.say(got, TaskState.RELEASED, Reason.DRAINING)

    def other_half(car: FakeVehicle, got: Assigned) -> None:
        car.give_raw(Result(got.task.id, got.task.attempt, "m", "1", (2, 4), True, [half], usage))

    cars[0].on_task, cars[1].on_task = first_half, other_half
    await app.add("night-1")
    failure = await app.failure("night-1")
    assert failure.code is Reason.BAD_TENSOR
    assert "output 'y' of rows [2, 4) is not like that of [0, 2)" in failure.text
    assert failure.rows_done == 2


# What is safe, and when


async def test_a_result_is_confirmed_when_it_is_on_disk_and_not_before(
    app: Application, cars: list[FakeVehicle]
) -> None:
    cars[0].on_task = accept
    await app.add("night-1")
    task = await cars[0].nth(1)
    disk = threading.Event()
    slow = app.dispatcher._queue.run(lambda _: disk.wait(20))
    cars[0].give(task, 0, ROWS, final=True)
    offer = app.client.vehicle("veh-a", "BR").offers[0]
    await until(lambda: offer.ended, "the rows have arrived")
    await asyncio.sleep(10 * PATIENCE.settle_s)
    assert cars[0].settled == []
    disk.set()
    assert await slow
    await until(lambda: cars[0].settled == [("night-1", 1, 0, ROWS)], "it is confirmed")


async def test_a_disk_that_fails_confirms_nothing_and_ends_the_dispatcher(
    port: int, cars: list[FakeVehicle], queue: Path, clock: Clock
) -> None:
    cars[0].on_task = Careful(accept)

    async def dispatch() -> None:
        async with dispatching(port, queue, clock) as app:
            await app.knows(*cars)
            await app.add("night-1")
            task = await cars[0].nth(1)
            await app.dispatcher._queue.run(lambda ledger: ledger._execute("PRAGMA query_only = 1"))
            cars[0].give(task, 0, ROWS, final=True)
            with pytest.raises(QueueFailed):
                async for _ in app.dispatcher.answers():
                    pass

    with pytest.raises(QueueFailed, match="attempt to write a readonly database"):
        await dispatch()
    assert cars[0].settled == []
    async with dispatching(
        port, queue, clock
    ) as app:  # the broker has kept the result: nobody acknowledged it
        assert await app.values("night-1") == [1, 2, 3, 4]
    assert attempts(cars[0]) == [("night-1", 1)]


async def test_an_answer_is_handed_out_at_every_start_until_it_is_taken(
    port: int, cars: list[FakeVehicle], queue: Path, clock: Clock
) -> None:
    async with dispatching(port, queue, clock, takes=False) as app:
        await app.add("night-1")
        assert await app.values("night-1") == [1, 2, 3, 4]
        assert app.dispatcher.pending == 1
    async with dispatching(port, queue, clock) as app:
        assert await app.values("night-1") == [1, 2, 3, 4]
        await app.dispatcher.taken("night-1")  # a second time, which changes nothing
        assert app.dispatcher.pending == 0
    async with dispatching(port, queue, clock) as app:
        assert app.dispatcher.pending == 0
        assert await app.add("night-1") == "night-1", "it is known still"
        assert app.dispatcher.pending == 0
    assert len(attempts(cars[0]) + attempts(cars[1])) == 1


async def test_an_attempt_that_is_under_way_is_taken_up_again_and_not_repeated(
    port: int, cars: list[FakeVehicle], queue: Path, clock: Clock
) -> None:
    cars[0].on_task = Careful(accept)
    async with dispatching(port, queue, clock) as app:
        await app.knows(*cars)
        await app.add("night-1", rows=6, lease_s=600)
        task = await cars[0].nth(1)
        cars[0].give(task, 0, 2)
        await until(lambda: cars[0].settled, "two rows are safe")
    async with dispatching(port, queue, clock) as app:
        again = await cars[0].nth(2)
        assert again.payload == task.payload
        cars[0].give(task, 2, 6, final=True)
        assert await app.values("night-1") == [1, 2, 3, 4, 5, 6]
        assert (await app.outcome("night-1")).attempts == 1
    assert cars[1].tasks == []


async def test_what_a_vehicle_says_while_no_dispatcher_runs_is_not_lost(
    port: int, cars: list[FakeVehicle], queue: Path, clock: Clock
) -> None:
    cars[0].on_task = Careful(accept)
    ready(cars[1], mode=Mode.BLOCKED)
    async with dispatching(port, queue, clock) as app:
        await app.knows(*cars)
        await app.add("done-meanwhile", lease_s=600)
        await app.add("refused-meanwhile", lease_s=600)
        done, refused = await cars[0].nth(1), await cars[0].nth(2)
    cars[0].give(done, 0, ROWS, final=True)
    cars[0].say(refused, TaskState.RELEASED, Reason.OWNER_PRESENT)
    async with dispatching(port, queue, clock) as app:
        for car in cars:
            ready(car, mode=Mode.READY)  # iotcore repeats no retained state to a session that is resumed
        assert await app.values("done-meanwhile") == [1, 2, 3, 4]
        assert await app.values("refused-meanwhile") == [1, 2, 3, 4]
    assert attempts(cars[1]) == [("refused-meanwhile", 2)]


async def test_after_a_restart_a_task_goes_elsewhere_with_the_next_attempt(
    port: int, cars: list[FakeVehicle], queue: Path, clock: Clock
) -> None:
    cars[0].on_task = Careful(accept)
    async with dispatching(port, queue, clock) as app:
        await app.knows(*cars)
        await app.add("night-1", lease_s=60)
        first = await cars[0].nth(1)
        await app.accepted(cars[0])
    async with dispatching(port, queue, clock) as app:
        for car in cars:
            car.publish_state()  # as above
        await app.knows(*cars)
        await app.accepted(cars[0])
        app.later(61)
        assert await app.values("night-1") == [1, 2, 3, 4]
        assert attempts(cars[1]) == [("night-1", 2)]
        await until(lambda: cars[0].cancelled == [("night-1", 1)], "the first vehicle is told to stop")
        cars[0].give(first, 0, ROWS, final=True)
        await until(lambda: cars[0].settled == [("night-1", 1, 0, ROWS)], "its rows are dropped")


async def test_who_could_not_be_told_to_stop_is_told_at_the_next_start(
    port: int, cars: list[FakeVehicle], queue: Path, clock: Clock
) -> None:
    cars[0].on_task = accept
    async with dispatching(port, queue, clock) as app:
        await app.knows(*cars)
        await app.add("night-1")
        await cars[0].nth(1)
    async with TaskQueue.open(queue) as opened:  # killed between the end and the word of it
        await opened.run(lambda ledger: ledger.end("night-1", Reason.CANCELLED, "by the fleet", 0))
    async with dispatching(port, queue, clock) as app:
        await until(lambda: cars[0].cancelled == [("night-1", 1)], "the vehicle is told")
        assert (await app.failure("night-1")).code is Reason.CANCELLED


async def test_the_same_work_under_the_same_id_is_one_task(app: Application, cars: list[FakeVehicle]) -> None:
    for car in cars:
        car.on_task = accept
    assert await app.add("night-1") == await app.add("night-1")
    assert app.dispatcher.pending == 1
    with pytest.raises(ValueError, match="task night-1: other work has been queued under this id"):
        await app.add("night-1", rows=5)
    nameless = await app.dispatcher.add(MODEL, [numbers(range(2))])
    assert len(nameless) == 26


async def test_what_no_vehicle_would_take_is_refused_at_once(app: Application) -> None:
    with pytest.raises(TaskFailed, match="102 bad_tensor: rows"):
        await app.dispatcher.add(MODEL, [numbers(range(4))], rows=(2, 9))
    with pytest.raises(TaskFailed, match=r"101 too_large: the task has \d+ bytes, a message holds 131072"):
        await app.add("night-1", rows=40_000)
    with pytest.raises(TaskFailed, match="100 malformed"):
        await app.dispatcher.add(MODEL, [numbers(range(2))], id="no/id")
    assert app.dispatcher.pending == 0


async def test_a_queue_has_one_dispatcher_and_a_client_one_beginning(
    port: int, queue: Path, clock: Clock
) -> None:
    async with dispatching(port, queue, clock):
        with pytest.raises(QueueUnusable, match="in use by process"):
            await Dispatcher(client(port, clock), queue).__aenter__()
    async with client(port, clock) as entered:
        with pytest.raises(RuntimeError, match="the fleet client runs already"):
            await Dispatcher(entered, queue).__aenter__()
    async with Dispatcher(client(port, clock), queue) as dispatcher:
        answers = dispatcher.answers()
        waiting = asyncio.ensure_future(anext(answers))
    with pytest.raises(FleetClosed, match="the dispatcher was left"):
        await waiting


async def test_a_vehicle_that_the_broker_forbids_is_passed_over(
    mosquitto: type[MosquittoBroker], tmp_path: Path, clock: Clock
) -> None:
    acl = tmp_path / "acl"
    acl.write_text("topic read #\ntopic write fleet/v1/br/+/state\ntopic readwrite fleet/v1/br/veh-b/#\n")
    acl.chmod(0o600)
    with mosquitto(extra=(f"acl_file {acl}",)) as broker:
        async with FakeVehicle(broker.port, "veh-a") as a, FakeVehicle(broker.port, "veh-b") as b:
            ready(a)
            ready(b, budget_w=50)
            async with dispatching(broker.port, tmp_path / "queue.db", clock) as app:
                await app.knows(a, b)
                await app.add("night-1")
                assert await app.values("night-1") == [1, 2, 3, 4]
                assert (attempts(a), attempts(b)) == ([], [("night-1", 2)])


async def test_a_broker_that_dies_in_the_middle_costs_nothing(
    broker: Broker, queue: Path, clock: Clock
) -> None:
    async with AsyncExitStack() as stack:
        cars = [await stack.enter_async_context(FakeVehicle(broker.port, f"veh-{n}")) for n in range(3)]
        for car in cars:
            ready(car)
        app = await stack.enter_async_context(dispatching(broker.port, queue, clock, outstanding=16))
        await asyncio.gather(*(app.add(f"task-{n}", lease_s=0.5) for n in range(300)))
        await until(lambda: sum(len(car.settled) for car in cars) > 50, "work is under way")
        broker.kill()
        broker.start()
        for n in range(300):
            assert await app.values(f"task-{n}") == [1, 2, 3, 4]
    assert len(app.finished) == 300


@pytest.mark.parametrize("seed", range(3))
async def test_unruly_vehicles_get_every_row_in_once(
    broker: Broker, queue: Path, clock: Clock, seed: int
) -> None:
    chance = random.Random(seed)  # noqa: S311 - the same each time
    async with AsyncExitStack() as stack:
        cars = [
            await stack.enter_async_context(FakeVehicle(broker.port, f"veh-{n}", on_task=Unruly(chance)))
            for n in range(3)
        ]
        for car in cars:
            ready(car)
        app = await stack.enter_async_context(dispatching(broker.port, queue, clock, outstanding=8))
        for n in range(100):
            await app.add(f"task-{n}", lease_s=0.3)
        for n in range(100):
            finished = await app.outcome(f"task-{n}")
            assert read_numbers(finished.answer().outputs["y"].data) == [1, 2, 3, 4]
            ends = [rows.end for rows in finished.rows]
            assert [rows.begin for rows in finished.rows] == [0, *ends[:-1]]
    assert len(app.finished) == 100
    assert sum(len(car.tasks) for car in cars) > 100, "nothing was ever offered again: the test shows nothing"
