"""What leaves together, what has to wait, and what comes last."""

import asyncio
import ssl
from pathlib import Path

import pytest
from fake_broker import DISCONNECT, PUBACK, PUBLISH, FakeBroker, Peer, read_publish
from link_probe import Probe, eventually, running
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from agent.link.errors import LinkDown
from agent.link.outflow import SEND_BYTES, join_packets
from agent.link.window import PACKET_IDS, Outgoing, SendWindow
from benchmarks.certificates import Authority

RECEIVE_MAXIMUM = b"\x21"
SIZES = (0, 1, 100, 5_000, 70_000, 130_000)


async def payloads(peer: Peer, count: int) -> list[bytes]:
    return [(await peer.expect_publish()).payload for _ in range(count)]


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
async def test_messages_arrive_whole_and_in_order_at_a_broker_that_reads_slowly(
    tmp_path: Path, secure: bool
) -> None:
    authority = Authority(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*authority.issue("broker"))
    async with FakeBroker(tls=context if secure else None) as broker:
        link = Probe().link(broker.port, send_window=1_000, ca_file=authority.path if secure else None)
        async with running(link):
            peer = await broker.welcome(properties=RECEIVE_MAXIMUM + (1_000).to_bytes(2))
            await eventually(lambda: link.up)
            sent = [bytes([n]) * size for n in range(120) for size in SIZES]  # 24 MB
            for payload in sent[: len(sent) // 2]:
                link.publish("t", payload)
            await asyncio.sleep(0.01)  # the socket takes what it has room for, and is full
            for payload in sent[len(sent) // 2 :]:
                link.publish("t", payload)
            for payload in sent:
                publish = await peer.expect_publish()
                assert publish.payload == payload
                peer.puback(publish.packet_id)
            assert link._connection is not None
            sock = link._connection._wire._client.socket()
            assert sock is not None
            assert not asyncio.get_running_loop().remove_writer(sock), "it is not asked for room any more"


def test_packets_that_wait_together_leave_in_as_few_calls_as_they_fit_in() -> None:
    client = Client(CallbackAPIVersion.VERSION2)
    client.on_socket_register_write = lambda *_: None
    sizes = [10, 20, SEND_BYTES - 30, 1, 100_000, 5]
    for place, size in enumerate(sizes):
        client._packet_queue(0x30, bytes([place]) * size, place, 1)
    whole = b"".join(packet["packet"] for packet in client._out_packet)
    join_packets(client._out_packet)
    left = list(client._out_packet)
    assert b"".join(packet["packet"] for packet in left) == whole
    assert [len(packet["packet"]) for packet in left] == [SEND_BYTES, 1, 100_000, 5]
    assert all(packet["to_process"] == len(packet["packet"]) and packet["pos"] == 0 for packet in left)


async def test_the_disconnect_is_the_last_word() -> None:
    probe = Probe()
    async with FakeBroker() as broker:
        link = probe.link(broker.port)
        async with running(link):
            peer = await broker.welcome()
            peer.publish("fleet/task", b"", 7)
            await eventually(lambda: probe.messages and link.up)
            for n in range(10):
                link.publish("t", bytes([n]))
            closing = asyncio.create_task(link.close())
            await asyncio.sleep(0)
            probe.messages[0].ack()  # too late: whoever has said DISCONNECT says nothing more
            assert await payloads(peer, 10) == [bytes([n]) for n in range(10)]
            await peer.expect(DISCONNECT)
            with pytest.raises(ConnectionError):
                await peer.packet()
            await closing


async def test_acknowledgements_and_messages_of_one_round_keep_their_order() -> None:
    probe = Probe()
    async with FakeBroker() as broker:
        link = probe.link(broker.port)
        async with running(link):
            peer = await broker.welcome()
            for packet_id in range(1, 4):
                peer.publish("fleet/task", b"", packet_id)
            await eventually(lambda: len(probe.messages) == 3 and link.up)
            for message in probe.messages:
                message.ack()
                link.publish("t", b"accepted")
            got = [await peer.packet() for _ in range(6)]
    assert [packet.kind for packet in got] == [PUBACK, PUBLISH] * 3
    assert read_publish(got[5]).payload == b"accepted"


async def test_messages_before_the_brokers_end_of_the_connection_are_delivered() -> None:
    probe = Probe()
    async with FakeBroker() as broker:
        link = probe.link(broker.port)
        async with running(link):
            peer = await broker.welcome()
            await eventually(lambda: link.up)
            for packet_id in range(1, 4):
                peer.publish("fleet/task", bytes([packet_id]), packet_id)
            peer.writer.close()
            await eventually(lambda: probe.downs)
    assert probe.payloads == [b"\1", b"\2", b"\3"]
    assert "closed without a word" in probe.downs[0].text


async def test_a_message_that_comes_byte_by_byte_is_one_message() -> None:
    probe = Probe(acknowledge=True)
    async with FakeBroker() as broker, running(probe.link(broker.port)):
        peer = await broker.welcome()
        for byte in b"\x32\x0e\0\4task\0\7\0crumb":
            peer.writer.write(bytes([byte]))
            await asyncio.sleep(0.001)
        assert await peer.expect_puback() == 7
    assert probe.payloads == [b"crumb"]


async def test_a_flood_that_is_not_taken_stays_with_the_broker() -> None:
    probe = Probe()
    async with FakeBroker() as broker:
        link = probe.link(broker.port, receive_maximum=4)
        async with running(link):
            peer = await broker.welcome()
            await eventually(lambda: link.up)
            for packet_id in range(1, 20_001):
                peer.publish("fleet/task", bytes(20), packet_id)
            assert link._connection is not None
            held = link._connection._wire._inflow._held
            for taken in range(
                16, 1_000, 12
            ):  # four Receive Maximums are the most; ever more are acknowledged
                await eventually(lambda: len(probe.messages) >= taken)  # noqa: B023 - awaited in this round
                for message in probe.messages[:-4]:
                    message.ack()
                assert len(held) < 2 * 65_536 + 4_096


def test_an_identifier_is_used_again_when_its_message_is_answered_and_not_before() -> None:
    given: list[int] = []
    window = SendWindow(2, lambda _, packet_id: given.append(packet_id))
    loop = asyncio.new_event_loop()
    for _ in range(PACKET_IDS + 2):
        window.add(Outgoing("t", b"", False, b"\0", loop.create_future()))
        if given[-1] != 2:  # the second one is never answered
            window.answer(given[-1], 0, "Success")
    assert given == [*range(1, PACKET_IDS + 1), 1, 3]
    loop.close()


def test_an_answer_to_nothing_changes_nothing() -> None:
    window = SendWindow(3, lambda _outgoing, _packet_id: None)
    window.answer(4711, 0, "Success")
    assert len(window) == 0


def test_a_publish_on_a_dead_connection_fails_and_takes_no_room() -> None:
    def dead(_outgoing: Outgoing, _packet_id: int) -> None:
        raise LinkDown("gone")

    loop = asyncio.new_event_loop()
    window = SendWindow(1, dead)
    outgoing = Outgoing("t", b"", False, b"\0", loop.create_future())
    window.add(outgoing)
    assert isinstance(outgoing.answered.exception(), LinkDown)
    assert len(window) == 0
    loop.close()
