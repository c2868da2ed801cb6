"""Connecting: what we ask, what the broker may answer, and what happens when it does not."""

import asyncio
import contextlib
import logging
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from fake_broker import DISCONNECT, FakeBroker
from link_probe import Probe, eventually, running

from agent.link import LinkDown, LinkOptions, Retry, TooLarge, Will
from agent.link.dial import dial
from fleet.broker import free_port

NOT_AUTHORIZED = 0x87
TAKEN_OVER = 0x8E


async def test_the_first_connect_after_a_start_keeps_the_session() -> None:
    async with FakeBroker() as broker, running(Probe().link(broker.port)):
        connect = (await broker.accept()).connect
        assert connect.level == 5
        assert not connect.clean_start
        assert connect.client_id == "veh-0001"
        assert connect.properties == {
            17: (86_400).to_bytes(4),  # Session Expiry Interval
            33: (64).to_bytes(2),  # Receive Maximum
            39: (135_168).to_bytes(4),  # Maximum Packet Size
        }


async def test_the_will_waits_and_the_login_is_sent(tmp_path: Path) -> None:
    will = Will(topic="fleet/state", payload=b'{"online":false}', retain=True, delay_s=30)
    secret = tmp_path / "mqtt.password"
    secret.touch(0o600)
    secret.write_text("open sesame\n")
    login: dict[str, Any] = {"username": "veh", "password_file": secret}
    async with FakeBroker() as broker:
        link = Probe().link(broker.port, will=will, keepalive_s=17, **login)
        async with running(link):
            connect = (await broker.accept()).connect
    assert (connect.will_topic, connect.will_payload) == ("fleet/state", b'{"online":false}')
    assert (connect.will_qos, connect.will_retain) == (1, True)
    assert connect.will_properties == {24: (30).to_bytes(4)}
    assert (connect.username, connect.password, connect.keepalive_s) == ("veh", b"open sesame", 17)


@pytest.mark.parametrize(("want_retained", "handling"), [(False, 2), (True, 0)])
async def test_subscriptions_are_qos_1_and_bring_retained_messages_only_when_wanted(
    want_retained: bool, handling: int
) -> None:
    topics = ("fleet/task", "fleet/control")
    async with FakeBroker() as broker:
        link = Probe().link(broker.port, subscriptions=topics, want_retained=want_retained)
        async with running(link):
            peer = await broker.accept()
            peer.connack()
            filters = await peer.expect_subscribe()
    assert list(filters) == list(topics)
    for options in filters.values():
        assert options & 3 == 1, "QoS"
        assert options & 8, "retain as published"
        assert options >> 4 == handling, "retain handling"


async def test_it_is_up_when_the_subscriptions_stand_and_says_whether_the_session_was_there() -> None:
    probe = Probe()
    async with FakeBroker() as broker:
        link = probe.link(broker.port)
        async with running(link):
            peer = await broker.accept()
            peer.connack(session_present=True)
            await peer.expect_subscribe()
            assert not link.up
            peer.suback(1)
            await eventually(lambda: link.up)
            assert probe.ups == [True]
            assert link.status.connects == 1
        assert not link.up


async def test_a_small_packet_is_not_held_back_for_company() -> None:
    async with FakeBroker() as broker:
        sock = await dial(LinkOptions(host="127.0.0.1", port=broker.port, client_id="a"), None)
        with contextlib.closing(sock):
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_the_broker_allows_only_two_publishes_under_way() -> None:
    async with FakeBroker() as broker:
        link = Probe().link(broker.port)
        async with running(link):
            peer = await broker.welcome(properties=b"\x21" + (2).to_bytes(2))
            await eventually(lambda: link.up)
            answers = [link.publish("fleet/event", bytes([n])) for n in range(4)]
            answers[2].cancel()
            first, second = await peer.expect_publish(), await peer.expect_publish()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await peer.packet()
    assert (first.payload, second.payload) == (b"\0", b"\1")


async def test_a_puback_makes_room_for_the_next_publish_that_is_still_wanted() -> None:
    async with FakeBroker() as broker:
        link = Probe().link(broker.port)
        async with running(link):
            peer = await broker.welcome(properties=b"\x21" + (1).to_bytes(2))
            await eventually(lambda: link.up)
            answers = [link.publish("fleet/event", bytes([n])) for n in range(3)]
            answers[1].cancel()
            peer.puback((await peer.expect_publish()).packet_id)
            await answers[0]
            third = await peer.expect_publish()
            assert third.payload == b"\2"
            peer.puback(third.packet_id)
            await answers[2]


async def test_a_packet_above_the_brokers_limit_is_refused_here() -> None:
    async with FakeBroker() as broker:
        link = Probe().link(broker.port)
        async with running(link):
            peer = await broker.welcome(properties=b"\x27" + (200).to_bytes(4))
            await eventually(lambda: link.up)
            with pytest.raises(TooLarge, match="201 bytes, the limit is 200"):
                link.publish("t", b"x" * 192)
            answer = link.publish("t", b"x" * 191)
            peer.puback((await peer.expect_publish()).packet_id)
            await answer


async def test_a_packet_above_our_own_limit_is_refused_too() -> None:
    async with FakeBroker() as broker:
        link = Probe().link(broker.port)
        async with running(link):
            await broker.welcome()
            await eventually(lambda: link.up)
            with pytest.raises(TooLarge, match="135168"):
                link.publish("t", bytes(135_168))


async def test_a_refusal_is_told_and_retried() -> None:
    async with FakeBroker() as broker:
        link = Probe().link(broker.port)
        async with running(link):
            (await broker.accept()).connack(NOT_AUTHORIZED)
            await broker.accept()
            assert "Not authorized (0x87)" in link.status.error
            assert not link.up


async def test_a_refused_subscription_is_told_and_retried() -> None:
    probe = Probe()
    async with FakeBroker() as broker:
        link = probe.link(broker.port)
        async with running(link):
            peer = await broker.accept()
            peer.connack()
            await peer.expect_subscribe()
            peer.suback(NOT_AUTHORIZED)
            await peer.gone()
            await broker.welcome()
            assert "refused the subscription to fleet/task: Not authorized (0x87)" in link.status.error
            await eventually(lambda: probe.ups)


async def test_a_broker_that_never_answers_is_left() -> None:
    async with FakeBroker() as broker:
        link = Probe().link(broker.port, answer_s=0.05)
        async with running(link):
            silent = await broker.accept()
            await silent.gone()
            assert link.status.error == "no CONNACK within 0.05 s"
            no_suback = await broker.accept()
            no_suback.connack()
            await no_suback.gone()
            assert link.status.error == "no SUBACK within 0.05 s"


async def test_a_broker_that_hangs_up_before_the_connack_is_noticed_at_once() -> None:
    async with FakeBroker() as broker, running(Probe().link(broker.port, answer_s=3600)):
        (await broker.accept()).abort()
        await broker.accept()


async def test_a_broker_that_hangs_up_before_the_suback_is_noticed_at_once() -> None:
    probe = Probe()
    async with FakeBroker() as broker, running(probe.link(broker.port, answer_s=3600)):
        peer = await broker.accept()
        peer.connack()
        await peer.expect_subscribe()
        peer.abort()
        await broker.accept()
        assert not probe.ups


async def test_a_boot_without_a_broker_recovers_by_itself(caplog: pytest.LogCaptureFixture) -> None:
    probe = Probe()
    attempts: list[None] = []

    def count() -> float:
        attempts.append(None)
        return 0.01

    link = probe.link(free_port(), retry=Retry(jitter=count))
    with caplog.at_level(logging.WARNING):
        async with running(link):
            await eventually(lambda: len(attempts) > 3)
            with pytest.raises(LinkDown, match="Connect call failed"):
                link.publish("t", b"")
            assert len(caplog.records) == 1, "the same error is logged once, not at every attempt"
            async with FakeBroker(port=link._options.port) as broker:
                await broker.welcome()
                await eventually(lambda: link.up)
                assert not probe.downs, "it had never been up"


async def test_an_address_that_swallows_packets_does_not_hide_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with contextlib.ExitStack() as sockets, socket.create_server(("127.0.0.2", 0), backlog=0) as full:
        for _ in range(2):  # with its backlog full, Linux lets further SYNs go unanswered
            filler = sockets.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        async with FakeBroker() as broker:

            async def two_addresses(*_: object, **__: object) -> list[tuple[object, ...]]:
                addresses = (full.getsockname(), ("127.0.0.1", broker.port))
                return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", address) for address in addresses]

            monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", two_addresses)
            link = Probe().link(broker.port, answer_s=1.0)
            async with running(link):
                await broker.welcome()
                await eventually(lambda: link.up)


async def test_a_host_that_does_not_exist_is_told() -> None:
    link = Probe().link(1, host="broker.invalid")
    async with running(link):
        await eventually(lambda: "no connection to broker.invalid:1" in link.status.error)


async def test_a_take_over_of_our_client_id_does_not_become_a_fight() -> None:
    probe = Probe()
    async with FakeBroker() as broker:
        link = probe.link(broker.port, retry=Retry(jitter=lambda: 1.0))
        async with running(link):
            peer = await broker.welcome()
            await eventually(lambda: link.up)
            peer.disconnect(TAKEN_OVER)
            await eventually(lambda: probe.downs)
            assert probe.downs[0].code == TAKEN_OVER
            assert "Session taken over (0x8e)" in link.status.error
            await peer.gone()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.7):  # a plain first retry comes within 0.5 s
                    await broker.accept()


@pytest.mark.parametrize(("send_will", "code"), [(False, 0), (True, 4)])
async def test_a_clean_goodbye_says_whether_the_will_is_wanted(send_will: bool, code: int) -> None:
    async with FakeBroker() as broker:
        link = Probe().link(broker.port)
        run = asyncio.create_task(link.run())
        peer = await broker.welcome()
        await eventually(lambda: link.up)
        last = link.publish("fleet/state", b"offline")
        await link.close(send_will=send_will)
        await run
        assert (await peer.expect_publish()).payload == b"offline", "what was published before goes out first"
        assert (await peer.expect(DISCONNECT)).body[:1] in (bytes([code]), b"")
        with pytest.raises(LinkDown):
            await last
        with pytest.raises(LinkDown):
            link.publish("t", b"")


async def test_a_crash_says_no_goodbye_so_that_the_will_is_sent() -> None:
    async with FakeBroker() as broker:
        link = Probe().link(broker.port)
        async with running(link):
            peer = await broker.welcome()
            await eventually(lambda: link.up)
        with pytest.raises(ConnectionError):
            await peer.packet()


async def test_closing_does_not_wait_for_a_broker_that_is_not_there() -> None:
    link = Probe().link(free_port(), retry=Retry(jitter=lambda: 1.0, first_s=3600, cap_s=3600))
    run = asyncio.create_task(link.run())
    await eventually(lambda: link.status.error)
    began = time.monotonic()
    await link.close()
    await run
    assert time.monotonic() - began < 5


async def test_closing_does_not_wait_for_a_broker_that_does_not_read() -> None:
    async with FakeBroker() as broker:
        link = Probe().link(broker.port)
        run = asyncio.create_task(link.run())
        peer = await broker.welcome()
        await eventually(lambda: link.up)
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined] # a WriteTransport by its type only
        stuck = [link.publish("t", bytes(130_000)) for _ in range(100)]
        await asyncio.sleep(0)
        await link.close()
        await run
        assert all(isinstance(answer.exception(), LinkDown) for answer in stuck)


async def test_closing_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    probe = Probe()
    async with FakeBroker() as broker:
        link = probe.link(broker.port, retry=Retry(jitter=lambda: 1.0, first_s=3600, cap_s=3600))
        run = asyncio.create_task(link.run())
        await broker.welcome()
        await eventually(lambda: link.up)
        with caplog.at_level(logging.WARNING):
            await link.close()
            await run
    assert not caplog.records
    assert not probe.downs
    assert not link.up
    assert link.status.error == ""


async def test_closing_does_not_wait_for_a_broker_that_does_not_answer() -> None:
    async with FakeBroker() as broker:
        link = Probe().link(broker.port, answer_s=3600)
        run = asyncio.create_task(link.run())
        peer = await broker.accept()
        await link.close()
        await run
        await peer.gone()
