"""What goes wrong between a fleet and a vehicle, and that every row is still answered exactly once."""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import pytest
from fake_vehicle import MODEL, Assigned, FakeVehicle, accept, numbers, read_numbers, say_nothing, until
from unruly_vehicle import Unruly

from agent.link import LinkOptions, PublishRefused, Retry
from agent.protocol.messages import OpenTask, State, TaskState
from agent.protocol.reasons import Reason
from fleet.broker import Broker, MosquittoBroker
from fleet.client import FleetClient, Offer, Patience, Rows, TaskFailed, Vehicle

PATIENCE = Patience(lease_margin_s=0.1, first_word_s=0.5, reboot_grace_s=0.1, retry_first_s=0.02)
TASKS = 150
ROWS = 6


@dataclass
class Clock:
    """The machine's, and what a test adds to it."""

    ahead_ns: int = 0

    def __call__(self) -> int:
        return time.monotonic_ns() + self.ahead_ns

    def advance(self, seconds: float) -> None:
        self.ahead_ns += int(seconds * 1e9)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def car(broker: Broker) -> AsyncIterator[FakeVehicle]:
    async with FakeVehicle(broker.port, on_task=accept) as vehicle:
        yield vehicle


def client(port: int, clock: Clock, patience: Patience = PATIENCE) -> FleetClient:
    options = LinkOptions(host="127.0.0.1", port=port, client_id="fleet-1")
    return FleetClient(options, patience=patience, retry=Retry(cap_s=0.1), clock=clock)


@pytest.fixture
async def vehicle(car: FakeVehicle, clock: Clock) -> AsyncIterator[Vehicle]:
    async with client(car.port, clock) as fleet:
        await fleet.until_up(20)
        yield fleet.vehicle("veh-0001", "BR")


async def accepted(offer: Offer) -> None:
    await until(lambda: offer.state.value == "accepted", f"{offer.id} is accepted")


async def test_when_the_lease_runs_out_only_the_missing_rows_are_offered_again(
    car: FakeVehicle, vehicle: Vehicle, clock: Clock
) -> None:
    offer = vehicle.offer(MODEL, [numbers(range(6))], lease_s=60)
    first = await car.nth(1)
    car.give(first, 0, 2)
    car.give(first, 5, 6)
    await until(lambda: offer.rows_done == 3, "three rows are there")
    clock.advance(61)
    second = await car.nth(2)
    assert (second.task.id, second.task.attempt, second.task.rows) == (offer.id, 2, (2, 5))
    assert second.task.expires_at == first.task.expires_at
    car.answer(second)
    answer = await offer.answer()
    assert read_numbers(answer.outputs["y"].data) == [1, 2, 3, 4, 5, 6]
    assert answer.attempts == 2


async def test_every_word_of_the_task_renews_its_lease(
    car: FakeVehicle, vehicle: Vehicle, clock: Clock
) -> None:
    talkative = vehicle.offer(MODEL, [numbers(range(2))], id="talkative", lease_s=60)
    silent = vehicle.offer(MODEL, [numbers(range(2))], id="silent", lease_s=60)
    first = await car.nth(1)
    await accepted(silent)
    clock.advance(40)
    car.say(first, TaskState.RUNNING)
    await until(lambda: talkative.state.value == "running", "it is running")
    clock.advance(40)
    third = await car.nth(3)
    assert (third.task.id, third.task.attempt) == ("silent", 2)
    car.give(first, 0, 1)
    await until(lambda: talkative.rows_done == 1, "a row is there")
    await accepted(vehicle.offer(MODEL, [numbers(range(2))], id="impatient", lease_s=30))
    clock.advance(40)
    fifth = await car.nth(5)
    assert (fifth.task.id, fifth.task.attempt) == ("impatient", 2)
    car.give(first, 1, 2, final=True)
    assert (await talkative.answer()).attempts == 1


async def test_rows_of_an_old_attempt_count_and_the_new_one_is_called_off(
    car: FakeVehicle, vehicle: Vehicle, clock: Clock
) -> None:
    offer = vehicle.offer(MODEL, [numbers(range(4))], id="night-1", lease_s=60)
    first = await car.nth(1)
    await accepted(offer)
    clock.advance(61)
    second = await car.nth(2)
    car.say(first, TaskState.EXPIRED, Reason.EXPIRED)  # news of the old attempt, which change nothing
    car.give(first, 0, 4, final=True)
    answer = await offer.answer()
    assert read_numbers(answer.outputs["y"].data) == [1, 2, 3, 4]
    await until(lambda: car.cancelled == [("night-1", 2)], "the second attempt is called off")
    car.give(second, 0, 4, final=True)
    expected = [("night-1", 1, 0, 4), ("night-1", 2, 0, 4)]
    await until(lambda: car.settled == expected, "both are confirmed")
    assert len(car.tasks) == 2


async def test_rows_of_an_attempt_that_was_never_made_are_not_taken(
    car: FakeVehicle, vehicle: Vehicle
) -> None:
    offer = vehicle.offer(MODEL, [numbers(range(4))], id="night-1", attempt=3)
    first = await car.nth(1)
    for number in (2, 4):
        foreign = msgspec.structs.replace(first.task, attempt=number)
        car.give(Assigned(foreign, first.tail, first.payload), 0, 4, final=True)
    await until(lambda: len(car.settled) == 2, "both are confirmed")
    assert offer.rows_done == 0


async def test_a_task_that_a_rebooted_vehicle_does_not_know_is_offered_again_at_once(
    car: FakeVehicle, vehicle: Vehicle, clock: Clock
) -> None:
    kept = vehicle.offer(MODEL, [numbers(range(2))], id="kept", lease_s=60)
    lost = vehicle.offer(MODEL, [numbers(range(2))], id="lost", lease_s=60)
    first = await car.nth(1)
    await accepted(kept)
    await accepted(lost)
    car.boot += 1
    car.publish_state(OpenTask("kept", 1, TaskState.ACCEPTED, 0))
    third = await car.nth(3)
    assert (third.task.id, third.task.attempt) == ("lost", 2)
    car.answer(third)
    await lost.answer()
    car.publish_state()  # the result is on its way: the task is not open any more
    await vehicle.wait_for(lambda state: isinstance(state, State) and not state.open, within_s=20)
    assert kept.due_ns > clock() + 30e9, "this boot has known it: its lease stands"
    car.give(first, 0, 2, final=True)
    assert (await lost.answer()).attempts == 2
    assert (await kept.answer()).attempts == 1


async def test_results_that_follow_the_state_of_a_new_boot_are_waited_for(
    broker: Broker, car: FakeVehicle, clock: Clock
) -> None:
    options = LinkOptions(host="127.0.0.1", port=broker.port, client_id="fleet-1")
    async with FleetClient(options, patience=Patience(reboot_grace_s=30), clock=clock) as fleet:
        vehicle = fleet.vehicle("veh-0001", "BR")
        offer = vehicle.offer(MODEL, [numbers(range(2))])
        first = await car.nth(1)
        await accepted(offer)
        car.reboot()
        await vehicle.wait_for(lambda state: state.boot == car.boot, within_s=20)
        await accepted(vehicle.offer(MODEL, [numbers(range(2))], id="impatient", lease_s=10))
        clock.advance(20)
        third = await car.nth(3)
        assert (third.task.id, third.task.attempt) == ("impatient", 2)
        car.give(first, 0, 2, final=True)  # from its outbox
        assert (await offer.answer()).attempts == 1


async def test_a_vehicle_that_is_away_is_not_flooded_with_attempts(
    car: FakeVehicle, vehicle: Vehicle, clock: Clock
) -> None:
    car.publish_state()
    heard = vehicle.offer(MODEL, [numbers(range(2))], lease_s=1)
    await accepted(heard)
    car.publish_death(car.boot)
    await vehicle.wait_for(lambda state: not state.online, within_s=20)
    for _ in range(3):
        clock.advance(2)
        await until(lambda: heard.attempt.overdue, "the lease has run out")
    assert len(car.tasks) == 1
    car.on_task = FakeVehicle.answer
    car.publish_state()
    assert (await heard.answer()).attempts == 2


async def test_a_task_that_waits_at_the_broker_for_a_vehicle_is_not_doubled(
    broker: Broker, clock: Clock
) -> None:
    async with FakeVehicle(broker.port) as car:  # its session stays at the broker
        car.publish_state()
        car.publish_death(car.boot)
        await until(lambda: car.link.up, "it has a session")
    async with client(broker.port, clock) as fleet:
        vehicle = fleet.vehicle("veh-0001", "BR")
        await vehicle.wait_for(lambda state: not state.online, within_s=20)
        offer = vehicle.offer(MODEL, [numbers(range(2))], lease_s=60)
        clock.advance(61)
        await until(lambda: offer.attempt.overdue, "the lease has run out")
        async with FakeVehicle(broker.port, on_task=say_nothing) as car:
            task = await car.nth(1)
            car.publish_state()
            await vehicle.wait_for(lambda state: state.online, within_s=20)
            assert offer.due_ns > clock() + 30e9, "it has a whole lease again"
            car.answer(task)
            assert (await offer.answer()).attempts == 1
            assert len(car.tasks) == 1


async def test_a_vehicle_that_says_nothing_is_asked_until_the_deadline(
    car: FakeVehicle, vehicle: Vehicle, clock: Clock
) -> None:
    car.on_task = say_nothing
    offer = vehicle.offer(MODEL, [numbers(range(2))], lease_s=60, expires_s=150)
    for attempt in (1, 2, 3):
        assert (await car.nth(attempt)).task.attempt == attempt
        clock.advance(61)
    with pytest.raises(TaskFailed, match=r"110 expired: 0 of 2 rows by .*, no word from the vehicle"):
        await offer.answer()
    assert len(car.tasks) == 3


async def test_a_deadline_tells_the_last_word(car: FakeVehicle, vehicle: Vehicle, clock: Clock) -> None:
    car.on_task = lambda car, got: car.say(got, TaskState.REJECTED, Reason.OWNER_PRESENT, "door open")
    offer = vehicle.offer(MODEL, [numbers(range(2))], expires_s=150)
    await car.nth(2)
    clock.advance(152)
    with pytest.raises(TaskFailed, match=r"the last word was rejected \(1001 owner_present: door open\)"):
        await offer.answer()


async def test_while_our_own_link_is_down_nothing_is_concluded(
    broker: Broker, car: FakeVehicle, clock: Clock
) -> None:
    async with client(broker.port, clock, replace(PATIENCE, lease_margin_s=10)) as fleet:
        await fleet.until_up(20)
        vehicle = fleet.vehicle("veh-0001", "BR")
        accepted_one = vehicle.offer(MODEL, [numbers(range(2))], id="accepted", lease_s=1, expires_s=10)
        first = await car.nth(1)
        await accepted(accepted_one)
        broker.kill()
        await until(lambda: not car.link.up and not fleet.status.up, "the broker is gone")
        clock.advance(100)
        unsent = vehicle.offer(MODEL, [numbers(range(2))], id="unsent")
        broker.start()
        for task in (first, await car.nth(2)):
            car.give(task, 0, 2, final=True)
        assert (await accepted_one.answer()).attempts == 1
        assert (await unsent.answer()).attempts == 1
        expected = {("accepted", 1, 0, 2), ("unsent", 1, 0, 2)}
        await until(lambda: set(car.settled) == expected, "both are confirmed")


async def test_a_cancel_survives_a_broken_link(mosquitto: type[MosquittoBroker], clock: Clock) -> None:
    with mosquitto(persistent=True) as broker:
        async with FakeVehicle(broker.port, on_task=accept) as car, client(broker.port, clock) as fleet:
            offer = fleet.vehicle("veh-0001", "BR").offer(MODEL, [numbers(range(2))], id="night-1")
            await accepted(offer)
            broker.stop()
            offer.cancel()
            broker.start()
            await until(lambda: car.cancelled == [("night-1", 1)], "the vehicle is told")


async def test_a_broker_that_dies_in_the_middle_costs_nothing(broker: Broker, clock: Clock) -> None:
    async with FakeVehicle(broker.port) as car, client(broker.port, clock) as fleet:
        vehicle = fleet.vehicle("veh-0001", "BR")
        answers = [
            asyncio.create_task(vehicle.submit(MODEL, [numbers(range(n, n + 4))], lease_s=0.5))
            for n in range(600)
        ]
        await until(lambda: len(car.settled) > 50, "work is under way")
        broker.kill()
        broker.start()
        for number, answer in enumerate(answers):
            values = read_numbers((await answer).outputs["y"].data)
            assert values == list(range(number + 1, number + 5))


async def test_a_broker_that_forbids_it_is_named(mosquitto: type[MosquittoBroker], tmp_path: Path) -> None:
    acl = tmp_path / "acl"
    acl.write_text("topic read #\n")
    acl.chmod(0o600)
    with mosquitto(extra=(f"acl_file {acl}",)) as broker:
        async with client(broker.port, Clock()) as fleet:
            with pytest.raises(PublishRefused, match="fleet/v1/br/veh-0001/task: Not authorized"):
                await fleet.vehicle("veh-0001", "BR").submit(MODEL, [numbers(range(2))])


@pytest.mark.parametrize("seed", range(3))
async def test_an_unruly_vehicle_gets_every_row_in_once(broker: Broker, clock: Clock, seed: int) -> None:
    async def read(offer: Offer) -> list[Rows]:
        return [rows async for rows in offer]

    unruly = Unruly(random.Random(seed))  # noqa: S311 - the same each time
    async with FakeVehicle(broker.port, on_task=unruly) as car, client(broker.port, clock) as fleet:
        vehicle = fleet.vehicle("veh-0001", "BR")
        offers = [vehicle.offer(MODEL, [numbers(range(n, n + ROWS))], lease_s=0.2) for n in range(TASKS)]
        streams = await asyncio.gather(*(read(offer) for offer in offers))
        for number, stream in enumerate(streams):
            pieces = sorted(stream, key=lambda rows: rows.begin)
            assert [rows.begin for rows in pieces] == [0, *(rows.end for rows in pieces[:-1])]
            values = [value for rows in pieces for value in read_numbers(rows.outputs["y"].data)]
            assert values == list(range(number + 1, number + 1 + ROWS))
        assert len(car.tasks) > TASKS, "nothing was ever offered again: the test shows nothing"


async def test_a_task_for_a_vehicle_that_the_broker_has_never_seen_waits_for_its_first_word(
    broker: Broker, clock: Clock
) -> None:
    """A broker keeps nothing for a client without a session: the publish succeeds and is lost."""
    async with client(broker.port, clock) as fleet:
        await fleet.until_up(20)
        offer = fleet.vehicle("veh-0001", "BR").offer(MODEL, [numbers(range(2))])
        await until(lambda: offer.attempt.reached_broker, "the broker has the task")
        async with FakeVehicle(broker.port) as car:
            car.publish_state()
            answer = await asyncio.wait_for(offer.answer(), 20)
    assert read_numbers(answer.outputs["y"].data) == [1, 2]
    assert answer.attempts == 1
