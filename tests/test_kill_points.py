"""SIGKILL of the agent at each line where something is owed and not yet safe: every row is answered once."""

import asyncio
import signal
from pathlib import Path

import kill_points
import pytest
from agent_process import running_agent, until_nothing_owed
from agents import TOPICS, write_config
from wire_fleet import NULL_SHA256, WITHIN_S, WireFleet, wire_fleet

from agent.link import LinkOptions
from agent.protocol.messages import Datatype, ModelFormat, ModelRef, Result
from fleet.broker import Broker
from fleet.client import FleetClient, Input, Offer

NULL = ModelRef("null", "1", NULL_SHA256, ModelFormat.ONNX)
ROWS = 8
TASKS = 3
"""For each life of the agent."""
ROW_US = 40_000
"""Slow enough for a row to be a batch, so that rows are committed, and results settled, one by one."""
ONE_BY_ONE = ("rows written, not committed", "result settled, not committed")


def dying_at(point: str, nth: int) -> tuple[str, ...]:
    return (kill_points.__file__, point, str(nth))


def numbered(task: int) -> Input:
    """Rows that tell of which task and which row they are."""
    return Input("x", Datatype.UINT8, [ROWS, 2], bytes(byte for row in range(ROWS) for byte in (task, row)))


def assert_one_answer_for_each_row(wire: WireFleet, offers: list[Offer]) -> None:
    """On the wire: a result that comes again is the same result, and no two have a row in common."""
    answers: dict[tuple[str, tuple[int, int]], tuple[Result, bytes]] = {}
    for result, tail in wire.results:
        assert result.attempt == 1
        assert answers.setdefault((result.id, result.rows), (result, tail)) == (result, tail)
    answered = sorted((task, row) for task, (begin, end) in answers for row in range(begin, end))
    assert answered == sorted((offer.id, row) for offer in offers for row in range(ROWS))


@pytest.mark.parametrize("point", kill_points.POINTS)
async def test_an_agent_that_is_killed_with(tmp_path: Path, broker: Broker, point: str) -> None:
    config = write_config(tmp_path, broker.port, run_us=ROW_US if point in ONE_BY_ONE else 0)
    options = LinkOptions(host="127.0.0.1", port=broker.port, client_id="backend-1")
    async with (
        wire_fleet(broker.port, TOPICS, settles=False) as wire,
        FleetClient(options) as fleet,
    ):
        vehicle = fleet.vehicle("veh-1", "BR-SP")
        offers: list[Offer] = []
        for nth in (1, 2):
            offers += [vehicle.offer(NULL, [numbered(len(offers) + task)]) for task in range(TASKS)]
            async with running_agent(config, dying_at(point, nth)) as agent:
                assert await agent.until_ended() == -signal.SIGKILL
        async with running_agent(config) as agent:
            for task, offer in enumerate(offers):
                async with asyncio.timeout(WITHIN_S):
                    answer = await offer.answer()
                assert answer.outputs["x"].data == numbered(task).data
                assert answer.attempts == 1
            await until_nothing_owed(config)
            assert await agent.stop() == 0
    assert_one_answer_for_each_row(wire, offers)
