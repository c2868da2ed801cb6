"""A broker that misbehaves, or delivers what we cannot read, costs a connection and never the link."""

import asyncio

import pytest
from fake_broker import PINGREQ, PUBLISH, FakeBroker, string, user_property
from link_probe import Probe, eventually, running

from agent.link import Link, LinkOptions, Retry

PUBREC, PUBREL, PUBCOMP = 5, 6, 7
BOM = "\ufeff"
NUL_IN_A_STRING = user_property("key", "\0")  # malformed, MQTT 5 section 1.5.4


@pytest.mark.parametrize(
    "properties",
    [
        user_property(BOM + "key", "value"),
        user_property("key", f"a{BOM}b"),
        b"\x03" + string(BOM + "text/plain"),
    ],
)
async def test_a_legal_message_with_a_byte_order_mark_is_delivered(properties: bytes) -> None:
    probe = Probe(acknowledge=True)
    async with FakeBroker() as broker, running(probe.link(broker.port)):
        peer = await broker.welcome()
        peer.publish("fleet/task", b"legal", 1, properties=properties)
        assert await peer.expect_puback() == 1
    assert probe.payloads == [b"legal"]


async def test_what_is_malformed_stays_malformed() -> None:
    probe = Probe()
    async with FakeBroker() as broker:
        link = probe.link(broker.port)
        async with running(link):
            peer = await broker.welcome()
            peer.publish("fleet/task", b"", 1, properties=NUL_IN_A_STRING)
            await peer.gone()
            await broker.accept()
            assert "unreadable packet" in link.status.error
    assert not probe.messages


async def test_a_message_that_kills_every_connection_costs_the_session_and_not_the_link() -> None:
    probe = Probe(acknowledge=True)
    async with FakeBroker() as broker:
        link = probe.link(broker.port, retry=Retry(jitter=lambda: 0.0, drops=3))
        async with running(link):
            for _ in range(3):
                peer = await broker.welcome(session_present=True)
                assert not peer.connect.clean_start
                peer.publish("fleet/task", b"poison", 1, properties=NUL_IN_A_STRING)
                await peer.gone()
            peer = await broker.welcome()
            assert peer.connect.clean_start
            await eventually(lambda: link.up)
            assert len(probe.dropped_sessions) == 1
            assert "unreadable packet" in probe.dropped_sessions[0]
            peer.publish("fleet/task", b"work", 1)
            assert await peer.expect_puback() == 1
            peer.abort()
            assert not (await broker.accept()).connect.clean_start
    assert probe.payloads == [b"work"]


async def test_a_broker_that_ignores_receive_maximum_waits_in_the_socket() -> None:
    probe = Probe()
    async with FakeBroker() as broker:
        link = probe.link(broker.port, receive_maximum=4)
        async with running(link):
            peer = await broker.welcome()
            await eventually(lambda: link.up)
            for packet_id in range(1, 41):
                peer.publish("fleet/task", b"", packet_id)
            await eventually(lambda: len(probe.messages) == 16)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await peer.packet()
            assert len(probe.messages) == 16, "four Receive Maximums are the most"
            probe.acknowledge = True
            for message in probe.messages[:]:
                message.ack()
            assert [await peer.expect_puback() for _ in range(40)] == list(range(1, 41))


async def test_a_packet_larger_than_we_allowed_is_not_taken_into_memory() -> None:
    async with FakeBroker() as broker:
        link = Probe().link(broker.port, max_packet_bytes=1000)
        async with running(link):
            peer = await broker.welcome()
            peer.writer.write(
                bytes([PUBLISH << 4 | 2]) + b"\x80\x80\x80\x10" + bytes(100)
            )  # 32 MiB to follow
            await peer.gone()
            await broker.accept()
            assert "33554432 bytes, we take 1000" in link.status.error


async def test_bytes_that_are_not_mqtt_end_the_connection_only() -> None:
    async with FakeBroker() as broker:
        link = Probe().link(broker.port, answer_s=0.2)
        async with running(link):
            for garbage in (b"HTTP/1.1 400 Bad Request", b"\xf0\xff\xff\xff\xff\xff", b"\x20\0", b"\x40\1\0"):
                peer = await broker.accept()
                peer.writer.write(garbage)
                await peer.gone()
            await broker.welcome()
            await eventually(lambda: link.up)


async def test_a_broker_that_sends_with_qos_2_although_it_granted_1_gets_the_whole_handshake() -> None:
    probe = Probe(acknowledge=True)
    async with FakeBroker() as broker, running(probe.link(broker.port)):
        peer = await broker.welcome()
        peer.send(PUBLISH, string("fleet/task") + b"\0\7\0" + b"twice", flags=0x04)
        assert (await peer.expect(PUBREC)).body[:2] == b"\0\7"
        assert not probe.messages, "it may still be sent a second time"
        peer.send(PUBREL, b"\0\7", flags=2)
        assert (await peer.expect(PUBCOMP)).body[:2] == b"\0\7"
        peer.publish("fleet/task", b"once", 8)
        assert await peer.expect_puback() == 8
    assert [message.qos for message in probe.messages] == [2, 1]


async def test_closing_after_a_fault_of_ours_hides_it_behind_no_other() -> None:
    def fail(_: object) -> None:
        raise LookupError("a fault of ours")

    async with FakeBroker() as broker:
        link = Link(
            LinkOptions(host="127.0.0.1", port=broker.port, client_id="veh-0001", subscriptions=("t",)),
            on_message=fail,
        )
        ending = asyncio.create_task(link.run())
        peer = await broker.welcome()
        peer.publish("t", b"", 1)
        with pytest.raises(LookupError):
            await ending
        await link.close()


async def test_a_topic_that_is_not_utf_8_ends_the_connection_only() -> None:
    probe = Probe()
    async with FakeBroker() as broker:
        link = probe.link(broker.port)
        async with running(link):
            peer = await broker.welcome()
            peer.send(PUBLISH, b"\0\2\xff\xff\0\1\0", flags=2)
            await peer.gone()
            await broker.accept()
            assert "a topic that is not UTF-8" in link.status.error
    assert not probe.messages


async def test_a_second_connack_and_answers_to_nothing_are_survived() -> None:
    async with FakeBroker() as broker:
        link = Probe().link(broker.port)
        async with running(link):
            peer = await broker.welcome()
            await eventually(lambda: link.up)
            peer.connack()
            peer.suback(1)
            peer.puback(4711)
            answer = link.publish("t", b"still here")
            peer.puback((await peer.expect_publish()).packet_id)
            await answer


async def test_a_broker_that_does_not_answer_a_ping_is_left() -> None:
    probe = Probe()
    async with FakeBroker() as broker:
        link = probe.link(broker.port, keepalive_s=1)
        async with running(link):
            peer = await broker.welcome()
            await peer.expect(PINGREQ)
            await eventually(lambda: probe.downs)
    assert "no answer to a ping" in probe.downs[0].text


async def test_a_publish_after_a_long_silence_has_all_its_time() -> None:
    now_ns = 0
    probe = Probe()
    async with FakeBroker() as broker:
        link = probe.link(broker.port, keepalive_s=1, stall_s=30, clock=lambda: now_ns)
        async with running(link):
            peer = await broker.welcome()
            await eventually(lambda: link.up)
            now_ns = 50_000_000_000
            answer = link.publish("t", b"")
            packet_id = (await peer.expect_publish()).packet_id
            await peer.expect(PINGREQ)  # the connection has been looked at since
            peer.puback(packet_id)
            await answer


async def test_a_broker_that_answers_pings_and_no_publish_is_left() -> None:
    probe = Probe()
    async with FakeBroker() as broker:
        link = probe.link(broker.port, keepalive_s=1, stall_s=0.2)
        async with running(link):
            peer = await broker.welcome()
            await eventually(lambda: link.up)
            answer = link.publish("t", b"")
            await peer.expect_publish()
            await eventually(lambda: probe.downs)
            assert "1 publishes under way, no PUBACK" in probe.downs[0].text
            assert answer.exception() is not None
