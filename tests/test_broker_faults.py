"""Brokers that refuse, forget, flood or do not answer: the agent lives on, and what it owes is not lost."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from agent_process import running_agent
from agents import TOPICS, agent, write_config
from fake_broker import PUBLISH, FakeBroker, Peer, read_publish
from fault_proxy import FaultProxy
from link_probe import at_once
from wire_fleet import WITHIN_S, task, wire_fleet

from agent.link import Hints, Link, LinkOptions
from agent.protocol import framing
from agent.protocol.messages import TaskState
from fleet.broker import Broker, MosquittoBroker

SLOW_US = 100_000
MIB = 2**20

REFUSALS = {
    0x80: "Unspecified error",
    0x81: "Malformed packet",
    0x82: "Protocol error",
    0x83: "Implementation specific error",
    0x84: "Unsupported protocol version",
    0x85: "Client identifier not valid",
    0x86: "Bad user name or password",
    0x87: "Not authorized",
    0x88: "Server unavailable",
    0x89: "Server busy",
    0x8A: "Banned",
    0x8C: "Bad authentication method",
    0x90: "Topic name invalid",
    0x95: "Packet too large",
    0x97: "Quota exceeded",
    0x99: "unreadable packet",  # legal, but paho does not know it in a CONNACK
    0x9A: "Retain not supported",
    0x9B: "QoS not supported",
    0x9C: "Use another server",
    0x9D: "Server moved",
    0x9F: "Connection rate exceeded",
}
"""MQTT 5 section 3.2.2.2, and what an operator is told."""


async def test_a_car_that_has_met_every_refusal_of_a_broker_comes_back(tmp_path: Path) -> None:
    async with (
        FakeBroker() as broker,
        agent(write_config(tmp_path, broker.port), wait_for_link=False) as car,
    ):
        link = car.service.link
        link._retry = at_once()
        for code, told in REFUSALS.items():
            (await broker.accept()).connack(code)
            async with asyncio.timeout(WITHIN_S):
                while told not in link.status.error:
                    await asyncio.sleep(0.002)
        await broker.welcome(subscriptions=2)
        await car.until(lambda: link.up, "the link")


# Answers that are late, negative or missing


async def ending(peer: Peer, late_s: float | None) -> TaskState:
    """Speak for a broker whose answers come after `late_s`, or never, until the car says how its task has ended."""
    loop = asyncio.get_running_loop()
    while True:
        packet = await peer.packet()
        if packet.kind != PUBLISH:
            continue
        said = read_publish(packet)
        if late_s is not None:
            loop.call_later(late_s, peer.puback, said.packet_id)
        if said.topic == TOPICS.event:
            state = framing.decode_event(said.payload).state
            if not state.is_open:
                return state
        elif said.topic == TOPICS.result and framing.decode_result(said.payload)[0].final:
            return TaskState.DONE


@pytest.mark.parametrize(
    ("rows", "late_s", "state"),
    [(80, 1.0, TaskState.DONE), (200, None, TaskState.EXPIRED)],
    ids=["late", "missing"],
)
async def test_a_lease_is_renewed_by_late_pubacks_and_not_without_any(
    tmp_path: Path, rows: int, late_s: float | None, state: TaskState
) -> None:
    async with (
        FakeBroker() as broker,
        agent(write_config(tmp_path, broker.port, run_us=SLOW_US), wait_for_link=False) as car,
    ):
        peer = await broker.welcome(subscriptions=2)
        await car.until(lambda: car.service.link.up, "the link")
        message, tail = task("night-1", count=rows, lease_s=6.0)
        peer.publish(TOPICS.task, framing.encode(message, [tail]), 1)
        assert await ending(peer, late_s) is state


async def test_results_that_a_broker_does_not_allow_are_owed_until_it_does(
    tmp_path: Path, mosquitto: type[MosquittoBroker]
) -> None:
    acl = tmp_path / "acl"
    acl.touch(0o600)
    acl.write_text(f"topic readwrite #\ntopic deny {TOPICS.result}\n")
    with mosquitto(extra=(f"acl_file {acl}",)) as broker:
        async with (
            FaultProxy(broker.port) as car_link,
            agent(write_config(tmp_path, car_link.port)) as car,
            wire_fleet(broker.port, TOPICS) as fleet,
        ):
            fleet.send(task("night-1"))
            await car.until_rows(8)
            assert not fleet.results
            acl.write_text("topic readwrite #\n")
            reload_configuration(broker)
            car_link.cut()
            await fleet.until(lambda: fleet.is_final("night-1"), "the answer")
            await car.until_settled()


def reload_configuration(broker: MosquittoBroker) -> None:
    assert broker._process is not None
    os.kill(broker._process.pid, signal.SIGHUP)


# Too much

MESSAGES = 20_000
RUBBISH = (b"", b"{", bytes(range(256)), b"[" * 2_000)
GROWTH_MIB = 24


async def test_a_flood_costs_bounded_memory_and_no_task_beside_it(tmp_path: Path, broker: Broker) -> None:
    """Mosquitto keeps to the Receive Maximum; rumqttd, which is iotcore, does not."""
    config = write_config(tmp_path, broker.port)
    async with wire_fleet(broker.port, TOPICS) as fleet, running_agent(config) as car:
        await fleet.until(fleet.last_state, "a state")
        fleet.send(task("before"))
        await fleet.until(lambda: fleet.is_final("before"), "the first answer")
        before_bytes = car.resident_bytes
        message, tail = task("other", audience="veh-2")
        rubbish = (*RUBBISH, framing.encode(message, [tail]))
        flood = [rubbish[number % len(rubbish)] for number in range(MESSAGES)]
        answers = [fleet.publish(TOPICS.task, body) for body in flood[: MESSAGES // 2]]
        answers.append(fleet.send(task("beside")))
        answers += [fleet.publish(TOPICS.control, body) for body in flood[MESSAGES // 2 :]]
        await asyncio.gather(*answers)
        await fleet.until(lambda: fleet.is_final("beside"), "the answer of the good task")
        fleet.send(task("behind"))
        await fleet.until(lambda: fleet.is_final("behind"), "the answer behind the flood")
        assert car.resident_bytes - before_bytes < GROWTH_MIB * MIB
        assert await car.stop() == 0


async def test_a_packet_of_20_mb_does_not_reach_the_car(
    tmp_path: Path, mosquitto: type[MosquittoBroker]
) -> None:
    with mosquitto() as broker:
        config = write_config(tmp_path, broker.port)
        async with (
            speaker(broker.port) as link,
            wire_fleet(broker.port, TOPICS) as fleet,
            agent(config) as car,
        ):
            for topic in (TOPICS.task, TOPICS.control):
                await link.publish(topic, bytes(20 * MIB))
            fleet.send(task("night-1"))
            await fleet.until(lambda: fleet.is_final("night-1"), "the answer")
            assert car.service.link.status.connects == 1


@asynccontextmanager
async def speaker(port: int) -> AsyncIterator[Link]:
    """Somebody who may say anything to the car."""
    up = asyncio.Event()
    options = LinkOptions(host="127.0.0.1", port=port, client_id="speaker", max_packet_bytes=32 * MIB)
    link = Link(options, on_message=lambda _: None, on_up=lambda _: up.set())
    running = asyncio.create_task(link.run(), name="speaker")
    try:
        await asyncio.wait_for(up.wait(), WITHIN_S)
        yield link
    finally:
        await link.close()
        await running


# What is legal


async def test_a_task_with_a_byte_order_mark_in_its_properties_is_a_task(
    tmp_path: Path, broker: Broker
) -> None:
    async with (
        agent(write_config(tmp_path, broker.port)) as car,
        wire_fleet(broker.port, TOPICS) as fleet,
    ):
        message, tail = task("night-1")
        hints = Hints(content_type=f"\ufeff{framing.CONTENT_TYPE}")
        await fleet.link.publish(TOPICS.task, framing.encode(message, [tail]), hints=hints)
        await fleet.until(lambda: fleet.is_final("night-1"), "the answer")
        assert car.service.link.status.connects == 1
