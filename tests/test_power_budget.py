import asyncio
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
from agents import TOPICS, agent, write_config
from hypothesis import given
from hypothesis import strategies as st
from wire_fleet import task, wire_fleet

from agent.pace import Pace
from agent.policy.shares import shares
from firmware_shims import vss
from fleet.broker import Broker

SLOW_US = 60_000


@pytest.mark.parametrize(
    ("needs_w", "budget_w", "given"),
    [
        ([60], 60, [1]),
        ([60], 30, [0.5]),
        ([60], 0, [0]),
        ([300, 60], 360, [1, 1]),
        ([300, 60], 350, [1, 0]),
        ([300, 60], 100, [0, 1]),
        ([300, 60], 30, [0, 0.5]),
        ([0.1, 0.7], 0.1 + 0.7, [1, 1]),
    ],
)
def test_backends_that_fit_the_budget_run_and_a_single_one_rests(
    needs_w: list[float], budget_w: float, given: list[float]
) -> None:
    assert shares(needs_w, budget_w) == pytest.approx(given)


@given(st.lists(st.floats(0.1, 1000), min_size=1, max_size=5), st.floats(0, 5000))
def test_what_runs_together_never_needs_more_than_the_budget(needs_w: list[float], budget_w: float) -> None:
    drawn_w = sum(need * share for need, share in zip(needs_w, shares(needs_w, budget_w), strict=True))
    assert drawn_w <= budget_w * (1 + 1e-6)


async def test_a_backend_with_half_of_the_budget_rests_as_long_as_it_runs() -> None:
    pace = Pace(lambda: 0.5)
    spans: list[tuple[float, float]] = []

    async def run() -> None:
        async with pace.turn():
            began_s = asyncio.get_running_loop().time()
            await asyncio.sleep(0.02)
            spans.append((began_s, asyncio.get_running_loop().time()))

    await asyncio.gather(*(run() for _ in range(4)))
    for (began_s, ended_s), (next_s, _) in pairwise(spans):
        assert next_s - ended_s >= 0.9 * (ended_s - began_s)


async def test_a_backend_without_a_share_waits_until_it_has_one() -> None:
    share = 0.0
    pace = Pace(lambda: share)
    waiting = asyncio.ensure_future(pace.turn().__aenter__())
    await asyncio.sleep(0.05)
    assert not waiting.done()
    share = 1.0
    await asyncio.wait_for(waiting, 20)


async def test_a_hot_chip_slows_the_work_down_before_it_stops_it(tmp_path: Path, iotcore: Broker) -> None:
    loop = asyncio.get_running_loop()
    async with (
        agent(write_config(tmp_path, iotcore.port, run_us=SLOW_US)) as car,
        wire_fleet(iotcore.port, TOPICS) as fleet,
    ):
        took_s = []
        for name, chip_c in (("first", 45.0), ("cool", 45.0), ("cooler", 45.0), ("hot", 87.5)):
            car.car.set(vss.CHIP_TEMPERATURE, chip_c)
            began_s = loop.time()
            fleet.send(task(name, count=12))
            await fleet.until(partial(fleet.is_final, name), name)
            took_s.append(loop.time() - began_s)
        await fleet.until(lambda: (state := fleet.last_state()) and state.budget_w == 15, "the budget")
    *cool_s, hot_s = took_s
    assert hot_s > 2 * min(cool_s)  # a quarter of the time; a busy machine only makes it longer
