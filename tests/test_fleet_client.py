"""The fleet's side of a task: every row once, every result confirmed, whatever the vehicle does."""

import asyncio
import datetime as dt
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from fake_vehicle import (
    MODEL,
    Assigned,
    FakeVehicle,
    accept,
    now,
    numbers,
    read_numbers,
    say_nothing,
    until,
    vehicles,
)

from agent.link import LinkOptions, Retry
from agent.protocol import jws
from agent.protocol.keys import load_private_key, load_public_key, write_key_pair
from agent.protocol.messages import (
    Datatype,
    EnergySource,
    Limits,
    Mode,
    ModelRef,
    Result,
    State,
    TaskState,
    Tensor,
    Usage,
)
from agent.protocol.reasons import Reason
from fleet.broker import Broker
from fleet.client import (
    BrokerUnreachableError,
    FleetClient,
    FleetClosed,
    Input,
    OfferState,
    Patience,
    TaskFailed,
)

PATIENCE = Patience(lease_margin_s=0.1, reboot_grace_s=0.1, retry_first_s=0.02)
USAGE = Usage(0.1, 0.1, None, EnergySource.NONE, None, "fake", "fake0")


def client(port: int, **options: object) -> FleetClient:
    terms = {"patience": PATIENCE, "retry": Retry(cap_s=0.1), **options}
    return FleetClient(LinkOptions(host="127.0.0.1", port=port, client_id="fleet-1"), **terms)  # type: ignore[arg-type]  # options by name


@pytest.fixture
async def car(broker: Broker) -> AsyncIterator[FakeVehicle]:
    async with FakeVehicle(broker.port) as vehicle:
        yield vehicle


@pytest.fixture
async def fleet(car: FakeVehicle) -> AsyncIterator[FleetClient]:
    async with client(car.port) as connected:
        await connected.until_up(20)
        yield connected


async def failure(fleet: FleetClient, **terms: object) -> TaskFailed:
    with pytest.raises(TaskFailed) as caught:
        await fleet.vehicle("veh-0001", "BR").submit(MODEL, [numbers(range(4))], **terms)  # type: ignore[arg-type]  # terms by name
    return caught.value


async def test_every_row_comes_back_in_order_with_its_cost(fleet: FleetClient, car: FakeVehicle) -> None:
    def answer_backwards(car: FakeVehicle, task: Assigned) -> None:
        car.say(task, TaskState.ACCEPTED)
        car.give(task, 4, 8)
        car.give(task, 0, 4, final=True)

    car.on_task = answer_backwards
    answer = await fleet.vehicle("veh-0001", "BR").submit(MODEL, [numbers(range(8))])
    output = answer.outputs["y"]
    assert (output.datatype, output.row_shape) == (Datatype.INT32, (1,))
    assert read_numbers(output.data) == list(range(1, 9))
    assert (answer.rows, answer.attempts) == (8, 1)
    assert answer.energy_j == {EnergySource.MODEL: 16.0}
    assert answer.device_s == pytest.approx(0.08)
    assert [event.state for event in answer.events] == [TaskState.ACCEPTED]


async def test_a_stream_brings_each_row_as_it_is_done_and_only_once(
    fleet: FleetClient, car: FakeVehicle
) -> None:
    car.on_task = accept
    offer = fleet.vehicle("veh-0001", "BR").offer(MODEL, [numbers(range(4))])
    stream = aiter(offer)
    task = await car.nth(1)
    car.give(task, 0, 2)
    first = await anext(stream)
    assert (first.begin, first.end, offer.rows_done, offer.state) == (0, 2, 2, OfferState.ACCEPTED)
    car.give(task, 0, 2)  # a result that is repeated
    car.give(task, 2, 4, final=True)
    assert [(rows.begin, rows.end) async for rows in stream] == [(2, 4)]
    assert [(rows.begin, rows.end) async for rows in offer] == [(0, 2), (2, 4)]
    assert offer.state is OfferState.DONE
    assert read_numbers((await offer.answer()).outputs["y"].data) == [1, 2, 3, 4]


async def test_the_task_that_arrives_is_the_one_that_was_asked_for(
    fleet: FleetClient, car: FakeVehicle
) -> None:
    scale = Input("scale", Datatype.FP32, [2], bytes(8), shared=True)
    await fleet.vehicle("veh-0001", "BR").submit(
        MODEL,
        [numbers(range(4)), scale],
        id="night-1",
        attempt=7,
        lease_s=30,
        expires_s=90,
        outputs=["y"],
        rows=(1, 3),
        priority=5,
        limits=Limits(runtime_s=2),
        residency=["BR", "AR"],
        backend="cpu",
        parameters={"traceparent": "00-1"},
    )
    task = (await car.nth(1)).task
    assert (task.id, task.attempt, task.audience, task.rows) == ("night-1", 7, "veh-0001", (1, 3))
    assert (task.lease_s, task.priority, task.backend, task.residency) == (30, 5, "cpu", ["BR", "AR"])
    assert (task.limits.runtime_s, task.parameters) == (2, {"traceparent": "00-1"})
    assert [output.name for output in task.outputs] == ["y"]
    assert [tensor.parameters.shared for tensor in task.inputs] == [False, True]
    assert round((task.expires_at - task.issued_at).total_seconds()) == 90
    assert abs(now() - task.issued_at) < dt.timedelta(seconds=60)


async def test_every_result_is_confirmed_also_those_that_nobody_wants(
    fleet: FleetClient, car: FakeVehicle
) -> None:
    def answer_twice(car: FakeVehicle, task: Assigned) -> None:
        car.give(task, 0, 4, final=True)
        car.give(task, 1, 3)

    car.on_task = answer_twice
    await fleet.vehicle("veh-0001", "BR").submit(MODEL, [numbers(range(4))], id="night-1")
    foreign = Result("of-somebody-else", 3, "m", "1", (5, 9), False, [], USAGE)
    car.give_raw(foreign)
    expected = {("night-1", 1, 0, 4), ("night-1", 1, 1, 3), ("of-somebody-else", 3, 5, 9)}
    await until(lambda: set(car.settled) == expected, "all three are confirmed")


async def test_results_of_one_moment_share_a_confirmation(car: FakeVehicle) -> None:
    async with client(car.port, patience=Patience(settle_s=0.5)) as fleet:
        await fleet.until_up(20)
        offers = [fleet.vehicle("veh-0001", "BR").offer(MODEL, [numbers(range(1))]) for _ in range(40)]
        await asyncio.gather(*(offer.answer() for offer in offers))
        await until(lambda: len(car.settled) == 40, "all are confirmed")
    assert len(car.controls) <= 4


async def test_a_confirmation_never_exceeds_the_vehicles_message_size(car: FakeVehicle) -> None:
    options = LinkOptions(host="127.0.0.1", port=car.port, client_id="fleet-1", max_packet_bytes=4096 + 2048)
    async with FleetClient(options, patience=Patience(settle_s=0.5)) as fleet:
        await fleet.until_up(20)
        for number in range(100):
            car.give_raw(Result(f"{number:064}", 1, "m", "1", (0, 1), False, [], USAGE))
        await until(lambda: len(car.settled) == 100, "all are confirmed")
    assert len(set(car.settled)) == 100
    assert len(car.controls) >= 5


async def test_what_the_fleet_says_is_signed(broker: Broker, tmp_path: Path) -> None:
    public, private = write_key_pair(tmp_path, "fleet-2026")
    verifier = jws.Verifier({"fleet-2026": load_public_key(public)})
    car = FakeVehicle(broker.port, verifier=verifier)
    signed = client(broker.port, key=load_private_key(private), kid="fleet-2026")
    async with car, signed as fleet:
        await fleet.vehicle("veh-0001", "BR").submit(MODEL, [numbers(range(4))])
        await until(lambda: car.settled, "the result is confirmed")
    assert car.signed_by == {"fleet-2026"}


async def test_two_vehicles_work_side_by_side(broker: Broker) -> None:
    async with vehicles(broker.port, "veh-a", "veh-b") as cars, client(broker.port) as fleet:
        starts = [(one, start) for one in ("veh-a", "veh-b") for start in range(0, 400, 4)]
        answers = await asyncio.gather(
            *(
                fleet.vehicle(one, "BR").submit(MODEL, [numbers(range(start, start + 4))])
                for one, start in starts
            )
        )
        for (_, start), answer in zip(starts, answers, strict=True):
            assert read_numbers(answer.outputs["y"].data) == list(range(start + 1, start + 5))
        assert [len(car.tasks) for car in cars] == [100, 100]
        await until(lambda: all(len(car.settled) == 100 for car in cars), "all are confirmed")


async def test_a_vehicle_is_given_only_so_many_tasks_at_a_time(car: FakeVehicle) -> None:
    car.on_task = accept
    async with client(car.port, outstanding=3) as fleet:
        offers = [fleet.vehicle("veh-0001", "BR").offer(MODEL, [numbers(range(1))]) for _ in range(8)]
        third = await car.nth(3)
        assert [offer.state for offer in offers[3:]] == [OfferState.WAITING] * 5
        assert len(car.tasks) == 3
        car.give(third, 0, 1, final=True)
        await car.nth(4)
        offers[4].cancel()
        assert offers[4].state is OfferState.CANCELLED
        car.on_task = FakeVehicle.answer
        for task in [*car.tasks[:2], car.tasks[3]]:
            car.give(task, 0, 1, final=True)
        kept = [offer for offer in offers if offer is not offers[4]]
        await asyncio.gather(*(offer.answer() for offer in kept))
        assert len(car.tasks) == 7
        assert not car.cancelled, "a task that never left needs no cancel"


async def test_a_rejection_of_the_tasks_side_is_the_end(fleet: FleetClient, car: FakeVehicle) -> None:
    car.on_task = lambda car, got: car.say(got, TaskState.REJECTED, Reason.RESIDENCY, "not here")
    failed = await failure(fleet)
    assert (failed.code, failed.name, failed.text, failed.rows_done) == (113, "residency", "not here", 0)
    assert len(car.tasks) == 1


async def test_a_failure_tells_its_code_and_the_rows_before_it_are_delivered(
    fleet: FleetClient, car: FakeVehicle
) -> None:
    def fail_half_way(car: FakeVehicle, task: Assigned) -> None:
        car.give(task, 0, 2)
        car.say(task, TaskState.FAILED, Reason.LIMIT_RUNTIME, "ran 3 s")

    car.on_task = fail_half_way
    offer = fleet.vehicle("veh-0001", "BR").offer(MODEL, [numbers(range(4))])
    stream = aiter(offer)
    assert (await anext(stream)).end == 2
    with pytest.raises(TaskFailed, match="150 limit_runtime: ran 3 s") as caught:
        await anext(stream)
    assert caught.value.rows_done == 2
    assert offer.state is OfferState.FAILED


@pytest.mark.parametrize(
    ("state", "code"),
    [
        (TaskState.REJECTED, Reason.QUEUE_FULL),
        (TaskState.RELEASED, Reason.DRAINING),
        (TaskState.FAILED, Reason.BACKEND_CRASHED),
        (TaskState.EXPIRED, Reason.EXPIRED),
    ],
)
async def test_what_is_not_the_tasks_fault_is_tried_again(
    fleet: FleetClient, car: FakeVehicle, state: TaskState, code: Reason
) -> None:
    def refuse_twice(car: FakeVehicle, task: Assigned) -> None:
        if task.task.attempt < 3:
            car.say(task, state, code)
        else:
            car.answer(task)

    car.on_task = refuse_twice
    answer = await fleet.vehicle("veh-0001", "BR").submit(MODEL, [numbers(range(4))])
    assert [got.task.attempt for got in car.tasks] == [1, 2, 3]
    assert answer.attempts == 3
    assert [event.state for event in answer.events] == [state, state, TaskState.ACCEPTED]


async def test_a_vehicle_is_not_asked_again_before_the_time_it_named(
    fleet: FleetClient, car: FakeVehicle
) -> None:
    resume_at = now() + dt.timedelta(seconds=0.4)

    def full_for_a_while(car: FakeVehicle, task: Assigned) -> None:
        if len(car.tasks) == 1:
            car.say(task, TaskState.REJECTED, Reason.QUEUE_FULL, resume_at=resume_at)
        else:
            car.answer(task)

    car.on_task = full_for_a_while
    await fleet.vehicle("veh-0001", "BR").submit(MODEL, [numbers(range(4))])
    assert car.tasks[1].task.issued_at >= resume_at


async def test_a_task_given_back_half_done_is_offered_again_for_the_rest(
    fleet: FleetClient, car: FakeVehicle
) -> None:
    def release_half_way(car: FakeVehicle, task: Assigned) -> None:
        if task.task.attempt == 1:
            car.give(task, 0, 1)
            car.give(task, 3, 4)
            car.say(task, TaskState.RELEASED, Reason.OWNER_PRESENT)
        else:
            car.answer(task)

    car.on_task = release_half_way
    answer = await fleet.vehicle("veh-0001", "BR").submit(MODEL, [numbers(range(6))], id="night-1")
    assert [got.task.rows for got in car.tasks] == [None, (1, 6)]
    assert read_numbers(answer.outputs["y"].data) == [1, 2, 3, 4, 5, 6]
    # the second attempt did row 3 again: it is confirmed, and its cost is not that of an accepted row
    assert answer.energy_j == {EnergySource.MODEL: pytest.approx(12.0)}
    await until(lambda: ("night-1", 2, 1, 6) in car.settled, "the overlapping result is confirmed")


async def test_cancelling_ends_it_here_and_at_the_vehicle(fleet: FleetClient, car: FakeVehicle) -> None:
    car.on_task = accept
    offer = fleet.vehicle("veh-0001", "BR").offer(MODEL, [numbers(range(4))], id="night-1")
    task = await car.nth(1)
    offer.cancel()
    with pytest.raises(TaskFailed, match="152 cancelled"):
        await offer.answer()
    await until(lambda: car.cancelled == [("night-1", 1)], "the vehicle is told")
    car.give(task, 0, 4, final=True)
    await until(lambda: car.settled == [("night-1", 1, 0, 4)], "rows that come too late are confirmed")
    assert offer.rows_done == 0
    offer.cancel()
    assert offer.state is OfferState.CANCELLED


async def test_a_submit_that_is_given_up_is_cancelled(fleet: FleetClient, car: FakeVehicle) -> None:
    car.on_task = say_nothing
    waiting = asyncio.create_task(
        fleet.vehicle("veh-0001", "BR").submit(MODEL, [numbers(range(4))], id="night-1")
    )
    await car.nth(1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await until(lambda: car.cancelled == [("night-1", 1)], "the vehicle is told")


async def test_a_finished_task_is_not_cancelled(fleet: FleetClient, car: FakeVehicle) -> None:
    await fleet.vehicle("veh-0001", "BR").submit(MODEL, [numbers(range(4))])
    await until(lambda: car.settled, "the result is confirmed")
    assert car.cancelled == []


@pytest.mark.parametrize(
    ("result", "match"),
    [
        (lambda task: Result(task, 1, "m", "1", (0, 5), True, [], USAGE), "were not asked for"),
        (
            lambda task: Result(
                task, 1, "m", "1", (0, 4), True, [Tensor("y", Datatype.INT32, [3], data=[1, 2, 3])], USAGE
            ),
            "in a result of 4 rows",
        ),
        (
            lambda task: Result(
                task, 1, "m", "1", (0, 1), True, [Tensor("z", Datatype.INT32, [1], data=[1])], USAGE
            ),
            "is not like that of",
        ),
    ],
)
async def test_an_impossible_result_fails_its_task_alone(
    fleet: FleetClient, car: FakeVehicle, result: Callable[[str], Result], match: str
) -> None:
    def answer(car: FakeVehicle, task: Assigned) -> None:
        if task.task.id == "bad":
            car.give(task, 3, 4)
            car.give_raw(result("bad"))
        else:
            car.answer(task)

    car.on_task = answer
    vehicle = fleet.vehicle("veh-0001", "BR")
    good = vehicle.offer(MODEL, [numbers(range(4))])
    bad = await failure(fleet, id="bad")
    assert (bad.code, bad.rows_done) == (102, 1)
    assert match in bad.text
    assert (await good.answer()).rows == 4
    await until(lambda: len(car.settled) == 3, "also the impossible result is confirmed")


@pytest.mark.parametrize("kind", ["state", "event", "result"])
async def test_garbage_from_a_vehicle_harms_nothing(
    fleet: FleetClient, car: FakeVehicle, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    car.publish_bytes(f"{car.topics.base}/{kind}", b'{"id": ')
    answer = await fleet.vehicle("veh-0001", "BR").submit(MODEL, [numbers(range(4))])
    assert answer.rows == 4
    assert f"refused a message on {car.topics.base}/{kind}: 100 malformed" in caplog.text


async def test_inputs_that_no_vehicle_would_take_are_refused_here(
    fleet: FleetClient, car: FakeVehicle
) -> None:
    vehicle = fleet.vehicle("veh-0001", "BR")
    short = Input("x", Datatype.INT32, [4, 1], bytes(12))
    with pytest.raises(TaskFailed, match=r"102 bad_tensor.*12 is not the 16 bytes"):
        await vehicle.submit(MODEL, [short])
    with pytest.raises(TaskFailed, match="102 bad_tensor"):
        vehicle.offer(MODEL, [numbers(range(4)), Input("z", Datatype.INT8, [3], bytes(3))])
    with pytest.raises(TaskFailed, match="100 malformed"):
        await vehicle.submit(ModelRef("m", "1", "not a hash", MODEL.format), [numbers(range(4))])
    with pytest.raises(TaskFailed, match=r"101 too_large.*send fewer rows"):
        await vehicle.submit(MODEL, [numbers(range(40_000))])
    with pytest.raises(TaskFailed, match="102 bad_tensor"):
        await vehicle.submit(MODEL, [numbers(range(4))], rows=(2, 9))
    assert car.tasks == []


async def test_an_id_is_open_only_once(fleet: FleetClient, car: FakeVehicle) -> None:
    car.on_task = say_nothing
    vehicle = fleet.vehicle("veh-0001", "BR")
    vehicle.offer(MODEL, [numbers(range(4))], id="night-1")
    with pytest.raises(ValueError, match="night-1 is open already"):
        vehicle.offer(MODEL, [numbers(range(4))], id="night-1")


async def test_ids_sort_by_the_time_they_were_made(car: FakeVehicle) -> None:
    clock = iter(now() + dt.timedelta(milliseconds=number) for number in range(1_000))
    rng = random.Random(7)  # noqa: S311 - the same each time
    async with client(car.port, utc_now=lambda: next(clock), rng=rng) as fleet:
        offers = [fleet.vehicle("veh-0001", "BR").offer(MODEL, [numbers(range(1))]) for _ in range(5)]
        ids = [offer.id for offer in offers]
        await asyncio.gather(*(offer.answer() for offer in offers))
    assert ids == sorted(ids)
    assert {len(one) for one in ids} == {26}


async def test_the_state_of_a_vehicle_can_be_waited_for(fleet: FleetClient, car: FakeVehicle) -> None:
    vehicle = fleet.vehicle("veh-0001", "BR-SP")
    with pytest.raises(TimeoutError, match="veh-0001 published nothing within"):
        await vehicle.wait_for(lambda state: state.online, within_s=0.05)
    waiting = asyncio.create_task(
        vehicle.wait_for(lambda state: isinstance(state, State) and state.mode is Mode.WORKING, within_s=20)
    )
    car.publish_state(mode=Mode.READY)
    car.publish_state(mode=Mode.WORKING)
    seen = await waiting
    assert seen is vehicle.state
    with pytest.raises(TimeoutError, match="veh-0001 last published State"):
        await vehicle.wait_for(lambda state: not state.online, within_s=0.05)


async def test_the_retained_state_is_there_after_the_start(car: FakeVehicle) -> None:
    car.publish_state()
    async with client(car.port) as fleet:
        state = await fleet.vehicle("veh-0001", "BR").wait_for(lambda state: state.online, within_s=20)
    assert state.boot == 1


async def test_the_death_of_another_boot_is_ignored(fleet: FleetClient, car: FakeVehicle) -> None:
    vehicle = fleet.vehicle("veh-0001", "BR")
    car.boot = 2
    car.publish_state()
    car.publish_death(boot=1)
    car.publish_state(mode=Mode.WORKING)
    seen: list[bool] = []

    def online(state: object) -> bool:
        seen.append(bool(getattr(state, "online", None)))
        return getattr(state, "mode", None) is Mode.WORKING

    await vehicle.wait_for(online, within_s=20)
    assert all(seen)
    car.publish_death(boot=2)
    await vehicle.wait_for(lambda state: not state.online, within_s=20)


async def test_a_client_for_some_vehicles_hears_no_others(broker: Broker) -> None:
    async with vehicles(broker.port, "veh-a", "veh-b") as (ours, other):
        async with client(broker.port, vehicles=[("veh-a", "BR")]) as fleet:
            await fleet.until_up(20)
            other.publish_state()
            other.give_raw(Result("theirs", 1, "m", "1", (0, 1), False, [], USAGE))
            ours.publish_state()
            vehicle = fleet.vehicle("veh-a", "BR")
            await vehicle.wait_for(lambda state: state.online, within_s=20)
            assert list(fleet.vehicles.values()) == [vehicle]
        assert other.controls == []


async def test_closing_ends_what_is_open_here_and_leaves_it_to_the_vehicle(car: FakeVehicle) -> None:
    car.on_task = say_nothing
    async with client(car.port) as fleet:
        offer = fleet.vehicle("veh-0001", "BR").offer(MODEL, [numbers(range(4))])
        await car.nth(1)
    with pytest.raises(FleetClosed):
        await offer.answer()
    assert car.cancelled == []


async def test_what_came_while_no_client_was_there_is_confirmed_by_the_next(car: FakeVehicle) -> None:
    car.on_task = say_nothing
    async with client(car.port) as fleet:
        fleet.vehicle("veh-0001", "BR").offer(MODEL, [numbers(range(4))], id="night-1")
        task = await car.nth(1)
    car.give(task, 0, 4, final=True)
    async with client(car.port):
        await until(lambda: car.settled == [("night-1", 1, 0, 4)], "the next client confirms it")


async def test_without_a_broker_the_reason_is_told() -> None:
    async with client(1) as fleet:
        with pytest.raises(BrokerUnreachableError, match=r"no connection to 127\.0\.0\.1:1"):
            await fleet.until_up(0.2)
