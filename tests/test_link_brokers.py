"""The link with real brokers: what a session keeps when we or the broker are killed."""

import asyncio
import os
import sys
import time
from pathlib import Path

import pytest
from link_probe import Probe, eventually, running

from agent.link import Hints, Link, LinkDown, PublishRefused, Will
from fleet.broker import Broker, MosquittoBroker

KILOBYTE = bytes(1024)


async def published(link: Link, topic: str, *payloads: bytes, retain: bool = False) -> None:
    await asyncio.gather(*[link.publish(topic, payload, retain=retain) for payload in payloads])


def fleet_link(broker: Broker) -> Link:
    return Probe().link(broker.port, client_id="fleet", subscriptions=())


async def test_work_that_was_delivered_and_not_finished_comes_again_after_a_kill(broker: Broker) -> None:
    tasks = [b"%d" % n for n in range(20)]
    fleet, before, after = fleet_link(broker), Probe(), Probe(acknowledge=True)
    async with running(fleet):
        agent = before.link(broker.port)
        async with running(agent):
            await eventually(lambda: agent.up and fleet.up)
            await published(fleet, "fleet/task", *tasks)
            await eventually(lambda: len(before.messages) == 20)
            for message in before.messages[:5]:
                message.ack()
            # A publish goes behind the PUBACKs: its answer says that the broker has them.
            await agent.publish("fleet/event", b"")
        async with running(after.link(broker.port)):
            await eventually(lambda: len(after.messages) == 15 and after.ups)
            assert after.payloads == tasks[5:]
            assert after.ups == [True]
        last = Probe()
        async with running(last.link(broker.port)):
            await eventually(lambda: last.ups)
            await published(fleet, "fleet/task", b"new")
            await eventually(lambda: last.messages)
            assert last.payloads == [b"new"], "what was acknowledged does not come again"


async def test_work_sent_while_the_car_was_away_is_delivered_when_it_is_back(broker: Broker) -> None:
    fleet, probe = fleet_link(broker), Probe(acknowledge=True)
    async with running(fleet):
        first = probe.link(broker.port)
        async with running(first):
            await eventually(lambda: first.up and fleet.up)
        await published(fleet, "fleet/task", b"while away")
        async with running(probe.link(broker.port)):
            await eventually(lambda: probe.messages)
    assert probe.payloads == [b"while away"]


async def test_the_link_comes_back_when_the_broker_does(broker: Broker) -> None:
    probe = Probe(acknowledge=True)
    link = probe.link(broker.port)
    async with running(link):
        await eventually(lambda: link.up)
        broker.kill()
        await eventually(lambda: not link.up)
        with pytest.raises(LinkDown):
            link.publish("fleet/event", b"")
        broker.start()
        await eventually(lambda: link.up)
        await published(link, "fleet/task", b"hello")
        await eventually(lambda: probe.messages)
        assert link.status.connects == 2


async def test_a_thousand_messages_arrive_once_and_in_order(broker: Broker) -> None:
    bodies = [b"%d" % n for n in range(1000)]
    fleet, probe = fleet_link(broker), Probe(acknowledge=True)
    agent = probe.link(broker.port)
    async with running(fleet, agent):
        await eventually(lambda: agent.up and fleet.up)
        await published(fleet, "fleet/task", *bodies)
        await eventually(lambda: len(probe.messages) == 1000)
    assert probe.payloads == bodies


async def test_64_messages_wait_unacknowledged_and_then_all_others_come(broker: Broker) -> None:
    fleet, probe = fleet_link(broker), Probe()
    agent = probe.link(broker.port)
    async with running(fleet, agent):
        await eventually(lambda: agent.up and fleet.up)
        await published(fleet, "fleet/task", *[b"%d" % n for n in range(200)])
        await eventually(lambda: len(probe.messages) >= 64)
        probe.acknowledge = True
        for message in probe.messages[:]:
            message.ack()
        await eventually(lambda: len(probe.messages) == 200)


async def in_flight(link: Link, messages: int, outstanding: int) -> None:
    gate = asyncio.Semaphore(outstanding)

    def answered(_: asyncio.Future[None]) -> None:
        gate.release()

    for _ in range(messages):
        await gate.acquire()
        link.publish("fleet/task", KILOBYTE).add_done_callback(answered)
    for _ in range(outstanding):
        await gate.acquire()


async def test_a_task_of_128_kib_passes(broker: Broker) -> None:
    fleet, probe = fleet_link(broker), Probe(acknowledge=True)
    agent = probe.link(broker.port)
    body = os.urandom(128 * 1024)
    async with running(fleet, agent):
        await eventually(lambda: agent.up and fleet.up)
        await published(fleet, "fleet/task", body, body)
        await eventually(lambda: len(probe.messages) == 2)
    assert probe.payloads == [body, body]


@pytest.mark.parametrize(("want_retained", "expected"), [(True, [b"state", b"end"]), (False, [b"end"])])
async def test_the_fleet_gets_retained_states_at_every_connect_and_the_agent_none(
    mosquitto: type[MosquittoBroker], want_retained: bool, expected: list[bytes]
) -> None:
    # Not with rumqttd: it ignores Retain Handling and brings them once, with a new subscription.
    with mosquitto() as broker:
        fleet = fleet_link(broker)
        async with running(fleet):
            await eventually(lambda: fleet.up)
            await published(fleet, "fleet/state", b"state", retain=True)
            for _ in range(2):
                assert await heard_until_end(broker, fleet, want_retained) == expected


async def heard_until_end(broker: Broker, fleet: Link, want_retained: bool) -> list[bytes]:
    probe = Probe(acknowledge=True)
    link = probe.link(broker.port, subscriptions=("fleet/#",), want_retained=want_retained)
    async with running(link):
        await eventually(lambda: link.up)
        await published(fleet, "fleet/last", b"end")
        await eventually(lambda: b"end" in probe.payloads)
    return probe.payloads


async def test_a_message_that_was_published_retained_can_be_told_apart(
    mosquitto: type[MosquittoBroker],
) -> None:
    probe = Probe(acknowledge=True)
    with mosquitto() as broker:
        link = probe.link(broker.port)
        async with running(link):
            await eventually(lambda: link.up)
            await published(link, "fleet/task", b"", retain=True)
            await published(link, "fleet/task", b"")
            await eventually(lambda: len(probe.messages) == 2)
    assert [message.retain for message in probe.messages] == [True, False]


async def test_the_broker_sends_the_will_of_a_car_that_was_cut_off(broker: Broker) -> None:
    fleet = Probe(acknowledge=True)
    listener = fleet.link(broker.port, client_id="fleet", subscriptions=("fleet/state",))
    car = Probe().link(broker.port, will=Will(topic="fleet/state", payload=b"offline", delay_s=0))
    async with running(listener):
        async with running(car):
            await eventually(lambda: car.up and listener.up)
        await eventually(lambda: fleet.messages)
    assert fleet.payloads == [b"offline"]


async def test_the_broker_keeps_the_will_of_a_car_that_says_goodbye(mosquitto: type[MosquittoBroker]) -> None:
    # Not with rumqttd: when it sees the socket close before it has handled the DISCONNECT, it sends the Will.
    fleet = Probe(acknowledge=True)
    with mosquitto() as broker:
        listener = fleet.link(broker.port, client_id="fleet", subscriptions=("fleet/state",))
        car = Probe().link(broker.port, will=Will(topic="fleet/state", payload=b"offline", delay_s=0))
        async with running(listener):
            run = asyncio.create_task(car.run())
            await eventually(lambda: car.up and listener.up)
            await car.close()
            await run
            await published(listener, "fleet/state", b"end")
            await eventually(lambda: fleet.messages)
    assert fleet.payloads == [b"end"]


async def test_a_byte_order_mark_passes_a_real_broker(broker: Broker) -> None:
    probe = Probe(acknowledge=True)
    link = probe.link(broker.port)
    async with running(link):
        await eventually(lambda: link.up)
        await link.publish("fleet/task", b"legal", hints=Hints(content_type="\ufefftext/plain"))
        await eventually(lambda: probe.messages)
        assert link.status.connects == 1


async def test_an_acl_denial_is_a_refusal(mosquitto: type[MosquittoBroker], tmp_path: Path) -> None:
    acl = tmp_path / "acl"
    acl.write_text("topic readwrite fleet/#\n")
    with mosquitto(extra=(f"acl_file {acl}",)) as broker:
        link = Probe().link(broker.port)
        async with running(link):
            await eventually(lambda: link.up)
            with pytest.raises(PublishRefused, match="on elsewhere: Not authorized"):
                await link.publish("elsewhere", b"")


async def test_throughput_report(broker: Broker, capsys: pytest.CaptureFixture[str]) -> None:
    messages = 3000
    fleet, probe = fleet_link(broker), Probe(acknowledge=True)
    agent = probe.link(broker.port)
    async with running(fleet):
        await eventually(lambda: fleet.up)
        began = time.perf_counter()
        await in_flight(fleet, messages, 64)
        alone = messages / (time.perf_counter() - began)
        async with running(agent):
            await eventually(lambda: agent.up)
            began = time.perf_counter()
            await in_flight(fleet, messages, 64)
            await eventually(lambda: len(probe.messages) == messages)
            both = messages / (time.perf_counter() - began)
    report = f"{broker.name}, 1 KB, 64 outstanding: {alone:,.0f} publishes/s; {both:,.0f}/s received as well"
    with capsys.disabled():
        sys.stdout.write(f"\n{report}\n")
