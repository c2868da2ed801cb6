"""The broker that deploy/mosquitto describes: who gets in, and what a vehicle can do there."""

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest
from agents import agent, write_config
from link_probe import Probe, at_once, eventually, running
from shipped_broker import DEPLOY, Premises, ShippedBroker, credentials, over_tls
from wire_fleet import NULL_SHA256

from agent.broker import HEADROOM_BYTES
from agent.link import Link, LinkDown, LinkOptions, PublishRefused, Will
from agent.protocol.messages import Datatype, ModelFormat, ModelRef
from agent.protocol.topics import Topics
from agent.settings import MqttSettings
from benchmarks.certificates import Authority
from fleet.client import Answer, FleetClient, Input

NOT_AUTHORIZED = 0x87
OWN = Topics("fleet/v1", "BR", "veh-1")
OTHERS = Topics("fleet/v1", "BR", "veh-2")
INCOMING = ("task", "control")
OUTGOING = ("state", "event", "result")


async def refused(link: Link, topic: str, *, retain: bool = False) -> bool:
    try:
        await link.publish(topic, b"mine", retain=retain)
    except PublishRefused as answer:
        return answer.code == NOT_AUTHORIZED
    return False


# What a vehicle may do


async def test_a_vehicle_publishes_on_its_own_three_topics_and_nowhere_else(
    premises: Premises, shipped: ShippedBroker
) -> None:
    link = Probe().link(shipped.port, client_id="veh-1", **premises.vehicle("veh-1"))
    allowed = [f"{OWN.base}/{name}" for name in OUTGOING]
    forbidden = [f"{OTHERS.base}/{name}" for name in (*OUTGOING, *INCOMING)]
    forbidden += [f"{OWN.base}/{name}" for name in (*INCOMING, "other", "state/more")]
    forbidden += ["fleet/v1/veh-1/state", "fleet/v2/br/veh-1/state", "veh-1", OWN.base, "$SYS/broker/uptime"]
    async with running(link):
        await eventually(lambda: link.up)
        assert [topic for topic in allowed if await refused(link, topic)] == []
        assert [topic for topic in forbidden if not await refused(link, topic)] == []


SPYING = [
    "#",
    "+/+/+/+/+",
    "fleet/#",
    "fleet/v1/+/+/task",
    "fleet/v1/br/veh-2/#",
    OTHERS.task,
    OTHERS.control,
    OTHERS.state,
    OTHERS.event,
    OTHERS.result,
    "$share/spies/fleet/v1/+/+/task",
    "$share/spies/fleet/v1/br/veh-2/result",
    "$SYS/#",
]


@pytest.mark.parametrize("subscription", SPYING)
async def test_a_vehicle_hears_nothing_of_another_whatever_it_subscribes_to(
    premises: Premises, shipped: ShippedBroker, subscription: str
) -> None:
    victim = Probe(acknowledge=True)
    spy = Probe(acknowledge=True)
    own = Probe().link(shipped.port, client_id="veh-2", subscriptions=(), **premises.vehicle("veh-2"))
    backend = victim.link(
        shipped.backend_port,
        client_id="backend",
        subscriptions=("fleet/v1/+/+/result",),
        **premises.backend(),
    )
    spying = spy.link(
        shipped.port,
        client_id="veh-1",
        subscriptions=(subscription, OWN.task),
        want_retained=True,
        **premises.vehicle("veh-1"),
    )
    async with running(own, backend):
        await eventually(lambda: own.up and backend.up)
        await own.publish(OTHERS.state, b"retained", retain=True)
        async with running(spying):
            await eventually(lambda: spying.up)
            await asyncio.gather(*[own.publish(f"{OTHERS.base}/{name}", b"secret") for name in OUTGOING])
            await asyncio.gather(*[backend.publish(f"{OTHERS.base}/{name}", b"secret") for name in INCOMING])
            await backend.publish(OWN.task, b"for the spy itself")
            await eventually(lambda: b"for the spy itself" in spy.payloads)
            await eventually(lambda: victim.payloads == [b"secret"])
    assert set(spy.payloads) == {b"for the spy itself"}


async def test_no_certificate_of_another_vehicle_takes_over_a_session(
    premises: Premises, shipped: ShippedBroker
) -> None:
    """The client id is the certificate's name, whatever the thief says that it is."""
    victim, thief = Probe(acknowledge=True), Probe(acknowledge=True)
    own = victim.link(shipped.port, client_id="veh-1", subscriptions=(OWN.task,), **premises.vehicle("veh-1"))
    stolen = thief.link(
        shipped.port, client_id="veh-1", subscriptions=(OWN.task,), **premises.vehicle("veh-2")
    )
    backend = Probe().link(shipped.backend_port, client_id="b", subscriptions=(), **premises.backend())
    async with running(own, stolen, backend):
        await eventually(lambda: own.up and stolen.up and backend.up)
        await backend.publish(OWN.task, b"for veh-1")
        await eventually(lambda: victim.payloads == [b"for veh-1"])
        assert await refused(stolen, OWN.state, retain=True)
        assert not await refused(stolen, OTHERS.state)
        assert victim.downs == []
        assert thief.payloads == []


@pytest.mark.parametrize("common", ["+", "#", "veh-1/+"])
async def test_a_certificate_whose_name_is_a_wildcard_opens_nothing(
    premises: Premises, shipped: ShippedBroker, common: str
) -> None:
    probe = Probe(acknowledge=True)
    terms = premises.vehicle("odd", common=common)
    link = probe.link(
        shipped.port, client_id="veh-1", subscriptions=(OWN.task, "fleet/#"), retry=at_once(), **terms
    )
    own = Probe().link(shipped.port, client_id="veh-1", subscriptions=(), **premises.vehicle("veh-1"))
    async with running(link, own):
        await eventually(lambda: own.up)
        await own.publish(OWN.state, b"retained", retain=True)
        await eventually(lambda: link.up or link.status.error)
        if link.up:
            assert await refused(link, OWN.state)
    assert probe.payloads == []


async def test_a_will_on_the_topic_of_another_vehicle_is_not_published(
    premises: Premises, shipped: ShippedBroker
) -> None:
    heard = Probe(acknowledge=True)
    backend = heard.link(
        shipped.backend_port, client_id="b", subscriptions=("fleet/v1/+/+/state",), **premises.backend()
    )
    will = Will(topic=OTHERS.state, payload=b"dead", delay_s=0)
    liar = Probe().link(shipped.port, client_id="veh-1", will=will, **premises.vehicle("veh-1"))
    honest_will = Will(topic=OWN.state, payload=b"gone", delay_s=0)
    honest = Probe().link(shipped.port, client_id="veh-1", will=honest_will, **premises.vehicle("veh-1"))
    async with running(backend):
        await eventually(lambda: backend.up)
        async with running(liar):
            await eventually(lambda: liar.up or liar.status.error)
        async with running(honest):
            await eventually(lambda: honest.up)
        await eventually(lambda: heard.payloads)
        assert heard.payloads == [b"gone"]


# Who gets in


def rogue(premises: Premises, tmp_path: Path) -> dict[str, Any]:
    return credentials(premises.vehicles, Authority(tmp_path, "vehicles-ca"), "veh-1")


def expired(premises: Premises, _: Path) -> dict[str, Any]:
    return premises.vehicle("veh-1", days=(-2.0, -1.0))


def not_yet_valid(premises: Premises, _: Path) -> dict[str, Any]:
    return premises.vehicle("veh-1", days=(1.0, 2.0))


def missing(premises: Premises, _: Path) -> dict[str, Any]:
    return {"ca_file": premises.vehicles.path}


def of_a_backend(premises: Premises, _: Path) -> dict[str, Any]:
    return premises.backend()


def unencrypted(_: Premises, __: Path) -> dict[str, Any]:
    return {}


@pytest.mark.parametrize("certificate", [rogue, expired, not_yet_valid, missing, of_a_backend, unencrypted])
async def test_no_vehicle_gets_in_without_a_good_certificate(
    tmp_path: Path, premises: Premises, shipped: ShippedBroker, certificate: Any
) -> None:
    probe = Probe()
    link = probe.link(shipped.port, client_id="veh-1", answer_s=2.0, **certificate(premises, tmp_path))
    async with running(link):
        await eventually(lambda: link.status.error)
        with pytest.raises(LinkDown):
            link.publish(OWN.state, b"here I am")
    assert probe.ups == []


@pytest.mark.parametrize("name", ["veh-1", "fleet-backend"])
async def test_a_certificate_for_vehicles_is_worth_nothing_where_backends_connect(
    premises: Premises, shipped: ShippedBroker, name: str
) -> None:
    probe = Probe()
    link = probe.link(shipped.backend_port, client_id="x", **premises.vehicle(name))
    async with running(link):
        await eventually(lambda: link.status.error)
    assert probe.ups == []


async def test_a_backend_cannot_speak_for_a_vehicle_and_a_stranger_cannot_speak_at_all(
    premises: Premises, shipped: ShippedBroker
) -> None:
    backend = Probe().link(shipped.backend_port, client_id="a", **premises.backend())
    stranger = Probe().link(shipped.backend_port, client_id="b", **premises.backend("somebody"))
    async with running(backend, stranger):
        await eventually(lambda: backend.up and stranger.up)
        for name in OUTGOING:
            assert await refused(backend, f"{OWN.base}/{name}")
        for name in INCOMING:
            assert not await refused(backend, f"{OWN.base}/{name}")
            assert await refused(stranger, f"{OWN.base}/{name}")


# Agent and fleet


def fleet_client(premises: Premises, shipped: ShippedBroker) -> FleetClient:
    options = LinkOptions(
        host="127.0.0.1", port=shipped.backend_port, client_id="fleet", **premises.backend()
    )
    return FleetClient(options)


def told(answer: Answer) -> bytes:
    (output,) = answer.outputs.values()
    return bytes(output.data)


NULL = ModelRef("null", "1", NULL_SHA256, ModelFormat.ONNX)


async def test_agent_and_fleet_work_through_it_also_when_the_broker_restarts_while_the_car_sleeps(
    tmp_path: Path, premises: Premises, shipped: ShippedBroker
) -> None:
    config = over_tls(write_config(tmp_path, shipped.port), premises.vehicle("veh-1"))
    rows = Input("x", Datatype.UINT8, [4, 2], bytes(range(8)))
    async with fleet_client(premises, shipped) as fleet:
        car = fleet.vehicle("veh-1", "BR")
        async with agent(config):
            answer = await car.submit(NULL, [rows])
            assert told(answer) == bytes(range(8))
        waiting = asyncio.ensure_future(car.submit(NULL, [rows]))
        await asyncio.to_thread(shipped.stop)
        shipped.start()
        async with agent(config):
            assert told(await waiting) == bytes(range(8))


async def test_an_agent_that_may_not_publish_says_so_once_for_each_topic(
    tmp_path: Path, premises: Premises, shipped: ShippedBroker, caplog: pytest.LogCaptureFixture
) -> None:
    """The certificate belongs to another car than vehicle.id says."""
    caplog.set_level(logging.INFO)
    config = over_tls(write_config(tmp_path, shipped.port), premises.vehicle("veh-9"))
    async with agent(config) as car:
        for _ in range(3):
            answer = car.service.reports.state()
            assert answer is not None
            await asyncio.wait([answer])
    warnings = [
        record.getMessage()
        for record in caplog.records
        if record.levelno == logging.WARNING and record.name == "agent.reports"
    ]
    (warning,) = warnings
    assert warning.startswith(
        f"the broker refused a message on {OWN.state}: Not authorized (0x87); let this vehicle"
    )


def test_the_packet_limit_of_the_example_is_that_of_the_agent() -> None:
    limit = MqttSettings().max_payload_bytes + HEADROOM_BYTES
    assert f"\nmax_packet_size {limit}\n" in (DEPLOY / "parkwatt.conf").read_text()
