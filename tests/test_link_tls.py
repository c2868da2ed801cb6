"""Mutual TLS with a real broker, and handshakes that fail or hang."""

import asyncio
import os
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_broker import FakeBroker, string
from link_probe import Probe, eventually, running

from agent.link import Retry
from benchmarks.certificates import Authority
from fleet.broker import MosquittoBroker


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def secure_broker(mosquitto: type[MosquittoBroker], authority: Authority) -> Iterator[MosquittoBroker]:
    certificate, key = authority.issue("broker")
    demands = (
        f"cafile {authority.path}",
        f"certfile {certificate}",
        f"keyfile {key}",
        "require_certificate true",
    )
    with mosquitto(extra=demands) as broker:
        yield broker


async def test_messages_pass_over_mutual_tls(authority: Authority, secure_broker: MosquittoBroker) -> None:
    certificate, key = authority.issue("veh-0001")
    probe = Probe(acknowledge=True)
    link = probe.link(secure_broker.port, ca_file=authority.path, cert_file=certificate, key_file=key)
    bodies = [os.urandom(100_000) for _ in range(20)]  # larger than a TLS record and than the socket's buffer
    async with running(link):
        await eventually(lambda: link.up)
        await asyncio.gather(*[link.publish("fleet/task", body) for body in bodies])
        await eventually(lambda: len(probe.messages) == len(bodies))
    assert probe.payloads == bodies


async def test_messages_that_share_a_tls_record_are_all_read(authority: Authority) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*authority.issue("broker"))
    probe = Probe()
    async with FakeBroker(tls=context) as broker:
        link = probe.link(broker.port, ca_file=authority.path, receive_maximum=1)
        async with running(link):
            peer = await broker.welcome()
            message = b"\x32\x0f" + string("fleet/task") + b"\0\1\0"
            peer.writer.write(b"".join(message[:-2] + bytes([packet_id, 0]) for packet_id in range(1, 9)))
            await eventually(lambda: len(probe.messages) == 4)  # then it pauses: four Receive Maximums
            probe.acknowledge = True
            for waiting in probe.messages[:]:
                waiting.ack()
            assert [await peer.expect_puback() for _ in range(8)] == list(range(1, 9))


async def test_a_broker_of_another_authority_is_not_trusted(
    authority: Authority, secure_broker: MosquittoBroker, tmp_path: Path
) -> None:
    del authority
    link = Probe().link(secure_broker.port, ca_file=Authority(tmp_path, "other").path)
    async with running(link):
        await eventually(lambda: "certificate verify failed" in link.status.error)
        assert not link.up


async def test_a_broker_under_another_name_is_not_trusted(
    authority: Authority, secure_broker: MosquittoBroker
) -> None:
    link = Probe().link(secure_broker.port, ca_file=authority.path, host="localhost")
    async with running(link):
        await eventually(lambda: "not valid for 'localhost'" in link.status.error)


async def test_a_certificate_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    async with FakeBroker() as broker:
        link = Probe().link(broker.port, ca_file=tmp_path / "nowhere.pem")
        async with running(link):
            await eventually(lambda: f"{tmp_path}/nowhere.pem" in link.status.error)


async def test_a_handshake_that_hangs_holds_up_nothing_and_can_be_cancelled(authority: Authority) -> None:
    async with FakeBroker() as broker:
        link = Probe().link(broker.port, ca_file=authority.path, answer_s=3600)
        async with running(link):
            peer = await broker.arrival()
            assert (await peer.reader.readexactly(1)) == b"\x16", "a TLS handshake record"
        await peer.reader.read()  # the rest of the ClientHello, and the end


async def test_a_handshake_that_hangs_is_given_up(authority: Authority) -> None:
    async with FakeBroker() as broker:
        link = Probe().link(broker.port, ca_file=authority.path, answer_s=0.05, retry=Retry(cap_s=0.01))
        async with running(link):
            await eventually(lambda: "within 0.05 s" in link.status.error)
            await broker.arrival()
            await broker.arrival()
