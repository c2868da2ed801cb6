"""Messages in both directions: what is acknowledged when, and what a publish learns."""

import asyncio

import pytest
from fake_broker import FakeBroker, Peer
from link_probe import Probe, eventually, running

from agent.link import Hints, Link, LinkDown, PublishRefused

NOT_AUTHORIZED = 0x87
NO_MATCHING_SUBSCRIBERS = 0x10
SERVER_SHUTTING_DOWN = 0x8B


async def next_publish_is(link: Link, peer: Peer, payload: bytes) -> None:
    """Show that the link has sent nothing before this."""
    link.publish("fleet/event", payload)
    assert (await peer.expect_publish()).payload == payload


async def test_a_message_is_acknowledged_when_we_say_so_and_not_before() -> None:
    probe = Probe()
    async with FakeBroker() as broker:
        link = probe.link(broker.port)
        async with running(link):
            peer = await broker.welcome()
            peer.publish("fleet/task", b"work", 7)
            await eventually(lambda: probe.messages and link.up)
            await next_publish_is(link, peer, b"no PUBACK so far")
            probe.messages[0].ack()
            assert await peer.expect_puback() == 7


async def test_acknowledgements_keep_the_order_of_arrival() -> None:
    probe = Probe()
    async with FakeBroker() as broker, running(probe.link(broker.port)):
        peer = await broker.welcome()
        for packet_id in (9, 3, 5):
            peer.publish("fleet/task", b"", packet_id)
        await eventually(lambda: len(probe.messages) == 3)
        for message in reversed(probe.messages):
            message.ack()
        assert [await peer.expect_puback() for _ in range(3)] == [9, 3, 5]


async def test_a_second_ack_does_not_acknowledge_the_next_message_of_that_number() -> None:
    probe = Probe()
    async with FakeBroker() as broker:
        link = probe.link(broker.port)
        async with running(link):
            peer = await broker.welcome()
            peer.publish("fleet/task", b"first", 7)
            await eventually(lambda: probe.messages and link.up)
            probe.messages[0].ack()
            assert await peer.expect_puback() == 7
            peer.publish("fleet/task", b"second", 7)
            await eventually(lambda: len(probe.messages) == 2)
            probe.messages[0].ack()
            await next_publish_is(link, peer, b"no PUBACK for the second")


async def test_an_ack_belongs_to_the_connection_that_brought_the_message() -> None:
    probe = Probe()
    async with FakeBroker() as broker:
        link = probe.link(broker.port)
        async with running(link):
            peer = await broker.welcome()
            peer.publish("fleet/task", b"work", 7)
            await eventually(lambda: probe.messages)
            peer.abort()
            peer = await broker.welcome(session_present=True)
            peer.publish("fleet/task", b"work", 7)
            await eventually(lambda: len(probe.messages) == 2 and link.up)
            probe.messages[0].ack()
            await next_publish_is(link, peer, b"no PUBACK for the second delivery")
            probe.messages[1].ack()
            assert await peer.expect_puback() == 7


async def test_the_message_is_handed_on_as_it_came() -> None:
    probe = Probe()
    async with FakeBroker() as broker, running(probe.link(broker.port)):
        peer = await broker.welcome()
        peer.publish("fleet/task", b"\0\xff", 7, retain=True)
        await eventually(lambda: probe.messages)
    message = probe.messages[0]
    assert (message.topic, message.payload, message.qos, message.retain) == (
        "fleet/task",
        b"\0\xff",
        1,
        True,
    )


async def test_a_publish_carries_its_hints() -> None:
    async with FakeBroker() as broker:
        link = Probe().link(broker.port)
        async with running(link):
            peer = await broker.welcome()
            await eventually(lambda: link.up)
            hints = Hints(content_type="application/json", expiry_s=60, correlation=b"\0id")
            link.publish("fleet/result", b"{}", retain=True, hints=hints)
            sent = await peer.expect_publish()
    assert (sent.topic, sent.payload, sent.qos, sent.retain) == ("fleet/result", b"{}", 1, True)
    assert sent.properties == {2: (60).to_bytes(4), 3: b"application/json", 9: b"\0id"}


@pytest.mark.parametrize("code", [0, NO_MATCHING_SUBSCRIBERS])
async def test_a_publish_is_done_when_the_broker_has_it(code: int) -> None:
    async with FakeBroker() as broker:
        link = Probe().link(broker.port)
        async with running(link):
            peer = await broker.welcome()
            await eventually(lambda: link.up)
            answer = link.publish("fleet/event", b"")
            packet_id = (await peer.expect_publish()).packet_id
            assert not answer.done()
            peer.puback(packet_id, code)
            await answer


async def test_a_negative_puback_is_a_refusal_and_no_success() -> None:
    async with FakeBroker() as broker:
        link = Probe().link(broker.port)
        async with running(link):
            peer = await broker.welcome()
            await eventually(lambda: link.up)
            answer = link.publish("fleet/event", b"")
            peer.puback((await peer.expect_publish()).packet_id, NOT_AUTHORIZED)
            with pytest.raises(PublishRefused, match=r"on fleet/event: Not authorized \(0x87\)") as refusal:
                await answer
            assert refusal.value.code == NOT_AUTHORIZED
            assert link.up


async def test_publishes_under_way_learn_of_a_lost_connection_at_once() -> None:
    probe = Probe()
    async with FakeBroker() as broker:
        link = probe.link(broker.port, answer_s=3600, stall_s=3600)
        async with running(link):
            peer = await broker.welcome(properties=b"\x21" + (1).to_bytes(2))
            await eventually(lambda: link.up)
            under_way, waiting = link.publish("t", b"1"), link.publish("t", b"2")
            await peer.expect_publish()
            peer.abort()
            for answer in (under_way, waiting):
                with pytest.raises(LinkDown, match="lost the connection"):
                    await asyncio.wait_for(answer, 30)
            await eventually(lambda: probe.downs)


async def test_what_the_broker_says_in_its_disconnect_is_told() -> None:
    probe = Probe()
    async with FakeBroker() as broker:
        link = probe.link(broker.port)
        async with running(link):
            peer = await broker.welcome()
            await eventually(lambda: link.up)
            answer = link.publish("t", b"")
            peer.disconnect(SERVER_SHUTTING_DOWN)
            with pytest.raises(LinkDown, match=r"Server shutting down \(0x8b\)"):
                await answer
            await eventually(lambda: probe.downs)
            assert probe.downs[0].code == SERVER_SHUTTING_DOWN


async def test_a_hundred_publishes_are_under_way_at_a_broker_without_a_limit_of_its_own() -> None:
    async with FakeBroker() as broker:
        link = Probe().link(broker.port)
        async with running(link):
            peer = await broker.welcome()
            await eventually(lambda: link.up)
            answers = [link.publish("t", bytes([n])) for n in range(150)]
            sent = [await peer.expect_publish() for _ in range(100)]
            for publish in sent:
                peer.puback(publish.packet_id)
            sent += [await peer.expect_publish() for _ in range(50)]
            for publish in sent[100:]:
                peer.puback(publish.packet_id)
            await asyncio.gather(*answers)
    assert [publish.payload[0] for publish in sent] == list(range(150))


async def test_a_fault_of_the_service_comes_out_of_run() -> None:
    class FaultError(Exception):
        pass

    def faulty(_: object) -> None:
        raise FaultError

    async with FakeBroker() as broker:
        link = Probe().link(broker.port)
        link._on_message = faulty
        run = asyncio.create_task(link.run())
        peer = await broker.welcome()
        peer.publish("fleet/task", b"", 1)
        with pytest.raises(FaultError):
            await run
        await peer.gone()
