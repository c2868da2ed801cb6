"""What roads, radios and brokers do to the link between a car and its fleet: every row is answered once all the same."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiomqtt
import pytest
from agents import RunningAgent, agent, write_config
from fault_proxy import FaultProxy, Way
from link_probe import at_once
from wire_fleet import NULL_SHA256, WITHIN_S

from agent.link import LinkOptions
from agent.protocol.messages import Datatype, ModelFormat, ModelRef, TaskState
from fleet.broker import Broker
from fleet.client import Answer, FleetClient, Input, Offer, Patience

NULL = ModelRef("null", "1", NULL_SHA256, ModelFormat.ONNX)
QUICK = Patience(
    lease_margin_s=0.3, reboot_grace_s=0.5, first_word_s=0.3, retry_first_s=0.05, retry_cap_s=1.0
)
ROWS = 4
SLOW_US = 60_000
CAR_KEEPALIVE_S = 5
"""The shortest that the settings take."""


@dataclass
class Road:
    """A car and a fleet, with a proxy on each one's way to the broker."""

    car: RunningAgent
    fleet: FleetClient
    car_link: FaultProxy
    fleet_link: FaultProxy

    def link_of(self, who: str) -> FaultProxy:
        return self.car_link if who == "car" else self.fleet_link

    def offer(self, tasks: int, rows: int = ROWS, lease_s: float = 60.0) -> list[Offer]:
        vehicle = self.fleet.vehicle("veh-1", "BR")
        return [vehicle.offer(NULL, [numbered(number, rows)], lease_s=lease_s) for number in range(tasks)]

    async def until_up(self) -> None:
        await self.car.until(lambda: self.car.service.link.up and self.fleet.status.up, "both links")


def numbered(number: int, rows: int) -> Input:
    """Rows that tell of which task and which row they are."""
    return Input("x", Datatype.UINT8, [rows, 2], bytes(byte for row in range(rows) for byte in (number, row)))


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def answered(offers: list[Offer]) -> list[Answer]:
    """Every answer, right in every row."""
    answers = []
    for number, offer in enumerate(offers):
        async with asyncio.timeout(WITHIN_S):
            answers.append(await offer.answer())
        assert answers[-1].outputs["x"].data == numbered(number, answers[-1].rows).data
        pieces = sorted(offer.delivery.pieces, key=lambda piece: piece.begin)
        assert [piece.begin for piece in pieces] == [0, *(piece.end for piece in pieces[:-1])]
    return answers


@asynccontextmanager
async def road(
    folder: Path,
    broker: Broker,
    *,
    run_us: int = 0,
    keepalive_s: int = 30,
) -> AsyncIterator[Road]:
    async with FaultProxy(broker.port) as car_link, FaultProxy(broker.port) as fleet_link:
        config = write_config(folder, car_link.port, run_us=run_us)
        config.write_text(
            config.read_text().replace("[mqtt]\n", f"[mqtt]\nkeepalive_s = {CAR_KEEPALIVE_S}\n")
        )
        options = LinkOptions(
            host="127.0.0.1", port=fleet_link.port, client_id="backend-1", keepalive_s=keepalive_s
        )
        async with (
            FleetClient(options, patience=QUICK, retry=at_once()) as fleet,
            agent(config) as car,
        ):
            car.service.link._retry = at_once()
            await fleet.until_up(WITHIN_S)
            yield Road(car, fleet, car_link, fleet_link)


# The road


@pytest.mark.parametrize("way", Way)
@pytest.mark.parametrize("who", ["car", "fleet"])
async def test_a_reset_in_the_middle_of_a_packet_costs_no_row(
    tmp_path: Path, broker: Broker, who: str, way: Way
) -> None:
    async with road(tmp_path, broker) as present:
        for nbytes in (1, 3, 60, 400, 2_000):
            present.link_of(who).cut_after(nbytes, way)
            answers = await answered(present.offer(8))
            assert [answer.attempts for answer in answers] == [1] * 8
            assert not present.link_of(who).cut_is_due(way)
        await present.until_up()
        await present.car.until_settled()


async def test_twenty_lost_connections_leave_no_descriptor(tmp_path: Path, broker: Broker) -> None:
    async with road(tmp_path, broker) as present:
        await answered(present.offer(1))
        before = descriptors()
        for _ in range(20):
            present.car_link.cut()
            present.fleet_link.cut()
            await answered(present.offer(1))
        await present.until_up()
        await present.car.until(lambda: descriptors() == before, f"{before} descriptors")


@pytest.mark.parametrize(
    "ways", [(Way.UP,), (Way.DOWN,), (Way.UP, Way.DOWN)], ids=["what it says", "what it is told", "both"]
)
async def test_a_fleet_whose_connection_is_half_open_misses_no_row(
    tmp_path: Path, iotcore: Broker, ways: tuple[Way, ...]
) -> None:
    async with road(tmp_path, iotcore, run_us=SLOW_US, keepalive_s=1) as present:
        offers = present.offer(6)
        await present.car.until_rows(2)
        present.fleet_link.strand(*ways)
        await answered(offers)
        await present.car.until_settled()


async def test_a_car_whose_connection_is_half_open_gives_it_up_and_loses_no_row(
    tmp_path: Path, iotcore: Broker
) -> None:
    async with road(tmp_path, iotcore, run_us=SLOW_US) as present:
        offers = present.offer(6)
        await present.car.until_rows(2)
        present.car_link.strand()
        answers = await answered(offers)
        assert "no answer to a ping" in present.car.service.link.status.error
        assert [answer.attempts for answer in answers] == [1] * 6
        await present.car.until_settled()


async def test_a_road_that_takes_its_time_costs_only_time(tmp_path: Path, iotcore: Broker) -> None:
    async with road(tmp_path, iotcore) as present:
        present.car_link.delay_s = present.fleet_link.delay_s = 0.1
        answers = await answered(present.offer(30))
        assert [answer.attempts for answer in answers] == [1] * 30
        await present.car.until_settled()


async def test_a_car_cut_off_for_longer_than_a_lease_stops_and_the_rest_is_offered_again(
    tmp_path: Path, broker: Broker
) -> None:
    async with road(tmp_path, broker, run_us=SLOW_US) as present:
        (offer,) = offers = present.offer(1, rows=60, lease_s=1.0)
        await present.car.until_rows(2)
        present.car_link.hold()
        await present.car.until(lambda: not present.car.service.executor.jobs, "it has stopped the work")
        await present.car.until(lambda: offer.attempt.number > 1, "it is offered again")
        await present.car_link.heal()
        (answer,) = await answered(offers)
        assert TaskState.EXPIRED in [event.state for event in answer.events]
        await present.car.until_settled()


async def test_a_car_that_boots_without_a_network_finds_the_work_that_waits_for_it(
    tmp_path: Path, iotcore: Broker
) -> None:
    async with FaultProxy(iotcore.port) as car_link:
        car_link.refuse()
        config = write_config(tmp_path, car_link.port)
        options = LinkOptions(host="127.0.0.1", port=iotcore.port, client_id="backend-1")
        async with FleetClient(options, patience=QUICK) as fleet:
            offer = fleet.vehicle("veh-1", "BR").offer(NULL, [numbered(0, ROWS)])
            async with agent(config, wait_for_link=False) as car:
                await car.until(lambda: "no connection" in car.service.link.status.error, "a first attempt")
                await car_link.heal()
                await answered([offer])


# The session


async def steal_the_session(port: int, *, tasks: int) -> None:
    """Be the car for a moment: take its messages, acknowledge them, and leave nothing behind."""
    async with aiomqtt.Client(
        "127.0.0.1", port, identifier="veh-1", protocol=aiomqtt.ProtocolVersion.V5, clean_start=False
    ) as twin:
        messages = aiter(twin.messages)
        for _ in range(tasks):
            async with asyncio.timeout(WITHIN_S):
                await anext(messages)


async def test_work_that_a_twin_has_taken_from_the_car_is_offered_again(
    tmp_path: Path, broker: Broker
) -> None:
    async with road(tmp_path, broker) as present:
        present.car_link.refuse()
        await present.car.until(lambda: not present.car.service.link.up, "it is cut off")
        offers = present.offer(5, lease_s=1.0)
        await steal_the_session(broker.port, tasks=5)
        await present.car_link.heal()
        await answered(offers)
        await present.car.until_settled()


async def test_a_twin_that_throws_the_car_out_is_outlived(tmp_path: Path, broker: Broker) -> None:
    async with road(tmp_path, broker, run_us=SLOW_US) as present:
        offers = present.offer(6, lease_s=3.0)
        await present.car.until_rows(2)
        await steal_the_session(broker.port, tasks=0)
        await answered(offers)
        assert present.car.service.link.status.connects > 1
        await present.car.until_settled()
